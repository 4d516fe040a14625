"""What the explorer computes, without a browser (about 25 s, of which drawing, training and the report take most)."""

import time

import numpy as np
import pandas as pd
import pytest
import torch

import helpers
from helpers import models
from helpers.explorer.choice import Choice, inside, open_choice
from helpers.explorer.state import State
from tests.explorer.small import small_photographs

GLASSES = "glasses"


def test_a_model_brings_its_own_data_and_predictions_are_those_of_predict(opened):
    assert (opened.faces.target, opened.faces.protected) == ("smiling", GLASSES)
    assert len(opened.faces) == 96 and opened.faces.split == "test" and opened.now.fit.split == "validation"
    np.testing.assert_allclose(opened.now.logits, models.predict(opened.now.model, opened.faces).logits, rtol=1e-5)


def test_predictions_are_made_once(opened, monkeypatch):
    monkeypatch.setattr(models, "predict", lambda *a, **k: pytest.fail("predicted again"))
    again = open_choice(Choice(model="small.safetensors"), opened.root)
    np.testing.assert_array_equal(again.logits, opened.now.logits)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.77])
def test_the_slider_shows_the_gaps_of_an_audit_at_that_threshold(opened, threshold):
    audit, rows = opened.audit(threshold), opened.at(threshold)
    gaps = rows[rows["kind"] == "gap"].set_index("statistic")
    for name in ("demographic_parity", "equalized_odds", "accuracy_parity"):
        np.testing.assert_allclose(gaps.loc[name, "value"], audit.gap(name), atol=1e-12)
        np.testing.assert_allclose(gaps.loc[name, ["low", "high"]].to_numpy(float), audit.gap_interval(name), atol=1e-9)
    rates = rows[rows["kind"] == "group"].set_index(["statistic", "group"])["value"]
    for group in opened.faces.groups:
        assert rates["true_positive_rate", group] == pytest.approx(audit.value("true_positive_rate", group))


def test_moving_the_slider_is_a_look_up(opened):
    opened._sweep = None
    first = opened.at(0.37)  # what is looked up later is what was worked out for this one alone
    assert opened._sweep is None and opened.sweep is opened.sweep
    assert first.reset_index(drop=True).equals(opened.at(0.37).reset_index(drop=True))
    started = time.perf_counter()
    for threshold in np.linspace(0, 1, 20):
        opened.at(threshold)
    assert time.perf_counter() - started < 2


def test_maps_are_those_of_attribute_and_are_not_made_twice(opened, monkeypatch):
    rows = opened.rows(count=3)
    images, target = opened.faces[rows][0], opened.predicted[rows]
    maps = opened.maps(rows, "saliency")
    expected = helpers.attribute(opened.now.model, images, target, "saliency").numpy()
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(helpers, "attribute", lambda *a, **k: pytest.fail("explained again"))
    np.testing.assert_array_equal(opened.maps(rows[::-1], "saliency"), maps[::-1])


def test_scores_are_those_of_evaluate(opened):
    rows = opened.rows(count=3)
    masks = opened.masks(rows)
    np.testing.assert_array_equal(masks, np.stack([opened.faces.mask(row, "smiling") for row in rows]))
    table = opened.scores(rows, ["saliency", "grad_cam"])
    assert list(table.index) == ["saliency", "grad_cam"]
    maps = opened.maps(rows, "saliency")
    expected = helpers.evaluate(
        opened.now.model, opened.faces[rows][0], maps, opened.predicted[rows],
        metrics=["relevance_mass", "deletion"], masks=masks, steps=20,
    ).groupby("metric")["value"].mean()  # fmt: skip
    for name in expected.index:
        assert table.loc["saliency", name] == pytest.approx(expected[name], abs=1e-6)


def test_faces_come_by_kind_and_page_by_page(opened):
    wrong = np.flatnonzero(opened.predicted != opened.faces.targets)
    assert set(opened.rows("wrong", count=1000)) == set(wrong)
    pages = [row for page in range(12) for row in opened.rows("all", page)]
    assert sorted(pages) == list(range(96))
    assert all(opened.faces.groups[opened.faces.group[row]] == GLASSES for row in opened.rows(GLASSES))
    assert opened.rows("all", 12) == opened.rows("all", 0)


def test_a_redrawn_face_is_the_data_sets_counterfactual_and_its_score_the_models(opened):
    row = 5
    now = opened.drawable(row)[GLASSES][1]
    changed = opened.redrawn(row, {GLASSES: not now})
    expected = opened.faces.counterfactual(row, GLASSES)
    torch.testing.assert_close(changed.images[1], expected)
    torch.testing.assert_close(changed.images[0], opened.image(row))
    with torch.inference_mode():
        share = opened.now.model(torch.stack([opened.image(row), expected])).softmax(1).numpy()
    code = opened.faces.classes.index(changed.asked)
    assert code == share[0].argmax()
    np.testing.assert_allclose(changed.probabilities, share[:, code], rtol=1e-4)
    assert changed.flipped == (share[0].argmax() != share[1].argmax())


def test_a_face_redrawn_as_it_is_stays(opened):
    same = opened.redrawn(7, {name: now for name, (_, now) in opened.drawable(7).items()})
    torch.testing.assert_close(same.images[0], same.images[1])
    assert not same.flipped and same.probabilities[0] == pytest.approx(same.probabilities[1])


def test_a_cover_covers_its_rectangle_and_nothing_else(opened):
    changed = opened.covered(3, 4, 6, 5, 8)
    assert (changed.images[1][:, 4:9, 6:14] == 0.5).all()
    outside = torch.ones(32, 32, dtype=torch.bool)
    outside[4:9, 6:14] = False
    torch.testing.assert_close(changed.images[1][:, outside], changed.images[0][:, outside])


@pytest.mark.parametrize(
    ("values", "words"), [({"glases": True}, "Did you mean 'glasses'"), ({"skin_tone": "green"}, "light, medium, dark")]
)
def test_what_cannot_be_drawn_is_refused(opened, values, words):
    with pytest.raises(ValueError, match=words):
        opened.redrawn(5, values)


def test_other_groups_without_predicting_again(root, monkeypatch):
    state = State(root)
    state.open(Choice(model="small.safetensors"))
    monkeypatch.setattr(models, "predict", lambda *a, **k: pytest.fail("predicted again"))
    state.relabel("facial_hair")
    audit = helpers.audit(state.faces.table["smiling"], state.predicted.astype(bool), state.faces.table["facial_hair"])
    assert state.audit().gap("demographic_parity") == pytest.approx(audit.gap("demographic_parity"))
    with pytest.raises(ValueError, match="Did you mean 'facial_hair'"):
        state.relabel("facial hair")


def test_mitigated_models_are_kept_and_found_again(root):
    state = State(root)
    state.open(Choice(model="small.safetensors"))
    told = []
    state.fix(["LEACE", "GT"], lambda result: told.append(result.method))
    assert told == ["LEACE", "GT"] and list(state.fixes) == ["Vanilla", "LEACE", "GT"]
    direct = helpers.debias(state.now.model, state.now.fit, ["LEACE", "GT"], test_dataloader=state.now.test)
    for name in ("Vanilla", "LEACE", "GT"):
        assert state.fixes[name].audit.gap("equalized_odds") == pytest.approx(direct[name].get_metric("equalized_odds"))
    later = State(root)
    later.open(Choice(model="small.safetensors"))
    assert later.kept_fixes() == ["GT", "LEACE"]
    later.recall(["LEACE", "GT"])
    for name in ("LEACE", "GT"):
        assert later.fixes[name].get_change("equalized_odds") == state.fixes[name].get_change("equalized_odds")
        assert later.fixes[name].needs_group == state.fixes[name].needs_group
    images = later.faces[:4][0]
    with torch.inference_mode():
        torch.testing.assert_close(later.model("LEACE")(images), state.model("LEACE")(images))
    later.relabel("facial_hair")
    assert later.kept_fixes() == []  # they were fitted for other groups


def test_what_raises_in_a_run_ends_it_and_keeps_what_was_finished(root):
    state = State(root)
    state.open(Choice(model="small.safetensors"))
    state.relabel("clothing")

    def stop(result):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        state.fix(["LEACE", "DFR"], stop)
    assert state.kept_fixes() == ["LEACE"]


def test_files_to_take_along_hold_what_was_shown(opened, tmp_path):
    table = pd.read_csv(opened.table(tmp_path, 0.3))
    row = table.query("group == 'glasses' and statistic == 'selection_rate'").iloc[0]
    assert row["value"] == pytest.approx(opened.audit(0.3).value("selection_rate", GLASSES))
    import zipfile

    with zipfile.ZipFile(opened.save(tmp_path)) as archive:
        archive.extractall(tmp_path / "model")
    again = models.load(tmp_path / "model" / "model.safetensors")
    images = opened.faces[:4][0]
    with torch.inference_mode():
        torch.testing.assert_close(again(images), opened.now.model(images))
    path = opened.report(tmp_path, attributions=["saliency"])
    page = path.read_text(encoding="utf-8")
    assert "equalized-odds gap" in page and "<script" not in page
    assert path.with_suffix(".card.md").read_text(encoding="utf-8").startswith("---\n")


@pytest.mark.parametrize("text", ["../outside.csv", "/etc/passwd", "link/secret.csv"])
def test_a_path_outside_the_folder_is_refused(tmp_path, text):
    (tmp_path / "root").mkdir()
    (tmp_path / "elsewhere").mkdir()
    for name in ("outside.csv", "elsewhere/secret.csv"):
        (tmp_path / name).write_text("secret")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="outside the folder"):
        inside(tmp_path / "root", text, "data")


def test_a_wrong_path_names_what_is_there(root):
    with pytest.raises(FileNotFoundError, match="model: there is no 'smal.safetensors'.*small.safetensors"):
        open_choice(Choice(model="smal.safetensors"), root)
    with pytest.raises(ValueError, match="data: unknown name 'ilustrated'. Did you mean 'illustrated'"):
        open_choice(Choice(data="ilustrated"), root)


def test_a_model_that_does_not_fit_is_said_and_what_was_open_stays(root):
    state = State(root)
    state.open(Choice(model="small.safetensors"))
    before = state.now
    with pytest.raises(ValueError, match="tells not smiling from smiling, and the target facial_hair"):
        state.open(Choice(model="small.safetensors", target="facial_hair"))
    assert state.now is before


def test_photographs_in_a_folder_of_ones_own(root):
    small_photographs(root)
    state = State(root)
    state.open(Choice(data="faces.csv", model="small.safetensors", target="smiling", protected="age"))
    assert state.faces.groups == ("old", "young") and not state.drawn
    with pytest.raises(ValueError, match="photographs, which cannot be redrawn"):
        state.redrawn(0, {GLASSES: True})
    assert state.masks([0]) is None and list(state.scores([0], ["saliency"]).columns) == ["deletion"]
    assert state.covered(0, 0, 0, 8, 8).images.shape == (2, 3, 32, 32)


def test_nothing_open_is_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="nothing is open yet"):
        State(tmp_path).audit()
