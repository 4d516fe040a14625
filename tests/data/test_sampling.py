import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.data import FaceDataset, balanced, split_identities
from helpers.data.sampling import share_identities

people = st.lists(st.integers(0, 60), min_size=20, max_size=120).filter(lambda ids: len(set(ids)) >= 3)


@given(people, st.integers(0, 1000))
def test_no_person_is_in_two_splits_and_no_split_is_empty(identities, seed):
    splits = split_identities(identities, seed=seed)
    assert set(splits) == {"train", "validation", "test"}
    assert pd.Series(splits).groupby(identities).nunique().eq(1).all()


@given(people, st.integers(0, 1000), st.randoms())
def test_neither_the_order_of_rows_nor_their_number_matters(identities, seed, random):
    whole = dict(zip(identities, split_identities(identities, seed=seed), strict=True))
    shuffled = list(set(identities)) + random.sample(identities, 5)
    random.shuffle(shuffled)
    again = dict(zip(shuffled, split_identities([str(i) for i in shuffled], seed=seed), strict=True))
    assert whole == again


@given(st.integers(3, 400), st.tuples(*[st.integers(0, 10)] * 3).filter(lambda parts: sum(parts) > 0))
def test_the_shares_of_people_are_the_fractions_to_within_one_person(n, parts):
    fractions = np.array(parts) / sum(parts)
    splits = split_identities(range(n), fractions)
    for name, fraction in zip(("train", "validation", "test"), fractions, strict=True):
        count = (splits == name).sum()
        assert abs(count - n * fraction) < 1 + (n * fraction < 1) + (
            n < 30
        )  # tiny sets lend a person to an empty split
        assert (count > 0) == (fraction > 0)


@given(people, st.tuples(*[st.integers(1, 5)] * 2), st.integers(0, 99))
def test_shares_of_people_by_other_names_leave_the_rest_out(identities, parts, seed):
    shares = {"train": parts[0] / 12, "test": parts[1] / 12}
    splits = share_identities(pd.Series(identities), shares, seed)
    people = pd.Series(splits).groupby(identities).agg(["nunique", "first"])
    assert (people["nunique"] == 1).all()
    for name, share in {**shares, "": 1 - sum(parts) / 12}.items():
        count = (people["first"] == name).sum()
        assert count >= (share > 1e-9) and (abs(count - share * len(people)) < 1 or len(people) < 30)


def test_shares_count_people_not_images():
    identities = ["famous"] * 1000 + [f"p{i}" for i in range(99)]
    splits = split_identities(identities)
    assert {name: len(set(np.array(identities)[splits == name])) for name in set(splits)} == {
        "train": 60,
        "validation": 20,
        "test": 20,
    }


def test_seeds_differ_and_repeat():
    draws = {tuple(split_identities(range(30), seed=seed)) for seed in range(20)}
    assert len(draws) == 20
    assert tuple(split_identities(range(30), seed=0)) in draws


@pytest.mark.parametrize(
    "fractions",
    [(0.5, 0.5), (0.5, 0.2, 0.2), (1.2, -0.2, 0), (np.nan, 0.5, 0.5), (0.3, 0.3, 0.3, 0.1), "abc"],
)
def test_fractions_that_are_none_are_refused(fractions):
    with pytest.raises(ValueError):
        split_identities(range(10), fractions)


def test_too_few_people_and_missing_people_are_named():
    with pytest.raises(ValueError, match="2 cannot fill 3 splits"):
        split_identities(["a", "b", "a"])
    assert set(split_identities(["a", "b", "a"], (0.5, 0.5, 0))) == {"train", "validation"}
    with pytest.raises(ValueError, match="1 of 3 are missing"):
        split_identities(["a", None, "b"])


def dataset(targets, groups):
    table = pd.DataFrame({"t": targets, "g": groups})
    return FaceDataset(np.zeros((len(table), 2, 2, 3), np.uint8), table, target="t", protected="g")


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60), st.integers(0, 100))
def test_balanced_cells_are_as_large_as_the_smallest(rows, seed):
    rows = rows + [(t, g) for t in (False, True) for g in "abc"]
    data = dataset(*zip(*rows, strict=True))
    chosen = balanced(data, seed)
    assert (data.subset(chosen).counts() == data.counts().to_numpy().min()).all(axis=None)
    assert data.balanced(seed).table.equals(data.table.iloc[chosen].reset_index(drop=True))
    assert (np.diff(chosen) > 0).all() and np.array_equal(chosen, balanced(data, seed))


def test_an_empty_cell_is_named():
    with pytest.raises(ValueError, match="cell t × b"):
        balanced(dataset([0, 1, 0], ["a", "a", "b"]))
