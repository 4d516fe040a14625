"""Pixels beyond noise: planted ones are found, the error of the whole picture holds, and t is that of scipy."""

import numpy as np
import pytest
from scipy import stats

from helpers.attribution import pixel_differences
from helpers.attribution.pixels import _corrected
from helpers.bias.by_people import Draws, Members, difference_test

GROUP = np.repeat(["a", "b"], [14, 10])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_the_planted_pixels_are_found_whatever_the_unit_and_the_difference_is_that_of_the_means():
    maps = noise(24, 5, 7)
    maps[:14, 1, 2:4] += 6
    found = pixel_differences(maps, GROUP)
    assert np.argwhere(found.beyond[""]).tolist() == [[1, 2], [1, 3]]
    np.testing.assert_allclose(found.difference[""], maps[:14].mean(0) - maps[14:].mean(0))
    small = pixel_differences({"m": 1e-9 * maps}, GROUP)
    np.testing.assert_array_equal(small.p["m"], found.p[""])
    other = pixel_differences(maps, GROUP, ("b", "a"))
    np.testing.assert_allclose(other.difference[""], -found.difference[""])
    assert np.array_equal(other.beyond[""], found.beyond[""]) and (other.n, other.n_other) == (10, 14)
    assert "2 of 35" in repr(found)


def test_corrected_p_values_are_those_of_the_largest_t_in_permuted_pictures():
    maps = noise(24, 3, 3) * np.linspace(1, 9, 9).reshape(3, 3)  # spreads differ, so that the bare difference would not do
    maps[:14, 0, 0] += 1.2
    found = pixel_differences(maps, GROUP, n_permutations=499, seed=3).p[""]
    t = lambda first: np.abs(stats.ttest_ind(maps[first], maps[~first], equal_var=False).statistic)
    rng = np.random.default_rng(8)
    largest = np.array([t(rng.permutation(GROUP) == "a").max() for _ in range(499)])
    expected = np.array([(1 + (largest >= one).sum()) / 500 for one in t(GROUP == "a").ravel()]).reshape(3, 3)
    np.testing.assert_allclose(found, expected, atol=0.08)  # other draws


def test_one_pixel_alone_has_the_p_value_of_the_regions():
    values = noise(24, 1)
    code, person = (GROUP == "b").astype(int), np.arange(24)
    expected = difference_test(values, code == 0, person, 999, 0)
    np.testing.assert_allclose(pixel_differences(values.reshape(24, 1, 1), GROUP, n_permutations=999).p[""].ravel(), expected)


@pytest.mark.parametrize("paired", [False, True])
def test_where_groups_are_alike_the_whole_picture_is_seldom_marked(paired):
    marked = 0
    for seed in range(120):
        maps = noise(24, 6, 6, seed=seed)
        if paired:  # each person with one image in either group
            maps += np.repeat(3 * noise(12, 6, 6, seed=[seed, 1]), 2, axis=0)
        group, person = (np.tile(["a", "b"], 12), np.repeat(np.arange(12), 2)) if paired else (GROUP, None)
        marked += pixel_differences(maps, group, identity=person, n_permutations=99).beyond[""].any()
    assert marked <= 14  # of 120 at 5 %: P(more than 14) < 0.001


def test_pairs_of_a_person_find_what_people_alike_would_hide():
    maps = np.repeat(5 * noise(12, 4, 4), 2, axis=0) + 0.1 * noise(24, 4, 4, seed=2)
    maps[::2, 0, 0] += 1
    group, person = np.tile(["a", "b"], 12), np.repeat(np.arange(12), 2)
    assert pixel_differences(maps, group, identity=person).beyond[""][0, 0]
    assert not pixel_differences(maps, group).beyond[""].any()


def test_copies_of_an_image_are_no_evidence_once_it_is_said_who_is_shown():
    maps = np.repeat(noise(6, 4, 4, seed=5), 20, axis=0) + 1e-3 * noise(120, 4, 4)
    group, person = np.repeat(["a", "b"], 60), np.repeat(np.arange(6), 20)
    assert pixel_differences(maps, group).beyond[""].any()
    assert not pixel_differences(maps, group, identity=person).beyond[""].any()


def test_a_column_at_a_time_gives_the_same_as_all_at_once(monkeypatch):
    maps = noise(24, 4, 4)
    whole = pixel_differences(maps, GROUP, n_permutations=99).p[""]
    monkeypatch.setattr("helpers.attribution.pixels.BLOCK", 1)
    np.testing.assert_array_equal(pixel_differences(maps, GROUP, n_permutations=99).p[""], whole)


def test_small_groups_broken_maps_and_bad_arguments():
    maps = noise(24, 3, 3)
    maps[0, 0, 0] = np.nan
    assert pixel_differences(maps, GROUP).n == 13  # left out
    alone = pixel_differences(maps[13:], ["a"] + ["b"] * 10)
    assert np.isnan(alone.p[""]).all() and not alone.beyond[""].any() and np.isfinite(alone.difference[""]).all()
    assert not pixel_differences(np.zeros((24, 3, 3)), GROUP).beyond[""].any()
    for call, message in [
        (lambda: pixel_differences(maps, GROUP, ("a", "c")), r"pair: \('a', 'c'\) given; expected two of the groups 'a', 'b'"),
        (lambda: pixel_differences(maps, ["a", "b", "c"] * 8), "pair: None given"),
        (lambda: pixel_differences(maps, GROUP[:5]), "group: 5 rows given for 24 images"),
        (lambda: pixel_differences(maps[:, 0], GROUP), r"maps: float64 of shape \(24, 3\)"),
        (lambda: pixel_differences(maps, GROUP, n_permutations=9), "n_permutations: 9 are too few for confidence 0.95"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_few_ways_are_all_gone_through():
    values, inside = noise(6, 4), np.array([True] * 3 + [False] * 3)
    members = Members((~inside).astype(int), ("a", "b"), np.arange(6))
    p = _corrected(values, inside, members, Draws(n_permutations=100))
    np.testing.assert_allclose(np.round(p * 20), p * 20)  # 20 ways of three in six
    assert p.min() >= 2 / 20  # every way has a mirror image with the same |t|
