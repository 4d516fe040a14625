"""Variants: shares of attribute combinations. About 15 seconds on one thread."""

import itertools
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.data import FaceDataset, load_faces, recall
from helpers.data.variants import correlation_shares, read, variant

CELEBA_VARIANT_CONFIG = {  # DetoxAI's own example, as its code has it
    "dataset": "celeba",
    "variant": "default",
    "fraction": 1.0,
    "splits": {
        "train": {
            "fraction": 0.3,
            "balancing": [
                {"attribute_combination": [{"attribute": "Male", "label": 0}, {"attribute": "Smiling", "label": 1}],
                 "percentage": 0.1},
                {"attribute_combination": [{"attribute": "Male", "label": 1}, {"attribute": "Smiling", "label": 0}],
                 "percentage": 0.9},
            ],
        },
        "test": {
            "fraction": 0.5,
            "balancing": [
                {"attribute_combination": [{"attribute": "Male", "label": 1}, {"attribute": "Smiling", "label": 1}],
                 "percentage": 0.5},
            ],
        },
        "unlearn": {
            "fraction": 0.2,
            "balancing": [
                {"attribute_combination": [{"attribute": "Male", "label": 1}, {"attribute": "Smiling", "label": 1}],
                 "percentage": 0.5},
            ],
        },
    },
}  # fmt: skip
RULES = ("a", "not a", "b", "a, b", "a, not b", "not a, not b", "c=x", "c=y, a", "c=z")
cells = st.lists(st.integers(0, 4), min_size=12, max_size=12)
wishes = st.dictionaries(st.sampled_from(RULES), st.integers(1, 9).map(lambda tenths: tenths / 10), min_size=1, max_size=3)


def table_of(counts):
    """A table with so many rows of each of the 12 combinations of a, b (yes/no) and c (x, y or z)."""
    cells = itertools.product([False, True], [False, True], "xyz")
    rows = [cell for cell, n in zip(cells, counts, strict=True) for _ in range(n)]
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    table["path"] = [f"{i:03}.png" for i in np.random.default_rng(0).permutation(len(table))]
    return table


def fits(row, rule):
    """Whether a row has what the words say, read in another way than the code does."""
    tests = {"a": row.a, "not a": not row.a, "b": row.b, "not b": not row.b}
    return all(tests[word] if word in tests else row.c == word[-1] for word in rule.split(", "))


def made(table, wish, **options):
    try:
        return variant(table, wish, **options)
    except ValueError:
        return None


@given(cells, wishes, st.integers(0, 99))
def test_every_share_is_met_up_to_rounding_and_the_report_counts_what_is_there(counts, wish, seed):
    table = table_of(counts)
    found = made(table, wish, seed=seed)
    assume(found is not None)
    assert (np.diff(found.rows) > 0).all() and found.rows.dtype == np.int64
    taken = table.iloc[found.rows]
    for rule, line in zip(wish, found.report.itertuples(), strict=False):
        n = sum(fits(row, rule) for row in taken.itertuples())
        assert line.images == n and line.available == sum(fits(row, rule) for row in table.itertuples())
        assert abs(n - wish[rule] * len(taken)) < 1 and np.isclose(line.share, n / len(taken))
    outside = [not any(fits(row, rule) for rule in wish) for row in taken.itertuples()]
    assert found.report.images.iloc[-1] == sum(outside)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=4, max_size=4), wishes)
def test_no_larger_size_has_the_shares(counts, wish):
    """Against every choice of whole numbers: none that has the shares exactly is larger, nor is one refused."""
    wish = {rule: share for rule, share in wish.items() if "c" not in rule}
    assume(wish and sum(counts))
    table = table_of([n for count in counts for n in (count, 0, 0)])
    kinds = table.drop_duplicates(["a", "b"])
    sizes = [int(((table.a == row.a) & (table.b == row.b)).sum()) for row in kinds.itertuples()]
    member = {rule: np.array([fits(row, rule) for row in kinds.itertuples()]) for rule in wish}
    best = 0
    for x in itertools.product(*(range(n + 1) for n in sizes)):
        x = np.array(x)
        if all(int(x[member[rule]].sum()) == Fraction(round(10 * share), 10) * int(x.sum()) for rule, share in wish.items()):
            best = max(best, int(x.sum()))
    found = made(table, wish)
    assert (0 if found is None else len(found.rows)) >= best
    if found is not None:
        for rule, share in wish.items():
            assert share * len(found.rows) <= sum(fits(row, rule) for row in table.itertuples()) + 1e-9


@given(st.lists(st.integers(1, 40), min_size=4, max_size=4), st.lists(st.integers(1, 5), min_size=4, max_size=4))
def test_disjoint_combinations_give_the_size_that_arithmetic_gives(counts, parts):
    table = table_of([n for count in counts for n in (count, 0, 0)])
    rules = ["not a, not b", "not a, b", "a, not b"]
    shares = [Fraction(part, sum(parts)) for part in parts]
    wanted = min(int(n / share) for n, share in zip(counts, shares, strict=True))
    found = variant(table, dict(zip(rules, map(float, shares), strict=False)))
    assert len(found.rows) == wanted
    assert found.report["note"].str.startswith("has no more").any()


@given(cells, wishes, st.integers(0, 99), st.randoms())
def test_the_same_seed_takes_the_same_files_whatever_the_order_of_the_rows(counts, wish, seed, random):
    table = table_of(counts)
    found = made(table, wish, seed=seed)
    assume(found is not None)
    order = random.sample(range(len(table)), len(table))
    shuffled = table.iloc[order].reset_index(drop=True)
    again = variant(shuffled, wish, seed=seed)
    assert set(table.path[found.rows]) == set(shuffled.path[again.rows])
    assert np.array_equal(found.rows, variant(table, wish, seed=seed).rows)


def test_counts_are_rounded_to_the_nearest_whole_where_they_can_be():
    table = table_of([0, 0, 0, 600, 0, 0, 437, 0, 0, 0, 0, 0])
    for size, wanted in ((478, [48, 430, 0]), (472, [47, 425, 0])):  # 47.8 and 430.2; 47.2 and 424.8
        assert variant(table, {"not a, b": 0.1, "a, not b": 0.9}, size=size).report["images"].tolist() == wanted
    thirds = table_of([5, 5, 0] * 4)
    assert sorted(variant(thirds, {"c=x, a": 1 / 3, "c=y, a": 1 / 3, "not a": 1 / 3}, size=10).report["images"]) == [0, 3, 3, 4]


def test_seeds_differ_and_every_row_has_its_chance():
    table = table_of([10] * 12)
    draws = [variant(table, {"a, b": 0.2, "not a": 0.8}, size=50, seed=seed).rows for seed in range(60)]
    assert len({tuple(rows) for rows in draws}) == 60
    often = np.bincount(np.concatenate(draws), minlength=len(table)) / 60
    a, b = table.a.to_numpy(), table.b.to_numpy()
    assert often[a & ~b].max() == 0  # the shares sum to 1, so nothing else is taken
    assert np.abs(often[a & b] - 10 / 30).max() < 0.3 and np.abs(often[~a] - 40 / 60).max() < 0.3


def test_what_no_rule_names_keeps_its_proportions():
    table = table_of([0, 0, 0, 0, 0, 0, 300, 600, 100, 200, 0, 0])
    rest = table.iloc[variant(table, {"a, b": 0.4}, seed=1).rows].query("not b")
    assert len(rest) == 300  # 200 / 0.4 - 200
    shares = rest["c"].value_counts(normalize=True)
    assert np.abs(shares[["x", "y", "z"]].to_numpy() - [0.3, 0.6, 0.1]).max() < 3 * np.sqrt(0.25 / 300)


def test_a_smaller_size_is_within_a_larger_one():
    table = table_of(range(5, 17))
    small, large = (set(variant(table, {"a": 0.25}, size=size, seed=3).rows) for size in (20, 60))
    assert len(small) == 20 and small < large


def test_all_forms_of_a_wish_say_the_same():
    table = table_of([3] * 12)
    forms = [
        {"a, not b": 0.3},
        {("a", "not b"): 0.3},
        {"a=a, b=not b": 0.3},
        [({"a": 1, "b": 0}, 0.3)],
        [({"a": True, "b": -1}, 0.3)],
        {"shares": {"a, not b": 0.3}},
        {"balancing": [{"attribute_combination": [{"attribute": "a", "label": 1}, {"attribute": "b", "label": 0}],
                        "percentage": 0.3}]},
        read({"a, not b": 0.3}).to_dict(),
    ]  # fmt: skip
    assert len({tuple(variant(table, form).rows) for form in forms}) == 1
    signs = table.assign(a=np.where(table.a, 1, -1), b=table.b.astype(int))  # −1/1 and 0/1 in place of booleans
    assert np.array_equal(variant(signs, forms[0]).rows, variant(table, forms[0]).rows)


def test_a_missing_label_is_never_taken_and_is_told():
    table = table_of([4] * 12).astype({"a": object})
    table.loc[[0, 40], "a"] = None
    found = variant(table, {"a": 0.5})
    assert not {0, 40} & set(found.rows)
    assert found.report.iloc[-1][["combination", "available", "images"]].tolist() == ["label missing", 2, 0]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"a": 0.7, "not a": 0.4}, r"cannot hold together: 'a' 0.7 \(15 images\), 'not a' 0.4 \(20 images\); they sum to 1.1"),
        ({"a": 0.3, "not a": 0.3, "b": 0.5}, r"'a' 0.3 .15 images., 'not a' 0.3 .20 images.; they sum to 0.6, and 0 images fit"),
        ({"c=y, a, not b": 0.5}, "0.5 of the images should be 'c=y, a, not b', but none of the 35 rows is"),
        ({"d": 0.5}, "no column 'd'"),
        ({"x": 0.5}, "Or say c=x"),
        ({"c=w": 0.5}, "column 'c' has no label 'w'; accepted: c=x, c=y$"),
        ({"not c": 0.5}, "column 'c' has no label False"),
        ({"a": 1.5}, "expected a number from 0 to 1, got 1.5"),
        ({"a": True}, "got True"),
        ({"a, a": 0.5}, "'a' is named twice"),
        ({"a": 0.2, "a=a": 0.3}, "combination 'a' is named twice"),
        ({}, "no combination"),
        ("a", "expected a dict such as"),
        ({"shares": {"a": 0.5}, "sise": 3}, "Did you mean 'size'"),
        ({"shares": {"a": 0.5}, "correlation": 0.3}, "shares and correlation came together"),
        ({"shares": {"a": 0.5}, "size": 0}, "size: expected a whole number of at least 1, got 0"),
        ({"shares": {"a": 0.5}, "size": 41}, "at most 30; 'a' has 15 and would need 20.5"),
        ({"balancing": [{"percentage": 0.1}]}, "balancing: expected"),
        ({"splits": {"trian": {"a": 0.5}}}, "Did you mean 'train'"),
        ({"shares": {"a": 0.5}, "fraction": 0}, "a split without people"),
        ({"splits": {"unlearn": {"a": 0.5}, "val": {"a": 0.5}}}, "'validation' is named twice"),
        ({"splits": {"train": {"shares": {"a": 0.5}, "fraction": 0.8}, "test": {"shares": {"a": 0.5}, "fraction": 0.3}}},
         "sum to 1.1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_names_and_counts(wish, message):
    table = table_of([5, 5, 0, 5, 5, 0] * 2)
    table = table[~(table.a & ~table.b & (table.c == "y"))]
    with pytest.raises(ValueError, match=message):
        variant(table, wish)


def faces_of(smiling, woman):
    table = pd.DataFrame({"smiling": smiling, "woman": woman})
    return FaceDataset(np.zeros((len(table), 2, 2, 3), np.uint8), table, target="smiling", protected="woman")


@given(st.floats(-1, 1), st.floats(0.2, 0.8), st.floats(0.2, 0.8), st.integers(0, 9))
def test_a_correlation_is_met_and_the_shares_stay_where_it_allows_them_to(phi, a, b, seed):
    rng = np.random.default_rng(seed)
    faces = faces_of(rng.random(3000) < a, rng.random(3000) < b)
    part = faces.variant({"correlation": phi}, seed=seed)
    smiling, woman = part.table["smiling"].to_numpy(), part.table["woman"].to_numpy()
    assert np.corrcoef(smiling, woman)[0, 1] == pytest.approx(phi, abs=8 / len(part) ** 0.5 if len(part) < 500 else 0.02)
    a, b = faces.targets.mean(), faces.group.mean()
    room = np.sqrt(min(a * (1 - b) / (b * (1 - a)), b * (1 - a) / (a * (1 - b))))
    other = np.sqrt(min(a * b / ((1 - a) * (1 - b)), (1 - a) * (1 - b) / (a * b)))
    if -other < phi < room:  # Fréchet's bounds: the wanted phi can be had with the shares as they are
        assert smiling.mean() == pytest.approx(a, abs=2 / len(part)) and woman.mean() == pytest.approx(b, abs=2 / len(part))


def test_a_correlation_needs_two_labels_of_each():
    table = table_of([3] * 12)
    with pytest.raises(ValueError, match=r"phi needs two labels, and 'c' has 3 \(x, y, z\)"):
        correlation_shares(table, "a", "c", 0.5)
    with pytest.raises(ValueError, match="every row has the same 'a'"):
        correlation_shares(table[~table.a], "a", "b", 0.5)


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    """60 people with 4 photographs each, in CelebA's layout; the n-th photograph has grey value n."""
    folder, rng = tmp_path_factory.mktemp("celeba"), np.random.default_rng(0)
    (folder / "img_align_celeba").mkdir()
    files = [f"{i + 1:06}.jpg" for i in range(240)]
    for i, file in enumerate(files):
        Image.new("L", (16, 16), i).save(folder / "img_align_celeba" / file)
    labels = np.where(rng.random((240, 2)) < 0.5, 1, -1)
    rows = [f"{file} {male} {smiling}" for file, (male, smiling) in zip(files, labels, strict=True)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["240", "Male Smiling", *rows]) + "\n")
    people = np.repeat(np.arange(60), 4)
    lists = {"identity_CelebA": people, "list_eval_partition": np.repeat([0, 1, 2], [144, 48, 48])}
    for name, values in lists.items():
        (folder / f"{name}.txt").write_text("".join(f"{file} {v}\n" for file, v in zip(files, values, strict=True)))
    return folder


def test_the_configuration_of_detoxai_runs_as_it_is_and_keeps_people_apart(celeba):
    parts = {
        split: load_faces("celeba", root=celeba, split=split, image_size=8, variant=CELEBA_VARIANT_CONFIG)
        for split in ("train", "validation", "test")
    }
    people = {split: set(faces.table["identity"]) for split, faces in parts.items()}
    assert not people["train"] & people["test"] and not people["train"] & people["validation"]
    assert not people["test"] & people["validation"]
    assert len(people["train"]) <= 18 and len(people["test"]) <= 30 and len(people["validation"]) <= 12
    male, smiling = (parts["train"].table[name].to_numpy() for name in ("Male", "Smiling"))
    n = len(male)
    assert abs((~male & smiling).sum() - 0.1 * n) < 1 and abs((male & ~smiling).sum() - 0.9 * n) < 1
    for split in ("validation", "test"):
        both = parts[split].table[["Male", "Smiling"]].all(axis=1)
        assert abs(both.sum() - 0.5 * len(both)) < 1 and len(both) > 10
    assert (recall(parts["train"].recipe).images == parts["train"].images).all()
    assert parts["test"].chosen["wanted"].tolist()[:1] == [0.5]


def test_each_split_may_have_a_correlation_of_its_own(celeba):
    wish = {"splits": {"train": {"correlation": 0.7}, "test": {"correlation": 0}}}
    for split, phi in (("train", 0.7), ("test", 0)):
        faces = load_faces("celeba", root=celeba, split=split, image_size=8, variant=wish)
        assert np.corrcoef(faces.targets, faces.group)[0, 1] == pytest.approx(phi, abs=2 / len(faces) ** 0.5) and len(faces) > 20
        assert (faces.table["path"] <= "000144.jpg").all() == (split == "train")  # without fractions the official splits stay


def test_only_the_chosen_images_are_read_and_each_keeps_its_labels(celeba, monkeypatch):
    whole = load_faces("celeba", root=celeba, split="train", image_size=8)
    seen = []
    from helpers.data.sources import files

    read_all = files.decode_all
    monkeypatch.setattr(files, "decode_all", lambda paths, *args, **kw: seen.append(len(paths)) or read_all(paths, *args, **kw))
    wish = {"woman, smiling": 0.1, "not woman, not smiling": 0.9}
    part = load_faces("celeba", root=celeba, split="train", image_size=8, seed=5, variant=wish)
    assert seen == [len(part)] and len(part) < len(whole)
    assert set(part.table["identity"]) <= set(whole.table["identity"])  # within the official split
    later = whole.variant(wish, seed=5)
    assert later.table["path"].tolist() == part.table["path"].tolist() and (later.images == part.images).all()
    assert (later.targets == part.targets).all() and later.chosen.equals(part.chosen)
    assert later.subset([0]).chosen is None
    assert len(load_faces("celeba", root=celeba, split="train", image_size=8)) == len(whole)  # the wish is over


def test_drawn_faces_take_a_variant_and_a_split_without_a_wish_is_named(celeba):
    faces = load_faces("illustrated", n=60, image_size=8, progress=False, variant={"smiling, glasses": 0.5})
    assert abs((faces.targets & faces.group).sum() - 0.5 * len(faces)) < 1
    with pytest.raises(ValueError, match="no wish for the split 'all'; it has train, test, validation"):
        load_faces("celeba", root=celeba, split="all", variant=CELEBA_VARIANT_CONFIG)
    for wish in (
        {"shares": {"woman": 0.5}, "fraction": 0.5},
        {"splits": {"train": {"woman": 0.5}}, "fraction": 0.5},
        {"splits": {"train": {"shares": {"woman": 0.5}, "fraction": 0.5}, "test": {"woman": 0.5}}},
    ):
        with pytest.raises(ValueError, match="every entry of splits has one, or none"):
            load_faces("celeba", root=celeba, split="train", variant=wish)
    with pytest.raises(ValueError, match="fraction of the people is cut where they are loaded"):
        load_faces("illustrated", n=60, image_size=8, progress=False, variant=CELEBA_VARIANT_CONFIG)
