"""The contingency table: it counts, it adds up, it refuses what it cannot count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.bias import Counts, count

NAMES = ("a", "b", "c"), ("no", "yes")


def rows(seed, n):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, n), rng.integers(0, 2, n), rng.integers(0, 3, n)


def test_each_cell_counts_its_rows():
    y, p, g = rows(0, 500)
    table = count(y, p, g, *NAMES).table
    for cell in np.ndindex(3, 2, 2):
        assert table[cell] == ((g == cell[0]) & (y == cell[1]) & (p == cell[2])).sum()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 60))
def test_tables_of_parts_add_up_to_the_table_of_all(seed, n, cut):
    y, p, g = rows(seed, n)
    whole = count(y, p, g, *NAMES)
    assert count(y[:cut], p[:cut], g[:cut], *NAMES) + count(y[cut:], p[cut:], g[cut:], *NAMES) == whole


def test_small_integer_types_do_not_overflow():
    n = 300
    y = np.ones(n, dtype=np.int8)
    table = count(y, y, np.full(n, 99, dtype=np.int8), tuple(map(str, range(100))), NAMES[1]).table
    assert table[99, 1, 1] == n and table.sum() == n


def test_the_table_is_the_audits_own():
    source = np.ones((1, 2, 2), dtype=int)
    counts = Counts(source, ("a",), ("no", "yes"))
    source[:] = 7
    assert counts.table.sum() == 4
    with pytest.raises(ValueError, match="read-only"):
        counts.table[0] = 0


def test_existing_leaves_out_empty_groups():
    counts = count([0], [1], [2], *NAMES).existing()
    assert counts.groups == ("c",) and counts.n.tolist() == [1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: count([0, 1], [0], [0, 0], *NAMES), "y_pred: shape"),
        (lambda: count([0], [2], [0], *NAMES), "y_pred: code 2 is outside 0 to 1"),
        (lambda: count([0], [0], [-1], *NAMES), "group: code -1"),
        (lambda: count([0.5], [0], [0], *NAMES), "y_true: integer codes"),
        (lambda: Counts(np.zeros((2, 2, 2), int), *NAMES), "does not fit 3 groups"),
        (lambda: Counts(np.zeros((3, 2, 2)), *NAMES), "whole numbers"),
        (lambda: Counts(np.full((3, 2, 2), -1), *NAMES), "negative"),
        (lambda: Counts(np.zeros((2, 2, 2), int), ("a", "a"), NAMES[1]), "groups: names repeat"),
        (lambda: count([0], [0], [0], *NAMES) + count([0], [0], [0], ("a", "b", "d"), NAMES[1]), "do not add up"),
    ],
)
def test_what_cannot_be_counted_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
