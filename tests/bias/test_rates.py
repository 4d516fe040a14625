"""10 seconds on one thread."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from helpers.bias import audit, rates
from helpers.bias.uncertainty import critical, wilson


def test_without_people_it_is_the_audits_rate():
    rng = np.random.default_rng(0)
    group = rng.choice(["a", "b", "c"], 300)
    right = rng.random(300) < np.where(group == "a", 0.9, 0.6)
    found = rates(right, group)
    audited = audit(np.ones(300, int), right.astype(int), group, classes=["no", "yes"], positive="yes", statistics="accuracy")
    for name in "abc":
        assert found.value(name) == pytest.approx(audited.value("accuracy", name))
        assert found.interval(name) == pytest.approx(audited.interval("accuracy", name))
    assert list(found.by_group["n"]) == [int((group == name).sum()) for name in "abc"]
    assert list(found.by_group["people"]) == list(found.by_group["n"])
    p = found.differences.set_index(["group", "other"])["p_holm"]
    assert p["a", "b"] < 0.01 < 0.2 < p["b", "c"]


def test_ten_pictures_of_one_person_are_hardly_more_than_one():
    people = np.repeat(np.arange(40), 10)
    group = np.where(people < 20, "one", "other")
    each = np.random.default_rng(1).random(40) < 0.3
    repeated = rates(each[people], group, people)
    careless = rates(each[people], group)
    alone = rates(each, np.where(np.arange(40) < 20, "one", "other"), np.arange(40))
    for name in ("one", "other"):
        assert repeated.value(name) == careless.value(name) == alone.value(name)
        width = lambda found, name=name: np.subtract(*found.interval(name)[::-1])
        assert width(repeated) > 2.5 * width(careless)
        assert 1 < width(repeated) / width(alone) < 1.12  # Student's t for the normal's critical value, 20 people for 19
    assert list(repeated.by_group["people"]) == [20, 20] and list(repeated.by_group["n"]) == [200, 200]


def test_four_people_without_an_error_leave_most_of_the_scale_open():
    people = np.repeat(np.arange(4), 10)
    found = rates(np.zeros(40, bool), ["women"] * 40, people)
    low, high = found.interval("women")
    assert low == 0 and high > 1 - 0.025 ** (1 / 4) > 0.6  # at least what the exact limit of four trials leaves
    assert rates(np.zeros(40, bool), ["women"] * 40).interval("women")[1] < 0.1
    one = rates([1, 1, 0], ["a"] * 3, [7, 7, 7])
    np.testing.assert_allclose(one.interval("a"), np.ravel(wilson([2 / 3], [1], critical(0.95))))


def test_empty_cells_are_seen_and_have_no_number():
    table = pd.DataFrame({"woman": [0, 0, 1, 1, 0, 0], "glasses": [0, 1, 0, 0, 1, 0]})
    found = rates([1, 0, 1, 1, 1, 1], table, [1, 2, 3, 4, 5, 6])
    assert list(found.by_group["group"]) == [f"{a}woman, {b}glasses" for a in ("not ", "") for b in ("not ", "")]
    empty = found.by_group.iloc[3]
    assert empty["n"] == empty["people"] == 0 and np.isnan([empty["value"], empty["low"], empty["high"]]).all()
    assert "woman, glasses" not in set(found.differences["group"]) | set(found.differences["other"])
    assert found._repr_html_().count("<table") == 2 and "woman, glasses nan" in repr(found)


@pytest.mark.parametrize("people_a_group", [12, 36])
def test_intervals_over_people_cover_and_those_over_images_do_not(people_a_group):
    """Beta-binomial people: everybody has a rate of their own about 0.8; nominal 95 %, 150 samples."""
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(people_a_group), 10)
    covered = {"people": 0, "images": 0}
    for _ in range(150):
        own = rng.beta(1.6, 0.4, people_a_group)
        right = rng.random(len(people)) < own[people]
        for name, identity in (("people", people), ("images", None)):
            low, high = rates(right, np.zeros(len(people), int), identity, groups=["all"]).interval("all")
            covered[name] += low <= 0.8 <= high
    # fewer than the lower 0.1 % quantile of 150 draws at 93 % would be no accident
    assert covered["people"] >= binom.ppf(0.001, 150, 0.93)
    assert covered["images"] < 0.85 * 150


def test_the_test_deals_out_people():
    rng = np.random.default_rng(3)
    people, small = np.repeat(np.arange(20), 10), 0
    group = np.where(people < 10, "a", "b")
    for _ in range(60):
        right = rng.random(200) < rng.beta(0.5, 0.5, 20)[people]
        small += rates(right, group, people, n_permutations=400).differences["p"].iloc[0] < 0.05
    assert small <= 9  # 60 draws at 0.05 exceed it once in a thousand


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="outcome: .*accepted are booleans"):
        rates([0, 2], ["a", "b"])
    with pytest.raises(ValueError, match="group: 1 rows given for 2 images"):
        rates([0, 1], ["a"])
    with pytest.raises(ValueError, match="identity: 3 rows given for 2"):
        rates([0, 1], ["a", "b"], [1, 2, 3])
    with pytest.raises(ValueError, match="no group 'c'; accepted: a, b"):
        rates([0, 1], ["a", "b"]).value("c")
