"""Settings and columns that make no sense are refused by name, before any work; unusual kinds of sensible ones are taken."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from helpers import bias
from helpers.bias import statistics as st
from helpers.bias import verification
from helpers.bias.counterfactual import flip_report

N = 60
RNG = np.random.default_rng(0)
Y, P, S = RNG.integers(0, 2, N), RNG.integers(0, 2, N), RNG.random(N)
G, WHO, X = np.repeat(["a", "b"], N // 2), np.repeat(np.arange(20), 3), RNG.normal(size=(N, 4))
PAIRS = verification.pairs(X, WHO, G)

OF_CONFIDENCE = {
    "audit": lambda c: bias.audit(Y, P, G, confidence=c),
    "compare": lambda c: bias.compare(Y, P, Y, G, confidence=c),
    "calibration": lambda c: bias.calibration(Y, S, G, confidence=c),
    "threshold_sweep": lambda c: bias.threshold_sweep(Y, S, G, confidence=c),
    "inequality": lambda c: bias.inequality(Y, P, G, confidence=c),
    "spread": lambda c: bias.spread(X, G, confidence=c),
    "flip_report": lambda c: flip_report(S, S, G, confidence=c),
    "minimum_detectable_gap": lambda c: bias.minimum_detectable_gap({"a": 9, "b": 9}, confidence=c),
    "GroupStatistics": lambda c: bias.GroupStatistics(2, confidence=c),
    "error_rates": lambda c: verification.error_rates(PAIRS, 0.3, confidence=c),
    "indices": lambda c: verification.indices(PAIRS, 0.3, confidence=c),
    "signal_detection": lambda c: verification.signal_detection(PAIRS, confidence=c),
    "rank1_confusion": lambda c: verification.rank1_confusion(X, WHO, G, confidence=c),
    "tar_at_far": lambda c: verification.tar_at_far(PAIRS, [0.1], confidence=c),
}
OF_REPLICATES = {
    "audit": lambda n: bias.audit(Y, P, G, n_boot=n),
    "compare": lambda n: bias.compare(Y, P, Y, G, n_boot=n),
    "calibration": lambda n: bias.calibration(Y, S, G, n_boot=n),
    "inequality": lambda n: bias.inequality(Y, P, G, n_boot=n),
    "GroupStatistics": lambda n: bias.GroupStatistics(2, n_boot=n),
    "error_rates": lambda n: verification.error_rates(PAIRS, 0.3, n_boot=n),
    "indices": lambda n: verification.indices(PAIRS, 0.3, n_boot=n),
    "signal_detection": lambda n: verification.signal_detection(PAIRS, n_boot=n),
    "rank1_confusion": lambda n: verification.rank1_confusion(X, WHO, G, n_boot=n),
}


@pytest.mark.parametrize("value", [95, 1, 0, float("nan"), "0.95", None, True])
@pytest.mark.parametrize("verb", OF_CONFIDENCE)
def test_a_level_lies_inside_0_and_1_everywhere(verb, value):
    with pytest.raises(ValueError, match=rf"^confidence: {value!r}"):
        OF_CONFIDENCE[verb](value)


@pytest.mark.parametrize("value", [0, -1, 200.5, "200", None, True])
@pytest.mark.parametrize("verb", OF_REPLICATES)
def test_replicates_are_a_positive_whole_number_everywhere(verb, value):
    with pytest.raises(ValueError, match=rf"^n_boot: {value!r}"):
        OF_REPLICATES[verb](value)


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: bias.audit(Y, P, G, statistics=st.FScore(2)), "^statistics: FScore given; .* mapping"),
        (lambda: bias.audit(Y, P, G, statistics=None), "^statistics: NoneType given"),
        (lambda: bias.audit(Y, P, G, statistics={}), "^statistics: none asked for"),
        (lambda: bias.audit(Y, P, G, statistics={"x": st.FScore}), "^statistics: 'x' is .* which cannot be called"),
        (lambda: bias.audit(Y, P, G, small="x"), "^small: 'x'"),
        (lambda: bias.audit(Y, P, G).test(2.5), "^n_permutations: 2.5"),
        (lambda: bias.audit(Y, P, G).minimum_detectable_gap("x"), "^power: 'x'"),
        (lambda: bias.minimum_detectable_gap([9, 9]), "^n: sizes by group expected.* list given"),
        (lambda: bias.minimum_detectable_gap({"a": "x", "b": 9}), "^n: 'x' images in group 'a'"),
        (lambda: bias.minimum_detectable_gap({"a": 9, "b": 9}, rate="x"), "^rate: 'x'"),
        (lambda: bias.compare(Y, P, P[:-1], G), "^second: 59 rows given"),
        (lambda: bias.compare(Y, np.full(N, "q"), P, G), "^first: its values"),
        (lambda: bias.compare(Y, P, P, G, names=3), "^names: two different names expected, 3"),
        (lambda: bias.threshold_sweep(Y, S, G, statistics=None), "^statistics: .* NoneType given"),
        (lambda: bias.threshold_sweep(Y, S, G, thresholds=["q"]), "^thresholds: numbers expected"),
        (lambda: bias.GroupStatistics("ab"), "^groups: 'ab'"),
        (lambda: bias.GroupStatistics(["a", "a"]), "^groups: .* different names"),
        (lambda: bias.GroupStatistics(2, 1), "^classes: 1 given"),
        (lambda: bias.GroupStatistics(2, positive="x"), "^positive: 'x'"),
        (lambda: bias.GroupStatistics(2, statistics="recal"), "^statistics: unknown name 'recal'"),
        (lambda: bias.LinearFractionalParity("x", 2), "^statistic: .* 'x' given"),
        (lambda: bias.LinearFractionalParity(st.Accuracy(), "a"), "^stat_shape: 'a'"),
        (lambda: bias.LinearFractionalParity(st.Accuracy(), 2).update(S, S, S), "^pred: a tensor expected, ndarray"),
        (lambda: bias.spread(X.astype(str), G), "^embeddings: numbers expected"),
        (lambda: bias.spread([[1.0], [1.0, 2.0]], ["a", "b"]), "^embeddings: numbers expected"),
        (lambda: verification.pairs(X, ["1", 1] * 30, G), "^identity: .* all of one kind"),
        (lambda: verification.pairs(X, None, G), "^identity: one value a row expected"),
        (lambda: verification.error_rates(PAIRS, None), "^threshold: None given"),
        (lambda: verification.error_rates(PAIRS, "x"), "^threshold: 'x' given"),
        (lambda: verification.threshold_for(PAIRS, "x"), "^fmr: numbers expected"),
        (lambda: verification.tar_at_far(PAIRS, ["x"]), "^fars: numbers expected"),
        (lambda: verification.split_people(PAIRS, "x"), "^fraction: 'x'"),
        (lambda: verification.curves(PAIRS, points=1), "^points: 1 given"),
        (lambda: verification.gini(["a", "b"]), "^rates: numbers expected"),
        (lambda: verification.garbe([0.1, 0.2], [0.1, 0.2], alpha="x"), "^alpha: 'x'"),
        (lambda: flip_report(["x"], ["y"], ["a"]), "^score_before: numbers expected"),
        (lambda: flip_report(S, S, G, threshold="x"), "^threshold: .* 'x' given"),
        (lambda: flip_report(S, S, G, predicted=3), "^predicted: .* int given"),
    ],
)
def test_refused_by_name(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_stack_of_another_shape_than_promised_is_refused():
    metric = bias.LinearFractionalParity(st.StackedLinearFractionalStatistic(st.TruePositiveRate(), st.Accuracy()), 2)
    with pytest.raises(ValueError, match=r"^stat_shape: \(2,\) given, but the statistic has shape \(2, 2\)"):
        metric.update(torch.rand(4, 1), torch.eye(2)[[0, 1, 0, 1]], torch.ones(4, 1))


def test_embeddings_and_scores_may_be_of_half_precision_and_need_a_gradient():
    half = torch.tensor(X, requires_grad=True).bfloat16()
    plain = half.detach().double().numpy()
    assert bias.spread(half, G).equals(bias.spread(plain, G))
    np.testing.assert_allclose(verification.pairs(half, WHO, G).score, verification.pairs(plain, WHO, G).score, atol=1e-6)
    assert verification.rank1_confusion(half, WHO, G)["count"].sum() == N
    scores = torch.tensor(S, requires_grad=True).bfloat16()
    found = flip_report(scores, 1 - scores, G)
    np.testing.assert_allclose(found.value("score_change"), (1 - 2 * scores.detach().double()).mean(), atol=1e-2)


def test_a_probability_may_miss_1_by_rounding_but_not_by_more():
    assert flip_report([1 + 1e-7], [-1e-7], ["a"]).value("score_change") == -1
    with pytest.raises(ValueError, match="^score_after: 1 scores are missing or outside"):
        flip_report([1.0], [1.01], ["a"])


def test_sizes_may_be_a_series_and_counts_numpys_own():
    sizes = bias.audit(Y, P, G).by_group.query("statistic == 'accuracy'").set_index("group")["n"]
    assert bias.minimum_detectable_gap(sizes).equals(bias.minimum_detectable_gap(sizes.to_dict()))
    assert bias.audit(Y, P, G).test(np.int64(20)).equals(bias.audit(Y, P, G).test(20))
    assert bias.GroupStatistics(np.int64(3)).groups == ("0", "1", "2")
    assert list(bias.audit(Y, P, G, statistics=np.array(["accuracy", "f1"])).statistics) == ["accuracy", "f1"]


def test_people_of_categories_are_those_who_occur():
    people = pd.Categorical([f"p{k:02}" for k in WHO], categories=[f"p{k:02}" for k in range(30)][::-1])
    found = verification.pairs(X, people, G)
    assert len(found.people) == 20
    assert found.same.sum() == PAIRS.same.sum()


def test_the_interval_of_a_mean_score_is_students_t():
    y, group, score = [1, 0, 1, 0, 0], list("aaaab"), np.array([0.2, 0.5, 0.9, 0.4, 0.3])
    found = bias.audit(y, y, group, y_score=score)
    expected = stats.t.interval(0.95, 3, score[:4].mean(), stats.sem(score[:4]))
    np.testing.assert_allclose(found.interval("mean_score", "a"), expected)
    assert found.interval("mean_score", "b") == (0, 1)


def test_a_mean_of_rates_against_the_whole_is_no_narrower_than_its_smallest_share_allows():
    y, group = np.r_[np.ones(40), np.zeros(10), np.ones(10), np.zeros(40)].astype(int), np.repeat(["a", "b"], 50)
    found = bias.audit(y, np.where(np.arange(100) % 5, y, 1 - y), group, statistics="balanced_accuracy")
    width = {to: found.against(to).eval("difference_high - difference_low").to_numpy() for to in ("rest", "overall")}
    least = found.weights[["a", "b"]].min().to_numpy()
    np.testing.assert_allclose(least, 0.2)
    assert (width["overall"] >= (1 - least) * width["rest"] - 1e-12).all()


def test_the_larger_of_two_gaps_has_a_lower_limit_for_having_been_chosen():
    y, group = np.tile([1, 0], 100), np.repeat(["a", "b"], 100)
    p = np.where((group == "a") & (np.arange(200) % 5 > 0), 1, np.where(np.arange(200) % 5 > 2, 1, 0))
    found = bias.audit(y, p, group, statistics="equalized_odds")
    parts = [found.gap_interval(name)[0] for name in ("true_positive_rate", "false_positive_rate")]
    assert 0 < found.gap_interval("equalized_odds")[0] < max(parts)
