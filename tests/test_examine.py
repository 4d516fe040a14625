"""The verb `examine`, on faces of which everything is known: two patches, one for the smile and one for the glasses."""

from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal
from torch import nn

import helpers
from helpers import attribution
from helpers.bias import compare, counterfactual
from helpers.data import FaceDataset
from helpers.debiasing import debias
from helpers.debiasing.watch import Watch, inside
from helpers.examination import OF_A_CHANGE, OF_ONE_MAP
from helpers.models import append_after, features, predict
from helpers.models.affine import Affine
from helpers.plots import alt_text, debiasing, examination

SIDE = 12
PATCH = {"smiling": (slice(8, 10), slice(3, 9)), "glasses": (slice(2, 4), slice(3, 9))}
QUICK = {"progress": False, "redrawn": 60, "explained": 12}


class Patches(FaceDataset):
    """Grey noise in which a bright patch says smiling, and another glasses; each can be switched alone."""

    def counterfactual(self, i, attribute, value=None):
        value = not self.table[attribute][i] if value is None else value
        picture = self.images[i].copy()
        picture[PATCH[attribute]] = 230 if value else 30
        return torch.from_numpy(picture).permute(2, 0, 1).float() / 255

    def mask(self, i, attribute):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[PATCH[attribute]] = True
        return mask


def patches(n=240, seed=0, kind=Patches, **columns):
    rng = np.random.default_rng(seed)
    images = rng.integers(60, 200, (n, SIDE, SIDE, 3), dtype=np.uint8)
    table = pd.DataFrame({name: rng.permutation(np.arange(n) % 2 == 0) for name in PATCH})
    for name, where in PATCH.items():
        for i in range(n):
            images[i][where] = 230 if table[name][i] else 30
    table = table.assign(style="patches", identity=np.arange(n) // 2, **columns)
    return kind(images, table, target="smiling", protected="glasses")


def reads(smiling=0.0, glasses=0.0, shift=0.0):
    """A network of two linear layers that weighs the patches; its features are both patches and some noise."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 6), nn.Linear(6, 2))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weight = torch.randn(6, 3, SIDE, SIDE, generator=generator) / 20
        for row, where in enumerate(PATCH.values()):
            weight[row] = 0
            weight[row][(slice(None), *where)] = 1 / 36
        model[1].weight.copy_(weight.flatten(1))
        model[1].bias.copy_(torch.tensor([-0.51, -0.51, 0, 0, 0, 0]))
        model[2].weight.zero_()
        model[2].weight[1, :2] = torch.tensor([smiling, glasses])
        model[2].bias.copy_(torch.tensor([0, shift]))
    return model.eval()


@pytest.fixture(scope="module")
def faces():
    return patches()


@pytest.fixture(scope="module")
def biased():
    return reads(smiling=1.0, glasses=0.9, shift=0.5)  # smiling or glasses: wrong for those who do neither alone


@pytest.fixture(scope="module")
def results(biased):
    return debias(biased, patches(seed=1), ["LEACE", "DFR", "GT"])


@pytest.fixture(scope="module")
def examined(results, faces):
    return helpers.examine(results, faces, masks=("glasses", "smiling"), **QUICK)


def rows(table, **values):
    for name, value in values.items():
        table = table[table[name] == value]
    return table


def test_a_model_that_reads_the_attribute_alone_always_flips_and_one_that_ignores_it_never(faces):
    models = {"Vanilla": reads(glasses=1), "FAIR": reads(smiling=1), "BOTH": reads(smiling=1, glasses=0.01)}
    found = helpers.examine(models, faces, parts="flips", **QUICK).flips
    assert set(found["group"]) == {"all", "not glasses", "glasses"}
    assert (rows(found, method="Vanilla")["flip_rate"] == 1).all() and (rows(found, method="FAIR")["flip_rate"] == 0).all()
    fair = rows(found, method="FAIR", group="all").iloc[0]
    assert fair["change"] == -1 and fair["change_high"] < -0.8 and fair["n"] == 60 and 0 < fair["high"] < 0.15
    assert rows(found, method="Vanilla")["change"].isna().all()


def test_flips_are_those_of_a_counterfactual_audit_and_each_face_is_drawn_once(results, examined, faces, monkeypatch):
    for name, result in results.items():
        alone = counterfactual(result.model, faces, n=60, seed=0)
        mine = rows(examined.flips, method=name, group="all").iloc[0]
        assert (mine["flip_rate"], mine["low"], mine["high"]) == (alone.value("flip_rate"), *alone.interval("flip_rate"))
    drawn = []
    once = Patches.counterfactual
    monkeypatch.setattr(Patches, "counterfactual", lambda self, *given: drawn.append(given) or once(self, *given))
    helpers.examine(results, faces, parts="flips", **QUICK)
    assert len(drawn) == len(set(drawn)) <= 61


def test_who_gains_is_levelled_up_and_who_loses_down(faces):
    right, wrong = reads(smiling=1), reads(smiling=1, glasses=-2, shift=-0.9)  # says no to whoever wears glasses
    up = helpers.examine({"Vanilla": wrong, "NEW": right}, faces, parts=[], **QUICK)
    down = helpers.examine({"Vanilla": right, "NEW": wrong}, faces, parts=[], **QUICK)
    said = [
        rows(each.groups, statistic="true_positive_rate").set_index("group")["verdict"].to_dict() for each in (up, down)
    ]
    assert said[0]["glasses"] == "levels up" and said[1]["glasses"] == "levels down"
    pair = [predict(model, faces).y_pred for model in (wrong, right)]
    by_hand = compare(
        faces.targets, *pair, faces.group, groups=faces.groups, classes=faces.classes, names=("Vanilla", "NEW")
    )
    assert_frame_equal(up.groups.drop(columns="method"), by_hand.by_group)


def test_everything_is_judged_on_the_faces_given(results, examined, faces):
    for name, result in results.items():
        found = predict(result.model, faces)
        judged = examined.results[name]
        assert judged.get_metric("accuracy") == pytest.approx((found.y_pred == faces.targets).mean())
        assert judged.audit is not result.audit and judged.validation == result.validation
    gaps = [result.get_metric("equalized_odds") for result in examined.results.values()]
    assert examined.front["equalized_odds"].tolist() == gaps and examined.front["method"].tolist() == list(results)


def test_a_model_of_one_answer_is_degenerate_and_never_on_the_front(faces, biased):
    found = helpers.examine({"Vanilla": biased, "ONE": reads(shift=5)}, faces, parts=[], **QUICK)
    front = found.front.set_index("method")
    assert front.loc["ONE", "degenerate"] and front.loc["ONE", "equalized_odds"] == 0
    assert not front.loc["ONE", "on_front"] and front.loc["Vanilla", "on_front"]
    assert found.table().set_index("method").loc["ONE", "predicts one class"] == "yes"


def test_the_probe_finds_the_group_before_and_not_after_an_eraser(examined):
    found = examined.probe.set_index("method")
    assert set(found["layer"]) == {"1"} and (found["chance"] == 0.5).all()
    assert found.loc["Vanilla", "low"] > 0.9 and found.loc["LEACE", "low"] < 0.5 + 0.1
    assert found.loc["LEACE", "change_high"] < -0.2
    for untouched in ("DFR", "GT"):  # other weights and other decisions, the same features
        assert found.loc[untouched, "accuracy"] == found.loc["Vanilla", "accuracy"]


def test_replayed_features_and_logits_are_those_of_the_model(results, faces, biased):
    watch = Watch(results["Vanilla"].model, faces, 0)
    for result in results.values():
        seen = watch(result.model, None)
        run = features(result.model, faces, inside(result.model, "1"))
        np.testing.assert_allclose(seen.features, run.features, atol=1e-5)
        np.testing.assert_allclose(seen.logits, run.logits, atol=1e-5)
        np.testing.assert_array_equal(seen.before, features(biased, faces, "1").features)
    earlier = append_after(biased, "0", Affine(3 * SIDE * SIDE, 0.5 * np.eye(3 * SIDE * SIDE), np.zeros(3 * SIDE * SIDE)))
    seen = watch(earlier, None)
    assert seen.layer == "0"
    np.testing.assert_allclose(seen.features, 0.5 * seen.before, atol=1e-6)
    assert watch(earlier, "penultimate").layer == "1"
    np.testing.assert_allclose(watch(earlier, "1").features, features(earlier, faces, "1").features, atol=1e-6)


def test_a_model_that_was_edited_before_is_examined_again(results, faces):
    start = results["LEACE"].model
    again = debias(start, patches(seed=2), ["LEACE", "DFR", "GT"])
    watch = Watch(again["Vanilla"].model, faces, 0)
    for result in again.values():
        seen = watch(result.model, None)
        run = features(result.model, faces, inside(result.model, "1"))
        assert seen.layer == "1"
        np.testing.assert_allclose(seen.features, run.features, atol=1e-5)
        np.testing.assert_allclose(seen.logits, run.logits, atol=1e-5)
        np.testing.assert_allclose(seen.before, features(start, faces, inside(start, "1")).features, atol=1e-5)
    assert len(helpers.examine(again, faces, **QUICK).probe) == 4


def test_region_scores_are_those_of_evaluate(results, examined, faces):
    images, target, group = faces[examined.explained]
    assert len(images) == 12 and len(set(zip(target.tolist(), group.tolist(), strict=True))) == 4
    before = attribution.attribute(results["Vanilla"].model, images, target, "saliency")
    torch.testing.assert_close(examined.maps["Vanilla"], before)
    after = attribution.attribute(results["DFR"].model, images, target, "saliency")
    for region in ("glasses", "smiling"):
        masks = np.stack([faces.mask(i, region) for i in examined.explained])
        scores = [*OF_ONE_MAP, *OF_A_CHANGE]
        frame = attribution.evaluate(results["DFR"].model, images, after, target, scores, masks, before=before)
        for who, mine in (("all", np.ones(12, bool)), ("glasses", group.numpy() == 1)):
            wanted = frame[mine[frame["image"]]].groupby("metric")["value"].mean()
            got = rows(examined.regions, method="DFR", region=region, group=who).set_index("score")["value"]
            np.testing.assert_allclose(got[scores], wanted[scores])
    was = rows(examined.regions, method="Vanilla", region="glasses", group="all").set_index("score")
    now = rows(examined.regions, method="DFR", region="glasses", group="all").set_index("score")
    assert list(was.index) == list(OF_ONE_MAP)
    np.testing.assert_allclose(now.loc[list(OF_ONE_MAP), "before"], was["value"])
    np.testing.assert_allclose(now["change"][list(OF_ONE_MAP)], now["value"][list(OF_ONE_MAP)] - was["value"])
    assert now.loc["RRF", "change_high"] < 0  # the new last layer looks less at the glasses


def test_a_model_that_is_told_the_group_is_examined_too(results, examined, faces):
    assert results["GT"].needs_group and examined.results["GT"].needs_group
    torch.testing.assert_close(examined.maps["GT"], examined.maps["Vanilla"])  # thresholds change no gradient
    same = rows(examined.regions, method="GT", group="all").set_index("score")
    assert same.loc["ADR", ["value", "low", "high"]].eq(0).all().all()
    alone = counterfactual(results["GT"].model, faces, n=60, seed=0)  # told the group that the changed face belongs to
    assert rows(examined.flips, method="GT", group="all")["flip_rate"].item() == alone.value("flip_rate")


def test_photographs_are_examined_without_flips_and_with_masks_that_are_given(results, faces):
    photos = patches(kind=FaceDataset)
    found = helpers.examine(results, photos, **QUICK)
    assert found.flips.empty and found.regions.empty and not found.probe.empty
    assert any("cannot redraw" in note for note in found.notes) and any("no masks" in note for note in found.notes)
    masks = np.stack([faces.mask(i, "glasses") for i in range(len(faces))])
    given = helpers.examine(results, photos, masks={"glasses": masks}, parts="regions", **QUICK)
    drawn = helpers.examine(results, faces, parts="regions", **QUICK)
    assert_frame_equal(given.regions, drawn.regions)


def test_groups_too_small_for_a_probe_leave_the_rest_to_be_examined(results, faces):
    rows = np.r_[np.flatnonzero(faces.group == 0), np.flatnonzero(faces.group == 1)[:1]]
    found = helpers.examine(results, faces.subset(rows), parts=["probe", "flips"], **QUICK)
    assert found.probe.empty and not found.flips.empty
    assert sum("one has a single person" in note for note in found.notes) == 4


def test_a_loader_gives_decisions_and_probe(results, faces, examined):
    found = helpers.examine(results, faces.loader(32), **QUICK)
    assert len(found.notes) == 2 and found.flips.empty
    np.testing.assert_allclose(found.front["balanced_accuracy"], examined.front["balanced_accuracy"])
    assert (found.probe["layer"] == "1").all()


def test_a_failed_method_is_noted_and_a_model_that_cannot_be_explained_left_out(results, faces):
    class Hard(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return nn.functional.one_hot(self.model(images).argmax(1), 2).float()

    failed = helpers.debiasing.CorrectionResult("FAILS", error="planted failure")
    given = {**results, "FAILS": failed, "HARD": Hard(results["DFR"].model)}
    found = helpers.examine(given, faces, masks="glasses", **QUICK)
    assert any("FAILS gave no model: planted failure" in note for note in found.notes)
    assert any("regions: HARD is left out" in note and "no gradient" in note for note in found.notes)
    assert "probe: HARD is left out; it has no layer '1'" in found.notes and "HARD" not in set(found.probe["method"])
    assert "HARD" not in found.maps and set(found.flips["method"]) == {*results, "HARD"}
    assert found.front.set_index("method")["balanced_accuracy"].isna()["FAILS"] and "FAILS" in str(found)


def test_the_same_seed_gives_the_same_tables_and_no_trace(results, faces):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    before = [p.clone() for p in results["LEACE"].model.parameters()]
    one, two = (helpers.examine(results, faces, **QUICK) for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    for name in ("flips", "probe", "regions", "groups", "front"):
        assert_frame_equal(getattr(one, name), getattr(two, name))
    assert all(torch.equal(a, b) for a, b in zip(before, results["LEACE"].model.parameters(), strict=True))
    assert "counterfactual" not in vars(faces)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"results": [1]}, "results: a dict of name to result or module expected, list given"),
        ({"results": {}}, "results: 'Vanilla', the model as it was, is needed beside none"),
        ({"results": {"Vanilla": 3}}, r"results\['Vanilla'\]: int given"),
        ({"parts": "flip"}, "parts: unknown name 'flip'. Did you mean 'flips'"),
        ({"attribute": "glases"}, "attribute: unknown name 'glases'. Did you mean 'glasses'"),
        ({"masks": "mouth"}, "masks: unknown name 'mouth'"),
        ({"masks": np.zeros((3, SIDE, SIDE), bool)}, r"masks\['region'\]: bool \(240, 12, 12\), a mask for each"),
        ({"attribution": "salience"}, "method: unknown name 'salience'"),
        ({"steps": 3}, "'steps'"),
        ({"explained": 0}, "explained: 0 given"),
        ({"redrawn": 1.5}, "redrawn: 1.5 given"),
        ({"folds": 1}, "folds: 1 given"),
        ({"confidence": 95}, "confidence: 95"),
    ],
)
def test_bad_input_is_named_before_any_work(results, faces, monkeypatch, given, message):
    monkeypatch.setattr("helpers.examination.Watch", lambda *_: pytest.fail("ran"))
    with pytest.raises(ValueError, match=message):
        helpers.examine(**{"results": results, "faces": faces, **QUICK} | given)


def test_bad_layers_and_several_attributes_are_named(results, faces):
    with pytest.raises(ValueError, match="layer: unknown name '7'"):
        helpers.examine(results, faces, layer="7", parts="probe", progress=False)
    with pytest.raises(ValueError, match="attribute: name one of the protected attributes, glasses, style"):
        helpers.examine(results, faces.relabel(protected=["glasses", "style"]), progress=False)
    with pytest.raises(ValueError, match="masks: no face has a pixel in none"):
        none = {"none": np.zeros((len(faces), SIDE, SIDE), bool)}
        helpers.examine(results, faces, masks=none, parts="regions", progress=False)


def test_figures_say_what_they_show(examined):
    drawn = [
        examination.flips(examined.flips), examination.flips(examined.flips, group="glasses"), examination.probe(examined.probe),
        examination.groups(examined.groups), debiasing.pareto(examined.front),
        *(examination.regions(examined.regions, score) for score in examination.SCORES),
    ]  # fmt: skip
    for each in drawn:
        assert all(name in alt_text(each) for name in ("LEACE", "DFR", "GT"))
    axes = drawn[0]
    was = rows(examined.flips, method="Vanilla", group="all")["flip_rate"].item()
    assert any(list(line.get_xdata()) == [was, was] for line in axes.lines) and axes.get_xlabel()
    assert "levels up" in alt_text(drawn[3])
    empty = SimpleNamespace(flips=examined.flips.iloc[:0], probe=examined.probe.iloc[:0], regions=examined.regions.iloc[:0])
    for name, table in vars(empty).items():
        with pytest.raises(ValueError, match=f"table: {name} is empty"):
            getattr(examination, name)(table)
    with pytest.raises(ValueError, match="score: unknown name 'RFF'. Did you mean 'RRF'"):
        examination.regions(examined.regions, "RFF")
    plt.close("all")


def test_the_table_for_people_has_every_answer_with_its_interval(examined):
    table = examined.table().set_index("method")
    assert list(table) == [
        "balanced accuracy", "equalized-odds gap", "flips", "group read from features", "relevance on glasses",
        "relevance on smiling", "predicts one class",
    ]  # fmt: skip
    assert table.loc["LEACE", "flips"].count("[") == 1 and "LEACE" in str(examined) and "<table" in examined._repr_html_()


class Tokens(nn.Module):
    """A network whose classifier takes the first of several tokens, by a function, as a vision transformer's does."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.norm(self.patches(x).flatten(2).transpose(1, 2))[:, 0])


def test_of_a_transformer_the_class_token_is_probed_before_and_after():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, trained = Tokens().eval(), Tokens().eval()
    faces, taken = patches(n=60), []
    watch = Watch(model, faces, seed=0)
    for network in (model, trained, append_after(model, "norm", Affine(6, torch.diag(torch.arange(6.0))))):
        seen, taken = watch(network, None), []
        hook = network.head.register_forward_pre_hook(lambda module, args, taken=taken: taken.append(args[0]))
        logits = predict(network, faces).logits
        hook.remove()
        assert seen.layer == "norm"
        np.testing.assert_allclose(seen.features, torch.cat(taken), atol=1e-5)
        np.testing.assert_allclose(seen.logits, logits, atol=1e-5)
