"""Two models on the same images: paired changes, their coverage, and verdicts on planted truths."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.bias import audit, compare
from helpers.bias.statistics import FScore


def pair(rng, n, tpr, fpr, tpr2, fpr2, agree=0.8):
    """Labels and the predictions of two models that share `agree` of their chance."""
    tpr, fpr, tpr2, fpr2 = map(np.array, (tpr, fpr, tpr2, fpr2))
    group = np.repeat(np.arange(len(tpr)), 2 * n)
    y = np.tile(np.repeat([0, 1], n), len(tpr))
    u = rng.random(len(group))
    v = np.where(rng.random(len(group)) < agree, u, rng.random(len(group)))
    first = (u < np.where(y, tpr[group], fpr[group])).astype(int)
    second = (v < np.where(y, tpr2[group], fpr2[group])).astype(int)
    return y, first, second, group


def rate(found, statistic, table="by_group"):
    frame = getattr(found, table)
    return frame[frame["statistic"] == statistic]


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 3))
@settings(max_examples=15, deadline=None)
def test_both_sides_are_the_audits_of_the_models(seed, groups, classes):
    rng = np.random.default_rng(seed)
    y, a, b = (rng.integers(0, classes, 150) for _ in range(3))
    g = rng.integers(0, groups, 150)
    names = tuple("xyz"[:classes])
    found = compare(y, a, b, g, classes=names)
    keys = ["group", "statistic", *(["class"] if classes > 2 else [])]
    one_sided = found.by_group[found.by_group["first"].isna() != found.by_group["second"].isna()]
    for column, prediction in (("first", a), ("second", b)):
        alone = audit(y, prediction, g, classes=names)
        for table, on in (("by_group", keys), ("gaps", keys[1:]), ("overall", keys[1:])):
            both = getattr(found, table).merge(getattr(alone, table), on=on, suffixes=("", "_alone"))
            assert len(both) == len(getattr(alone, table))
            value = both["difference" if table == "gaps" else "value"]
            defined = both["first"].notna() & both["second"].notna() if table == "gaps" else np.full(len(both), True)
            if table == "gaps" and len(one_sided):
                defined &= both["statistic"].isin(set(alone.by_group["statistic"]) - set(one_sided["statistic"]))
            np.testing.assert_allclose(both[column][defined], value[defined], atol=1e-12)


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 3))
@settings(max_examples=15, deadline=None)
@example(4000, 4, 3)
def test_gaps_are_those_of_the_groups_with_a_value_in_both_models(seed, groups, classes):
    rng = np.random.default_rng(seed)
    y, a, b = (rng.integers(0, classes, 60) for _ in range(3))
    found = compare(y, a, b, rng.integers(0, groups, 60), classes=tuple("xyz"[:classes]))
    keys = ["statistic", *(["class"] if classes > 2 else [])]
    shared = found.by_group.dropna(subset=["first", "second"]).groupby(keys)[["first", "second"]]
    span = (shared.max() - shared.min())[shared.size() >= 2]
    gaps = found.gaps.set_index(keys)[["first", "second"]].reindex(span.index)
    pd.testing.assert_frame_equal(gaps, span, check_exact=False, atol=1e-12)


def test_swapping_the_models_mirrors_the_intervals():
    y, a, b, g = pair(np.random.default_rng(0), 80, (0.9, 0.7), (0.1, 0.2), (0.8, 0.8), (0.2, 0.1))
    one, other = compare(y, a, b, g), compare(y, b, a, g)
    for table in ("by_group", "gaps", "overall"):
        first, second = getattr(one, table), getattr(other, table)
        np.testing.assert_allclose(first["low"], -second["high"], atol=1e-12)
        np.testing.assert_allclose(first["change"], -second["change"], atol=1e-12)


@pytest.mark.parametrize("agree", [0.0, 0.9])
@pytest.mark.parametrize(
    ("second_tpr", "second_fpr"), [((0.9, 0.75, 0.6), (0.1, 0.2, 0.3)), ((0.8, 0.8, 0.8), (0.2, 0.2, 0.2))]
)
def test_intervals_cover_the_true_changes(agree, second_tpr, second_fpr):
    rng = np.random.default_rng(7)
    first_tpr, first_fpr = (0.9, 0.75, 0.6), (0.1, 0.2, 0.3)
    true = {
        "true_positive_rate": np.subtract(second_tpr, first_tpr),
        "balanced_accuracy": (np.subtract(second_tpr, first_tpr) - np.subtract(second_fpr, first_fpr)) / 2,
    }
    gap = max(np.ptp(second_tpr), np.ptp(second_fpr)) - max(np.ptp(first_tpr), np.ptp(first_fpr))
    hits = {"rates": [], "gap": []}
    for _ in range(150):
        models = pair(rng, 60, first_tpr, first_fpr, second_tpr, second_fpr, agree)
        found = compare(*models, statistics=["equalized_odds", "balanced_accuracy"], classes=("0", "1"))
        for name, change in true.items():
            part = rate(found, name)
            hits["rates"] += list((part["low"] <= change) & (change <= part["high"]))
        row = rate(found, "equalized_odds", "gaps").iloc[0]
        hits["gap"].append(row["low"] <= gap <= row["high"])
    assert np.mean(hits["rates"]) >= 0.93
    assert np.mean(hits["gap"]) >= 0.92


def test_pairing_makes_intervals_narrower_than_two_audits_would():
    rng = np.random.default_rng(1)
    y, a, b, g = pair(rng, 200, (0.8, 0.8), (0.2, 0.2), (0.85, 0.85), (0.2, 0.2), agree=1.0)
    shuffled = b.copy()
    for cell in range(4):  # the same rates by group, the pairing lost
        rows = np.flatnonzero(2 * g + y == cell)
        shuffled[rows] = rng.permutation(b[rows])
    tied, loose = (rate(compare(y, a, other, g), "true_positive_rate") for other in (b, shuffled))
    np.testing.assert_allclose(tied["change"], loose["change"])
    assert ((tied["high"] - tied["low"]) < 0.7 * (loose["high"] - loose["low"])).all()


def test_a_gap_closed_by_hurting_everyone_is_named():
    y, a, b, g = pair(np.random.default_rng(2), 400, (0.9, 0.7), (0.1, 0.1), (0.5, 0.5), (0.1, 0.1))
    found = compare(y, a, b, g, groups=("wearing", "without"))
    assert set(rate(found, "true_positive_rate")["verdict"]) == {"levels down"}
    verdict = rate(found, "equal_opportunity", "gaps")["verdict"].item()
    assert verdict == "closes by levelling down wearing, without"
    assert rate(found, "false_positive_rate", "gaps")["verdict"].item() == "within noise"


def test_a_gap_closed_by_helping_the_worse_group_is_named():
    y, a, b, g = pair(np.random.default_rng(2), 400, (0.9, 0.6), (0.1, 0.4), (0.9, 0.9), (0.1, 0.1), agree=1.0)
    found = compare(y, a, b, g)
    assert rate(found, "true_positive_rate").set_index("group")["verdict"].to_dict() == {"0": "within noise", "1": "levels up"}
    assert rate(found, "error_rate").set_index("group")["verdict"]["1"] == "levels up"  # less is better
    assert rate(found, "equalized_odds", "gaps")["verdict"].item().startswith("closes by levelling up 1 in true positive rate")
    back = compare(y, b, a, g)
    assert rate(back, "equalized_odds", "gaps")["verdict"].item().startswith("widens by levelling down 1 in true positive rate")


def test_a_model_compared_with_itself_has_not_changed():
    y, a, _, g = pair(np.random.default_rng(3), 50, (0.9, 0.6), (0.1, 0.4), (0.9, 0.9), (0.1, 0.1))
    found = compare(y, a, a, g)
    assert (found.by_group["change"].dropna() == 0).all() and (found.gaps["change"].dropna() == 0).all()
    assert set(found.by_group["verdict"]) == {"within noise"} == set(found.gaps["verdict"])


def test_what_has_no_value_in_one_model_has_no_verdict():
    y, always = np.array([1, 1, 0, 0] * 20), np.ones(80, dtype=int)
    group = np.repeat(["a", "b"], 40)
    found = compare(y, y, always, group)
    row = rate(found, "negative_predictive_value").iloc[0]
    assert row["first"] == 1 and np.isnan(row["second"]) and np.isnan(row["change"]) and row["verdict"] == ""
    assert rate(found, "negative_predictive_value", "gaps")["verdict"].item() == ""


def test_functions_of_ones_own_are_paired_too():
    y, a, b, g = pair(np.random.default_rng(4), 100, (0.9, 0.7), (0.1, 0.2), (0.8, 0.8), (0.2, 0.1), agree=0.9)
    own = {"recall": lambda pred, sens, label: (label * pred * sens).sum(0) / (label * sens).sum(0)}
    opaque, known = compare(y, a, b, g, statistics=own), compare(y, a, b, g, statistics=["true_positive_rate"])
    width = lambda table: (table["high"] - table["low"]).to_numpy()
    np.testing.assert_allclose(opaque.by_group["change"], known.by_group["change"])
    np.testing.assert_allclose(width(opaque.by_group), width(known.by_group), rtol=0.25)
    assert len(compare(y, a, b, g, statistics={"f2": FScore(2)}).by_group) == 2


def test_classes_that_only_the_second_model_predicts_count():
    found = compare(["x", "y"] * 30, ["x", "y"] * 30, ["x", "z"] * 30, ["a", "b"] * 30)
    assert set(found.by_group["class"]) >= {"x", "y", "z"}
    row = found.by_group.query("statistic == 'true_positive_rate' and `class` == 'y' and group == 'b'").iloc[0]
    assert (row["first"], row["second"]) == (1, 0)


def test_the_markdown_names_the_models_and_the_method():
    y, a, b, g = pair(np.random.default_rng(5), 30, (0.9, 0.7), (0.1, 0.2), (0.8, 0.8), (0.2, 0.1))
    text = compare(y, a, b, g, names=("vanilla", "LEACE")).to_markdown()
    assert "| vanilla | LEACE | change |" in text and "LEACE minus vanilla" in text and "120 images" in text
    assert "nan" not in text


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([0, 1], [0, 1], [0], ["a", "b"]), {}, "second: 1 rows given"),
        (([0, 1], [0, 1], [0, 1], ["a"]), {}, "group: 1 rows given"),
        (([0, 1], [0, 1], [0, 1], ["a", "b"]), {"names": ("x", "x")}, "names: two different names"),
        (([0, 1], [0, 1], [0, 1], ["a", "b"]), {"confidence": 1}, "confidence: 1"),
        (([0, 1], [0, 1], [0, 1], ["a", "b"]), {"statistics": ["acuracy"]}, "'accuracy'"),
        (([0, 1], [0, 1], [0.2, 0.8], ["a", "b"]), {}, "not whole"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        compare(*arguments, **options)


def test_one_group_has_changes_and_no_gaps():
    found = compare([0, 1] * 20, [0, 1] * 20, [1, 1] * 20, ["a"] * 40)
    assert found.gaps["change"].isna().all()
    assert isinstance(found.overall, pd.DataFrame) and found.by_group["change"].notna().any()
