"""Flipped labels are found, nobody is judged by their own pictures, and what is marked is told by group (12 s on one thread)."""

import numpy as np
import pandas as pd
import pytest

from helpers.data import FaceDataset, load_faces, suspicious
from helpers.data.suspicious import CAVEAT, gist, out_of_fold


def flipped(faces, share=0.03, seed=0):
    """The faces with that share of labels flipped, and which."""
    rows = np.random.default_rng(seed).choice(len(faces), round(share * len(faces)), replace=False)
    codes = faces.targets.copy()
    codes[rows] = (codes[rows] + 1) % len(faces.classes)
    table = faces.table.assign(annotated=np.array(faces.classes, dtype=object)[codes])
    return FaceDataset(faces.images, table, target="annotated", protected=faces.protected), rows


def features_of(labels, people, dimensions=6, clear=2.0, seed=0):
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(people.max() + 1, dimensions))[people]
    return clear * np.eye(dimensions)[labels] + own + 0.5 * rng.normal(size=(len(labels), dimensions))


def test_planted_flips_on_drawn_faces_are_found():
    """On these 1,000 faces 18 are marked, 16 of them flips, of 30 flips; 21 of the first 30 are flips, where chance has 1."""
    drawn = load_faces(
        "illustrated", target="hair_length", protected="skin_tone", correlation=0.0, n=1000, split="train", image_size=48
    )
    faces, flips = flipped(drawn)
    found = suspicious(faces)
    marked = found.table.loc[found.table["marked"], "row"]
    assert found.accuracy > 0.85
    assert np.isin(marked, flips).mean() > 0.7 and np.isin(flips, marked).mean() > 0.4
    assert np.isin(found.table["row"][: len(flips)], flips).mean() > 0.5
    assert found.n == len(marked) == found.table["marked"][: len(marked)].sum()  # the marked come first
    clean = suspicious(drawn)
    assert clean.n < found.n / 2


def test_marks_are_those_of_confident_learning():
    rng = np.random.default_rng(1)
    labels, people = rng.integers(3, size=300), np.arange(300) // 3
    faces = data(labels, people)
    features = features_of(labels, people)
    found = suspicious(faces, features, seed=3)
    probability = out_of_fold(features, labels, people, 3, 5, 3)
    thresholds = [np.mean([p[c] for p, own in zip(probability, labels, strict=True) if own == c]) for c in range(3)]
    for row, label, mark, own, margin, suggested in found.table[
        ["row", "label", "marked", "confidence", "margin", "suggested"]
    ].itertuples(index=False):
        p, code = probability[row], labels[row]
        sure = [c for c in range(3) if p[c] >= thresholds[c]]
        assert mark == (bool(sure) and max(sure, key=lambda c: p[c]) != code)
        assert label == "abc"[code] and own == p[code]
        rival = max((c for c in range(3) if c != code), key=lambda c: p[c])
        assert margin == pytest.approx(p[code] - p[rival]) and suggested == "abc"[rival]
    assert (found.table["margin"][found.n :].diff().dropna() >= 0).all()


def data(labels, people, groups="g"):
    table = pd.DataFrame({"y": np.array(list("abc"))[labels], "g": groups, "identity": people, "path": people.astype(str)})
    images = np.zeros((len(labels), 8, 8, 3), np.uint8)
    return FaceDataset(images, table, target="y", protected="g", classes=tuple("abc")[: labels.max() + 1])


def test_nobody_is_judged_by_their_own_pictures():
    """Each person has features of their own and a label by lot: a model that knew them would be right every time."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 10)
    labels = rng.integers(2, size=60)[people]
    features = 5 * rng.normal(size=(60, 100))[people] + rng.normal(size=(600, 100))
    assert 0.3 < suspicious(data(labels, people), features).accuracy < 0.7
    alone = data(labels, people)
    alone.table = alone.table.drop(columns="identity")
    assert suspicious(alone, features).accuracy > 0.9


def test_hard_pictures_of_a_minority_are_marked_too_and_the_shares_say_so():
    rng = np.random.default_rng(0)
    labels, people = rng.integers(2, size=2000), np.arange(2000)
    rare = rng.random(2000) < 0.1
    features = features_of(labels, people)
    features[rare, :2] = features[rare, 1::-1]  # among them the classes look the other way round
    found = suspicious(data(labels, people, np.where(rare, "rare", "common")), features)
    share = found.by_group.set_index("group")
    assert share.loc["rare", "low"] > 2 * share.loc["common", "high"]
    cells = found.by_cell.set_index("group")
    both = cells.loc[["rare, a", "rare, b"]]
    assert share["n"].sum() == cells["n"].sum() == 2000
    assert (both["value"] * both["n"]).sum() / both["n"].sum() == pytest.approx(share.loc["rare", "value"])
    assert "would drop more of them" in found.note == CAVEAT


def test_a_label_that_only_one_person_has_is_not_judged():
    labels, people = np.array([0, 1] * 30 + [2] * 3), np.r_[np.arange(60) // 2, [30] * 3]
    found = suspicious(data(labels, people), features_of(labels, people)).table.set_index("row")
    assert found.loc[60:, ["confidence", "margin"]].isna().all().all() and not found.loc[60:, "marked"].any()
    assert found.loc[:59, "margin"].notna().all()


def test_the_gist_sees_edges_whatever_the_light_and_does_not_depend_on_blocks(monkeypatch):
    faces = load_faces("orl", split="all").images[:40]
    whole = gist(faces)
    assert whole.shape == (40, 704) and whole.dtype == np.float32
    darker = gist((faces * 0.7).astype(np.uint8))
    assert np.corrcoef(whole[:, :512].ravel(), darker[:, :512].ravel())[0, 1] > 0.98
    stripes = np.zeros((2, 64, 64, 3), np.uint8)
    stripes[0, :, ::4], stripes[1, ::4] = 200, 200
    bins = gist(stripes)[:, :512].reshape(2, 8, 64).sum(2)
    assert bins[0].argmax() == 0 and bins[1].argmax() == 4 and (np.sort(bins, axis=1)[:, -2] < 0.01 * bins.max(1)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1}, "folds: .*at least 2, got 1"),
        ({"features": np.zeros((3, 4))}, r"features: .*\(6, D\).*\(3, 4\)"),
        ({"features": np.full((6, 4), np.nan)}, "features: .*finite"),
    ],
)
def test_bad_input_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        suspicious(data(np.arange(6) % 2, np.arange(6)), **options)


def test_one_class_or_one_person_cannot_be_contradicted():
    with pytest.raises(ValueError, match="every label of 'y' is 'a'"):
        suspicious(data(np.zeros(6, int), np.arange(6)))
    with pytest.raises(ValueError, match="one person only"):
        suspicious(data(np.arange(6) % 2, np.zeros(6, int)))
