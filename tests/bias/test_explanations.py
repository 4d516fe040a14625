"""Planted explanations are found, others are not, and the arithmetic is that of a loop over strata (8 s on one thread)."""

import numpy as np
import pandas as pd
import pytest

from helpers.bias import explanations
from helpers.bias.explanations import LARGER, NOISE, SMALLER, _standardised
from helpers.data import FaceDataset, pictures


def photographs(n=4000, seed=0, people=None, dark=0.25):
    """Flat pictures with noise; those of group b are darker on average by `dark` of a standard deviation's double."""
    rng = np.random.default_rng(seed)
    group = rng.random(n) < 0.4
    level = np.clip(130 + 35 * rng.normal(size=n) - 140 * dark * group, 10, 245)
    images = (level[:, None, None, None] + rng.normal(0, 8, (n, 8, 8, 1))).clip(0, 255).astype(np.uint8).repeat(3, axis=3)
    table = pd.DataFrame({"y": rng.integers(2, size=n), "g": np.where(group, "b", "a")})
    if people is not None:
        table["identity"] = people
    return FaceDataset(images, table, target="y", protected="g"), group, level, rng


def answers(faces, wrong):
    return np.where(wrong, 1 - faces.targets, faces.targets)


def test_a_gap_that_comes_from_darkness_vanishes_at_equal_brightness():
    faces, group, level, rng = photographs()
    wrong = rng.random(len(faces)) < 1 / (1 + np.exp((level - 90) / 12))
    found = explanations(faces, answers(faces, wrong), statistics="accuracy")
    row = found.gaps.set_index("measure").loc["brightness"]
    assert (row["lowest"], row["highest"]) == ("b", "a") and row["gap"] > 0.15
    assert row["equal_low"] <= 0 <= row["equal_high"] + 0.02 and abs(row["equal"]) < 0.03 and row["verdict"] == SMALLER
    assert row["covered"] > 0.9
    other = found.gaps.set_index("measure").loc["asymmetry"]
    assert other["verdict"] == NOISE and abs(other["equal"] - row["gap"]) < 0.03
    means = found.means.query("measure == 'brightness'").set_index("group")
    assert means.loc["b", "high"] < means.loc["a", "low"]
    assert "Neither shows a cause" in found.note and "brightness" in found._repr_html_()


def test_a_gap_that_comes_from_the_group_does_not():
    faces, group, level, rng = photographs()
    wrong = rng.random(len(faces)) < np.where(group, 0.35, 0.15)
    row = explanations(faces, answers(faces, wrong), statistics="accuracy").gaps.set_index("measure").loc["brightness"]
    assert row["verdict"] == NOISE and row["equal_low"] > 0.1 and abs(row["equal"] - row["gap"]) < 0.04


def test_a_gap_that_brightness_hides_is_larger_at_equal_brightness():
    faces, group, level, rng = photographs(n=8000)
    wrong = rng.random(len(faces)) < np.clip(0.1 + (level - 60) / 300 + 0.3 * group, 0, 1)  # bright pictures are harder
    row = explanations(faces, answers(faces, wrong), statistics="accuracy").gaps.set_index("measure").loc["brightness"]
    assert row["verdict"] == LARGER and row["equal"] > row["gap"] + 0.05


def test_the_arithmetic_is_that_of_a_loop_over_strata():
    faces, _, _, rng = photographs(n=600)
    answer = rng.integers(2, size=600)
    x = rng.normal(size=600) + faces.group
    found = explanations(faces, answer, measures=pd.DataFrame({"x": x}), statistics="true_positive_rate", strata=4, n_boot=10)
    row = found.gaps.iloc[0]
    positive = faces.targets == 1
    code = {name: i for i, name in enumerate(faces.groups)}
    low, high = code[row["lowest"]], code[row["highest"]]
    rate = [answer[positive & (faces.group == g)].mean() for g in (low, high)]
    assert row["gap"] == pytest.approx(rate[1] - rate[0]) and row["gap"] == pytest.approx(max(rate) - min(rate))
    cut = np.quantile(x[positive], [0.25, 0.5, 0.75])
    equal, total = 0.0, 0
    for lower, upper in zip([-np.inf, *cut], [*cut, np.inf], strict=True):
        here = positive & (x >= lower) & (x < upper)
        one, other = (answer[here & (faces.group == g)] for g in (low, high))
        equal += here.sum() * (other.mean() - one.mean())
        total += here.sum()
    assert row["equal"] == pytest.approx(equal / total) and row["covered"] == 1
    assert row["change"] == pytest.approx(row["gap"] - row["equal"])


def test_groups_without_overlap_are_not_compared():
    faces, *_ , rng = photographs(n=400)
    apart = pd.DataFrame({"x": faces.group + 0.1 * rng.random(400)})
    row = explanations(faces, rng.integers(2, size=400), measures=apart, strata=2, n_boot=50).gaps.iloc[0]
    assert row["covered"] < 0.65 and (np.isnan(row["equal"]) or row["covered"] > 0)


def test_a_measure_that_is_the_same_everywhere_changes_nothing():
    faces, *_ , rng = photographs(n=200)
    same = pd.DataFrame({"width": np.full(200, 92.0)})
    row = explanations(faces, rng.integers(2, size=200), measures=same, n_boot=50).gaps.iloc[0]
    assert row["equal"] == pytest.approx(row["gap"]) and row["verdict"] == NOISE


def test_intervals_count_people():
    people = np.repeat(np.arange(50), 20)
    faces, _, _, rng = photographs(n=1000, people=people)
    wrong = (rng.random(50) < 0.3)[people]  # a person is recognised in all pictures or in none
    row = explanations(faces, answers(faces, wrong), statistics="accuracy", n_boot=300).gaps.iloc[0]
    faces.table = faces.table.drop(columns="identity")
    naive = explanations(faces, answers(faces, wrong), statistics="accuracy", n_boot=300).gaps.iloc[0]
    assert row["gap"] == naive["gap"] and 0.05 < naive["gap_high"] - naive["gap_low"]
    one_person_one_group = pd.Series(people).map(lambda person: "b" if person % 3 == 0 else "a")
    table = faces.table.assign(g=one_person_one_group.to_numpy(), identity=people)
    apart = FaceDataset(faces.images, table, target="y", protected="g")
    row = explanations(apart, answers(apart, wrong), statistics="accuracy", n_boot=300).gaps.iloc[0]
    assert row["gap_high"] - row["gap_low"] > 2 * (naive["gap_high"] - naive["gap_low"])


@pytest.mark.parametrize("pictures_each", [1, 10])
def test_intervals_hold_the_truth_about_as_often_as_they_say(pictures_each):
    """Errors depend on the measure and the person, never on the group: at equal measure there is no gap."""
    rng = np.random.default_rng(pictures_each)
    people = np.repeat(np.arange(600 // pictures_each), pictures_each)
    held = accused = 0
    for seed in range(200):
        group, skill = (rng.random(people.max() + 1) < 0.4)[people], rng.normal(size=people.max() + 1)[people]
        x = rng.normal(size=600) + 0.5 * group
        hit = rng.random(600) < 1 / (1 + np.exp(-x - skill))
        found = _standardised(x, group, hit, people, 10, 0.95, 200, seed)
        held += found["equal_low"] <= 0 <= found["equal_high"]
        hit = rng.random(600) < 1 / (1 + np.exp(-0.8 * group - skill))  # of the group alone: x explains nothing
        accused += _standardised(x, group, hit, people, 10, 0.95, 200, seed)["verdict"] != NOISE
    assert held / 200 > 0.88 and accused / 200 < 0.1


def test_three_classes_have_accuracy_and_bad_input_is_named():
    faces, *_ , rng = photographs(n=90)
    table = faces.table.assign(y=np.array(["u", "v", "w"])[np.arange(90) % 3])
    three = FaceDataset(faces.images, table, target="y", protected="g")
    assert set(explanations(three, three.targets, n_boot=20).gaps["statistic"]) == {"accuracy"}
    for options, message in (
        ({"statistics": "true_positive_rate"}, "statistics: .*Accepted: accuracy"),
        ({"measures": pictures(faces)[:5]}, "measures: 5 rows"),
        ({"strata": 1}, "strata"),
    ):
        with pytest.raises(ValueError, match=message):
            explanations(three, three.targets, **options)
    with pytest.raises(ValueError, match="fewer than two groups"):
        explanations(faces.subset(faces.group == 0), faces.targets[faces.group == 0])
