import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.debiasing.holdout import stratified
from helpers.debiasing.select import distance_to_ideal, nearest, pareto_front

NAMES = ("balanced_accuracy", "equalized_odds")


def test_the_front_of_planted_numbers():
    values = np.array([[0.6, 0.8], [0.7, 0.3], [0.9, 0.3], [0.5, 0.0], [0.8, 0.4], [0.9, 0.3], [np.nan, 0.0]])
    assert pareto_front(values, NAMES).tolist() == [False, False, True, True, False, True, False]


@settings(max_examples=60, deadline=None)
@given(arrays(float, st.tuples(st.integers(1, 8), st.just(2)), elements=st.integers(0, 4).map(lambda i: i / 4)))
def test_the_front_is_what_no_other_point_beats(values):
    loss = values * [-1, 1]
    for i, on in enumerate(pareto_front(values, NAMES)):
        beaten = any((loss[j] <= loss[i]).all() and (loss[j] < loss[i]).any() for j in range(len(loss)))
        assert on != beaten


def test_the_ideal_point_is_one_for_accuracies_and_zero_for_gaps():
    values = np.array([[1.0, 0.0], [0.7, 0.4], [0.9, 0.4], [np.nan, 0.1]])
    np.testing.assert_allclose(distance_to_ideal(values, NAMES), [0, 0.5, np.hypot(0.1, 0.4), np.nan])
    assert nearest(values[1:], NAMES).tolist() == [1]
    assert nearest(values[[2, 1, 2]], NAMES).tolist() == [0, 2]
    assert nearest(values[3:], NAMES).tolist() == []


@pytest.mark.parametrize("sizes", [[40, 40], [100, 3, 2, 1], [1, 1]])
def test_every_cell_gives_its_share_and_keeps_some(sizes):
    cell = np.repeat(np.arange(len(sizes)), sizes)
    rest, held = stratified(cell, 0.25, np.random.default_rng(0))
    assert sorted([*rest, *held]) == list(range(len(cell)))
    for code, size in enumerate(sizes):
        count = (cell[held] == code).sum()
        assert count == (0 if size == 1 else max(1, round(size / 4)))
