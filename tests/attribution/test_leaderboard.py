"""Methods ranked against planted causes: a truth that is known here too, since the networks are sums of pixels.

About 60 s on one thread of a busy machine, most of it drawing faces.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn

import helpers
import helpers.models
from helpers import causes, finding, ranking
from helpers import leaderboard as boards
from helpers.causes import KnownCauses
from helpers.leaderboard import entries, leaderboard

N, SIDE = 12, 16
ROOT = Path(__file__).resolve().parents[2]


class Sum(nn.Module):
    """Logit: the sum of the pixels of a mask (H, W), about their middle. What it depends on is known exactly."""

    def __init__(self, mask, scale=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(mask, dtype=torch.float32) * scale)

    def forward(self, x):
        logit = ((x - 0.5) * self.weight).sum((1, 2, 3))
        return torch.stack([-logit, logit], 1)


def parts():
    found = {name: np.zeros((N, SIDE, SIDE), bool) for name in ("mouth", "glasses", "hair")}
    found["glasses"][:, 4:7, 3:13] = True
    found["mouth"][:, 10:13, 5:11] = True
    found["hair"][:, :3] = True
    return found | {"skin": ~np.logical_or.reduce(list(found.values()))}


@pytest.fixture
def known():
    where, cause = parts(), {"mouth": ["mouth"], "glasses": ["glasses"], "both": ["mouth", "glasses"]}
    images = torch.rand(N, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    networks = {
        (problem, seed): Sum(np.logical_or.reduce([where[name][0] for name in names]), 1.0 + seed)
        for seed in (0, 1)
        for problem, names in cause.items()
    }
    targets = {key: network(images).argmax(1) for key, network in networks.items()}
    people = np.repeat([f"person {k}" for k in range(N // 2)], 2)
    return KnownCauses(images, where, cause, networks, targets, people, np.array(["cell"] * N), pd.DataFrame())


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path / "cache"))


def row(board, name):
    return board.table.set_index("method").loc[name]


def board_of(known, methods, **options):
    return leaderboard(methods, known=known, **{"n_boot": 200, "progress": False} | options)


def test_gradients_find_a_planted_cause_and_what_knows_no_network_does_not(known):
    board = board_of(known, ["saliency", "integrated_gradients"])
    for name in ("saliency", "integrated_gradients", "the cause's mask"):
        found = row(board, name)
        assert found["found"] == found["found_high"] == 1
        # of six people, all found: Wilson's interval, by hand
        assert found["found_low"] == pytest.approx(1 if "mask" in name else 6 / (6 + 1.959964**2), abs=1e-6)
        assert found["relevance_rank"] >= 0.4 and found["pointing_game"] >= 0.4
    assert row(board, "saliency")["auc"] == row(board, "the cause's mask")["auc"] == 1
    area = np.mean([mask[0].mean() for mask in (parts()["mouth"], parts()["glasses"])])
    mean_lift = np.mean([1 / parts()["mouth"][0].mean(), 1 / parts()["glasses"][0].mean(), 1 / (2 * area)])
    assert row(board, "saliency")["lift"] == pytest.approx(mean_lift)
    chance = row(board, "random")
    assert abs(chance["auc"] - 0.5) < 0.02 and abs(chance["lift"] - 1) < 0.05 and chance["found"] < 0.45
    for blind in ("random", "edges", "centre"):
        assert row(board, blind)["discrimination"] == 0
    assert row(board, "saliency")["discrimination"] == 1


def test_random_maps_find_one_of_k_parts_of_equal_size_in_one_of_k_pictures():
    quarters = {name: np.zeros((400, 8, 8), bool) for name in "abcd"}
    for at, name in enumerate(quarters):
        quarters[name][:, 4 * (at // 2) : 4 * (at // 2) + 4, 4 * (at % 2) : 4 * (at % 2) + 4] = True
    maps = np.random.default_rng(0).random((400, 8, 8))
    assert finding.scores(maps, quarters, ["a"], margin=0)["found"].mean() == pytest.approx(1 / 4, abs=0.08)
    assert finding.scores(maps, quarters, ["a", "b"], margin=0)["found"].mean() == pytest.approx(1 / 6, abs=0.07)  # 2! 2! / 4!


def test_a_map_of_one_of_two_causes_has_not_found_both():
    where = parts()
    one = where["mouth"].astype(float) + 0.1 * where["hair"]
    assert finding.scores(one, where, ["mouth"])["found"].all()
    assert not finding.scores(one, where, ["mouth", "glasses"])["found"].any()


def test_area_under_the_curve_is_that_of_scikit_learn():
    where, maps = parts(), np.random.default_rng(1).normal(size=(N, SIDE, SIDE)).round(1)  # with ties
    for margin, frame in ((0, np.s_[4:7, 3:13]), (2, np.s_[2:9, 1:15])):
        found = finding.scores(maps, where, ["glasses"], margin=margin)["auc"]
        for picture in range(N):
            mask = where["glasses"][picture]
            near = np.zeros_like(mask)
            near[frame] = True
            kept = mask | ~near
            assert found[picture] == pytest.approx(roc_auc_score(mask[kept], np.abs(maps[picture])[kept]))


def test_around_a_cause_is_a_margin_without_rivals():
    where = {name: np.zeros((1, 64, 64), bool) for name in ("glasses", "eyes", "skin")}
    where["glasses"][0, 20:30, 10:50] = True
    where["glasses"][0, 22:28, 14:22] = False
    where["eyes"][0, 22:28, 14:22] = True  # within the frame
    where["skin"] = ~(where["glasses"] | where["eyes"])
    spilled = where["glasses"] + 2.0 * where["eyes"]
    assert finding.scores(spilled, where, ["glasses"])["found"] == 1
    assert finding.scores(spilled, where, ["glasses"], margin=0)["found"] == 0
    spilled[0, 36:46, 20:30] = 60  # farther down, and no wider than a mouth
    assert finding.scores(spilled, where, ["glasses"])["found"] == 0


@given(st.floats(1e-6, 1e6), st.integers(0, 1000))
def test_no_score_changes_if_a_map_is_multiplied(factor, seed):
    where, maps = parts(), np.random.default_rng(seed).normal(size=(N, SIDE, SIDE))
    one, other = (finding.scores(each, where, ["mouth"]) for each in (maps, maps * factor))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-9)
    lean = [finding.leaning(each, where["mouth"], where["glasses"]) for each in (maps, maps * factor)]
    np.testing.assert_allclose(*lean, rtol=1e-9)


@pytest.mark.parametrize("nothing", [0.0, 3.0, np.nan, np.inf])
def test_a_map_that_says_nothing_has_found_nothing(nothing):
    where = parts()
    found = finding.scores(np.full((N, SIDE, SIDE), nothing), where, ["mouth"])
    assert not found["found"].any() and found["silent"].all()
    np.testing.assert_allclose(found["auc"], 0.5)
    np.testing.assert_allclose(found["lift"], 1)
    assert np.isnan(found["pointing_game"]).all()
    np.testing.assert_allclose(finding.leaning(np.full((N, SIDE, SIDE), nothing), where["mouth"], where["glasses"]), 0.5)


def test_a_part_of_a_few_pixels_is_no_rival():
    where = {name: np.zeros((1, 64, 64), bool) for name in ("mouth", "mole", "skin")}
    where["mouth"][0, 40:50, 20:40] = True
    where["mole"][0, 5, 5:10] = True
    where["skin"] = ~(where["mouth"] | where["mole"])
    assert finding.scores(where["mouth"] + 2.0 * where["mole"], where, ["mouth"])["found"] == 1


def test_a_method_of_your_own_joins_and_one_that_ignores_the_network_does_not_discriminate(known):
    def darkness(model, images, target):
        return 1 - images.mean(1)

    def mine(model, images, target):
        return model.weight.detach().expand(len(images), -1, -1)

    board = board_of(known, {"darkness": darkness, "mine": mine, "IG": ("integrated_gradients", {"steps": 4})})
    assert set(board.table.loc[board.table["kind"] == "method", "method"]) == {"darkness", "mine", "IG"}
    assert row(board, "darkness")["discrimination"] == 0 and row(board, "darkness")["rank"] == 3
    assert row(board, "mine")["discrimination"] == row(board, "mine")["found"] == 1
    assert row(board, "IG")["passes"] == 8 and np.isnan(row(board, "mine")["passes"])


def test_discrimination_is_of_pairs_of_maps_of_one_picture(known):
    """A map that leans to the mouth on every network: the lean is taken off."""
    where = parts()
    always = torch.from_numpy(where["mouth"].astype(float))
    board = board_of(known, {"always": lambda model, images, target: always[: len(images)] + 0.5 * model.weight.detach()})
    # mouth's network: 1.5 on the mouth, 0 on the glasses; glasses' network: 1 and 0.5 (times 1 or 2 by seed)
    by_seed = [1 - 1 / (1 + 0.5 * scale) for scale in (1, 2)]
    assert row(board, "always")["discrimination"] == pytest.approx(np.mean(by_seed))


def test_intervals_hold_their_mean_and_narrow_with_people(known):
    def sometimes(model, images, target):
        return torch.where(images[:, :1, :1, 0:1].mean(1) > 0.5, model.weight.detach(), 1 - model.weight.detach())

    board = board_of(known, {"sometimes": sometimes, "saliency": True}, n_boot=500)
    found = row(board, "sometimes")
    assert 0 < found["found_low"] < found["found"] < found["found_high"] < 1
    share = (known.images[:, 0, 0, 0] > 0.5).double().mean().item()
    assert found["found"] == pytest.approx(share)
    assert row(board, "saliency")["rank"] == 1 and found["rank"] == found["rank_low"] == found["rank_high"] == 2


def test_the_bootstrap_draws_people_and_networks_crossed():
    units = pd.DataFrame({"seed": np.repeat([0, 1], 6), "image": np.tile(np.arange(6), 2)})
    person = np.tile([0, 0, 1, 1, 2, 2], 2)
    drawn = ranking.resampled(units, person, 3000, 0)
    whole = drawn.reshape(-1, 2, 6)
    assert (whole[..., 0] == whole[..., 1]).all() and (whole[..., 2] == whole[..., 3]).all()  # a person comes whole
    network = whole.sum(2) / whole.sum((1, 2))[:, None]
    assert set(np.unique(network)) == {0, 0.5, 1}  # both networks have the same people
    np.testing.assert_allclose(drawn.mean(0), 1, atol=0.08)
    single = ranking.resampled(units[:6], person[:6], 50, 0)
    assert (single.sum(1) == 6).all()


def test_places_go_by_found_then_area_and_ties_share_the_better():
    found, area = np.array([[0.5, 0.9, 0.5, 0.5]]), np.array([[0.7, 0.1, 0.8, 0.7]])
    assert ranking.places(found, area).tolist() == [[3, 1, 2, 3]]


def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(known, tmp_path, monkeypatch):
    methods, made = {"saliency": True, "IG": ("integrated_gradients", {"steps": 4})}, []
    whole = board_of(known, methods)
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path / "other"))
    explainer = boards.explainer

    def counting(*how):
        make = explainer(*how)

        def counted(model, images, target):
            if len(images) == N:
                made.append(target)
                if len(made) == stop:
                    raise KeyboardInterrupt
            return make(model, images, target)

        return counted

    monkeypatch.setattr(boards, "explainer", counting)
    stop = 5
    with pytest.raises(KeyboardInterrupt):
        board_of(known, methods)
    done, stop = len(made) - 1, 0
    again = board_of(known, methods)
    assert len(made) == done + 1 + (12 - done)  # the four that were kept are not explained again
    timed = ["seconds", "cpu_seconds"]
    pd.testing.assert_frame_equal(whole.per_image.drop(columns=timed), again.per_image.drop(columns=timed), check_exact=True)
    pd.testing.assert_frame_equal(whole.table.drop(columns=timed), again.table.drop(columns=timed), check_exact=True)
    made.clear()
    board_of(known, methods, seed=1)
    assert len(made) == 12  # another seed is another run


def test_what_fails_or_costs_too_much_is_listed_and_the_others_go_on(known):
    def broken(model, images, target):
        raise RuntimeError("out of luck\nand more")

    board = board_of(known, {"broken": broken, "saliency": True, "rise": True, "grad_cam": True}, most=300)
    reasons = board.left_out.set_index("method")["reason"]
    assert reasons["broken"] == "failed: out of luck"
    assert reasons["rise"] == "1,000 passes an image, more than most=300"
    assert reasons["grad_cam"].startswith("failed: layer")
    assert board.table["method"].tolist()[0] == "saliency" and len(board.table) == 5
    assert "`broken`: failed: out of luck" in board.to_markdown()
    with pytest.raises(ValueError, match="none could be judged; broken: failed"):
        board_of(known, {"broken": broken})


def test_passes_that_depend_on_the_model_are_counted_on_it(known):
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)).eval()
    convolved = replace(known, networks=dict.fromkeys(known.networks, network))
    assert boards.passes_of(("score_cam", {}), convolved) == 1 + 5
    assert boards.passes_of(("occlusion", {"patch": 8, "stride": 8}), convolved) == 1 + 4
    assert np.isnan(boards.passes_of(("score_cam", {}), known))  # without a layer it fails, and says so where it is judged


def test_the_finer_layer_is_one_of_the_networks_that_are_trained():
    network = helpers.models.build("resnet18", 2)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    name, options = entries()["grad_cam @ layer2"]
    fine, coarse = (helpers.attribute(network, images, 1, name, **how) for how in (options, {}))
    assert not torch.equal(fine, coarse)


def test_all_methods_are_entered_once_and_with_all_backends_each_of_them():
    names, everything = entries(), entries("all")
    assert {name for name, _ in names.values()} == set(helpers.attribution.methods()["name"])
    assert len(everything) > len(helpers.attribution.methods()) and "rise (xplique)" in everything
    assert names["layer_cam @ layer2"] == ("layer_cam", {"backend": "torch", "layer": "network.layer2"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["salency"]}, "methods: unknown name 'salency'. Did you mean 'saliency'"),
        ({"methods": {"a": 3}}, "methods: 'a': explain: 3"),
        ({"methods": {"IG": ("integrated_gradients", {"step": 3})}}, "methods: 'IG'.*Did you mean 'steps'"),
        ({"methods": {}}, "methods: none given"),
        ({"methods": {"edges": True}}, "methods: 'edges' is a reference row"),
        ({"profile": "quickly"}, "profile: unknown name 'quickly'"),
        ({"confidence": 95}, "confidence: 95"),
        ({"n_boot": 0}, "n_boot: 0"),
        ({"backends": "captum"}, "backends: "),
        ({"images": 8}, "known: given"),
    ],
)
def test_wrong_input_is_named_before_any_work(known, options, message):
    with pytest.raises(ValueError, match=message):
        leaderboard(**{"known": known, "progress": False} | options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": np.zeros((N, 4, 4))}, r"maps: shape \(12, 4, 4\); expected \(12, 16, 16\)"),
        ({"causes": ["nose"]}, "causes: .*'nose'.*; expected some of mouth, glasses, hair, skin"),
        ({"causes": []}, r"causes: \[\]"),
        ({"parts": parts() | {"mouth": np.zeros((N, SIDE, SIDE), bool)}}, "parts: 'mouth' is a cause, but empty in picture 0"),
    ],
)
def test_scores_refuse_what_does_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        finding.scores(**{"maps": np.zeros((N, SIDE, SIDE)), "parts": parts(), "causes": ["mouth"]} | change)


def test_what_is_saved_can_be_read_and_the_figure_says_what_it_shows(known, tmp_path):
    checks = pd.DataFrame({"problem": ["mouth", "both"], "seed": 0, "checked": 40, "agree": [0.9, 0.75]})
    board = board_of(replace(known, checks=checks.assign(balanced_accuracy=0.98)), ["saliency", "occlusion"])
    said = "Of 40 pictures looked at, the check passed 90 % for mouth (balanced accuracy 0.980), 75 % for both"
    assert said in board.to_markdown()
    written = board.save(tmp_path / "out", rows=1)
    assert [path.name for path in written] == [
        "leaderboard.csv", "leaderboard-images.csv", "leaderboard-networks.csv", "leaderboard.md", "leaderboard-top.md",
        "leaderboard.png",
    ]  # fmt: skip
    table = pd.read_csv(written[0])
    np.testing.assert_allclose(table["found"], board.table["found"], atol=1e-4)
    top = written[4].read_text()
    assert "`saliency`" in top and "`occlusion`" not in top and "*random: chance*" in top
    figure = board.plot().figure
    assert "saliency (100%)" in figure.get_label() and "random maps" in figure.get_label()


def faces(n, split="test", **options):
    return helpers.load_faces(
        "illustrated", target="smiling", protected="glasses", split=split, n=n, correlation=0.0, styles=causes.STYLES,
        nuisance=causes.NUISANCE, image_size=32, progress=False, n_jobs=1, **options,
    )  # fmt: skip


def test_the_label_tells_the_cause_or_every_combination_of_two():
    some = faces(16)
    smiling, glasses = (some.table[name].to_numpy(bool) for name in ("smiling", "glasses"))
    assert (causes.with_label(some, "mouth").targets == smiling).all()
    both = causes.with_label(some, "both")
    assert len(both.classes) == 4
    for target, smiles, wears in zip(both.targets, smiling, glasses, strict=True):
        assert both.classes[target] == f"{'' if smiles else 'not '}smiling, {'' if wears else 'not '}glasses"
    assert some.target == "smiling" and "label: both" not in some.table


def test_only_the_cause_changes_where_the_masks_say_so():
    some = faces(4)
    where = causes.parts(some, range(4))
    assert (sum(mask.astype(int) for mask in where.values()) <= 1).all()
    images, _, _ = some[:]
    for picture in range(4):
        pictures = causes.redrawn(some, picture)
        assert {"smiling", "glasses", "skin_tone", "background"} <= set(pictures)
        changed = (pictures["smiling"][0] != images[picture]).any(0).numpy()
        assert changed.any() and not (changed & ~where["mouth"][picture]).any()
        changed = (pictures["glasses"][0] != images[picture]).any(0).numpy()
        assert changed.any() and not (changed & ~where["glasses"][picture] & ~where["mouth"][picture]).any()
        assert (pictures["background"][0] != images[picture]).any(0).float().mean() > 0.1


class Told(nn.Module):
    """Knows by heart which drawing has which decision."""

    def __init__(self, pictures, decisions):
        super().__init__()
        self.known = {picture.numpy().tobytes(): decision for picture, decision in zip(pictures, decisions, strict=True)}

    def forward(self, x):
        return torch.eye(2)[[self.known[picture.numpy().tobytes()] for picture in x]]


@pytest.mark.parametrize(
    ("flipping", "agrees"),
    [(("smiling",), True), (("smiling", "glasses"), False), (("smiling", "background"), False), ((), False)],
)
def test_a_network_agrees_only_if_its_cause_and_nothing_else_turns_the_decision(flipping, agrees):
    random = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    pictures = {"smiling": random[1:2], "glasses": random[2:3], "skin_tone": random[3:5], "background": random[5:]}
    decisions = [1, *(0 if name in flipping else 1 for name in ("smiling", "glasses", "skin_tone", "skin_tone", "background"))]
    network = Told(random, decisions)
    table = causes.check(network, ["smiling"], random[:1], np.array([1]), [pictures])
    assert table["agrees"].tolist() == [agrees] and table["glasses"].tolist() == ["glasses" in flipping]
    assert not causes.check(network, ["smiling"], random[:1], np.array([0]), [pictures])["agrees"].any()  # right for no reason


def test_a_network_is_taken_only_if_it_does_what_it_was_built_for(monkeypatch):
    """One that always says yes is refused; one that sees the mouth, and knows every drawing of it, is taken."""
    drawn, smiles = causes.redrawn, {}

    def told(faces, row, seed=0):
        if not smiles:
            images, _, _ = faces[:]
            smiles.update(zip((image.numpy().tobytes() for image in images), faces.table["smiling"].astype(int), strict=True))
        pictures = drawn(faces, row, seed)
        for name, several in pictures.items():
            for picture in several:
                smiles.setdefault(picture.numpy().tobytes(), int(faces.table["smiling"][row] != (name == "smiling")))
        return pictures

    class Mouth(nn.Module):
        def forward(self, x):
            return torch.eye(2)[[smiles[picture.numpy().tobytes()] for picture in x]]

    class Yes(nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)

    monkeypatch.setattr(causes, "redrawn", told)
    asked = {"problems": ["mouth"], "image_size": 32, "faces": 8, "progress": False}
    monkeypatch.setattr(causes, "trained", lambda *data, **settings: Yes())
    with pytest.raises(ValueError, match=r"that for 'mouth' \(seed 0\) does not do .*accuracy 0.50, 0% of 16 .*smiling 0%"):
        causes.known_causes(4, **asked)
    monkeypatch.setattr(causes, "trained", lambda *data, **settings: Mouth())
    found = causes.known_causes(4, **asked)
    assert found.images.shape == (4, 3, 32, 32) and len(set(found.cells)) == 4
    row = found.checks.iloc[0]
    assert row["agree"] == row["smiling"] == row["balanced_accuracy"] == 1 and row["background"] == row["glasses"] == 0
    said = [not cell.startswith("not smiling") for cell in found.cells]
    assert found.targets["mouth", 0].tolist() == said
    assert found.causes == {"mouth": ["mouth"]} and found.parts["mouth"].any((1, 2)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 6}, "images: 6 given; a multiple of 4"),
        ({"problems": ["nose"]}, "problems: unknown"),
        ({"seeds": []}, "problems, seeds"),
    ],
)
def test_known_causes_refuse_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        causes.known_causes(**options)


def test_one_command_prints_the_table_and_writes_it(known, monkeypatch, tmp_path, capsys):
    from helpers.__main__ import main

    asked = {}

    def built(images, seeds, **options):
        asked.update(images=images, seeds=list(seeds), **options)
        return known

    monkeypatch.setattr(boards, "known_causes", built)
    arguments = ["leaderboard", "--method", "saliency", "--method", "rise", "--trainings", "2", "--seed", "5"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert asked["seeds"] == [0, 1] and asked["seed"] == 5 and asked["images"] == boards.PROFILES["quick"]["images"]
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "leaderboard.md").read_text() in printed
    assert "`rise`: 1,000 passes an image, more than most=600" in printed
    assert main(["leaderboard", "--method", "salency"]) == 2
    assert "Did you mean 'saliency'" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["leaderboard", "--out", str(tmp_path / "file")]) == 2


def test_the_readme_shows_what_the_command_wrote():
    top = (ROOT / "benchmarks" / "results" / "leaderboard-top.md").read_text(encoding="utf-8")
    assert top in (ROOT / "README.md").read_text(encoding="utf-8")
    table = pd.read_csv(ROOT / "benchmarks" / "results" / "leaderboard.csv")
    best = table[table["kind"] == "method"].iloc[0]
    assert f"`{best['method']}` | {best['found']:.2f}" in top
    assert {"random", "edges"} <= set(table["method"])
