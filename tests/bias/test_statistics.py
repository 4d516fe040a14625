"""Statistics: their published values, their gradients, and what they do without data."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.bias import statistics as s

PRED = torch.tensor([[0.2], [0.6], [0.9], [0.8]])
SENS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
LABEL = torch.tensor([[0.0], [1.0], [0.0], [1.0]])


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        (s.PositiveRate(), [0.4, 0.85]),
        (s.TruePositiveRate(), [0.6, 0.8]),
        (s.FalsePositiveRate(), [0.2, 0.9]),
        (s.TrueNegativeRate(), [0.8, 0.1]),
        (s.FalseNegativeRate(), [0.4, 0.2]),
        (s.PositivePredictiveValue(), [0.6 / 0.8, 0.8 / 1.7]),
        (s.FalseDiscoveryRate(), [0.2 / 0.8, 0.9 / 1.7]),
        (s.FalseOmissionRate(), [0.4 / 1.2, 0.2 / 0.3]),
        (s.NegativePredictiveValue(), [0.8 / 1.2, 0.1 / 0.3]),
        (s.Accuracy(), [0.7, 0.45]),
        (s.ErrorRate(), [0.3, 0.55]),
        (s.BalancedAccuracy(), [0.7, 0.45]),
        (s.FalseNegativeFalsePositiveFraction(), [0.4 / 0.2, 0.2 / 0.9]),
        (s.FScore(), [2 * 0.6 / 1.8, 2 * 0.8 / 2.7]),
        (s.FScore(2), [5 * 0.6 / (4 + 0.8), 5 * 0.8 / (4 + 1.7)]),
        (s.FScore(0), [0.6 / 0.8, 0.8 / 1.7]),
    ],
)
def test_soft_predictions_give_the_values_worked_out_by_hand(statistic, expected):
    torch.testing.assert_close(statistic(PRED, SENS, LABEL), torch.tensor(expected))


def test_every_name_of_the_audit_is_one_of_these_objects():
    assert {"selection_rate", "f1", "treatment_equality", "balanced_accuracy"} <= set(s.STATISTICS)
    assert len(s.STATISTICS) == 14
    assert all(isinstance(each, s.Statistic) for each in s.STATISTICS.values())


@pytest.mark.parametrize("name", sorted(s.STATISTICS))
def test_gradients_are_those_of_finite_differences(name):
    pred = PRED.double().requires_grad_()
    torch.autograd.gradcheck(lambda p: s.STATISTICS[name](p, SENS.double(), LABEL.double()), pred)


def test_a_group_without_a_denominator_is_nan_and_leaves_no_nan_in_the_gradient():
    sens = torch.cat([SENS, torch.zeros(4, 1)], dim=1)
    pred = PRED.clone().requires_grad_()
    values = s.TruePositiveRate()(pred, sens, LABEL)
    assert values.isnan().tolist() == [False, False, True]
    values[~values.isnan()].sum().backward()
    assert pred.grad.isfinite().all() and pred.grad.abs().sum() > 0


def test_false_negatives_without_false_positives_are_nan_rather_than_infinite():
    pred, label = torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [0.0]])
    assert s.FalseNegativeFalsePositiveFraction()(pred, torch.ones(2, 1), label).isnan().all()


def test_overall_is_the_value_of_one_group_of_everybody():
    for statistic in s.STATISTICS.values():
        torch.testing.assert_close(statistic.overall_statistic(PRED, LABEL), statistic(PRED, torch.ones(4, 1), LABEL))


def test_labels_go_by_name_everywhere():
    for statistic in (*s.STATISTICS.values(), s.StackedLinearFractionalStatistic(s.PositiveRate(), s.Accuracy())):
        torch.testing.assert_close(statistic(PRED, SENS, label=LABEL), statistic(PRED, SENS, LABEL))
        torch.testing.assert_close(statistic.overall_statistic(PRED, label=LABEL), statistic.overall_statistic(PRED, LABEL))


def test_columns_of_a_second_attribute_change_nothing_for_the_first():
    other = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    for statistic in s.STATISTICS.values():
        both = statistic(PRED, torch.cat([SENS, other], dim=1), LABEL)
        torch.testing.assert_close(both, torch.cat([statistic(PRED, SENS, LABEL), statistic(PRED, other, LABEL)]))


def test_a_continuous_feature_weighs_the_rows():
    age = torch.tensor([[20.0], [30.0], [40.0], [50.0]])
    rate = (age * PRED).sum() / age.sum()
    torch.testing.assert_close(s.PositiveRate()(PRED, age), rate[None])
    # its scale is of no matter, its zero is: a row of weight 0 is no row
    torch.testing.assert_close(s.Accuracy()(PRED, age / 7, LABEL), s.Accuracy()(PRED, age, LABEL))
    kept = torch.tensor([1, 2, 3])
    torch.testing.assert_close(
        s.FScore()(PRED, age - 20, LABEL), s.FScore()(PRED[kept], (age - 20)[kept], LABEL[kept])
    )


def test_a_missing_prediction_is_not_passed_over():
    pred = PRED.clone()
    pred[1] = torch.nan
    for statistic in s.STATISTICS.values():
        assert statistic(pred, SENS, LABEL).isnan().all()


def test_sums_of_many_rows_keep_the_precision_of_float32():
    n = 2_000_000  # added one by one, these float32 numbers lose four digits
    pred = torch.full((n, 1), 0.1)
    sens = torch.nn.functional.one_hot(torch.arange(n) % 2, 2)
    torch.testing.assert_close(s.PositiveRate()(pred, sens), torch.full((2,), 0.1), rtol=1e-6, atol=0)


def test_autocast_does_not_round_the_sums():
    pred, sens, label = torch.rand(64, 1), torch.ones(64, 2), torch.ones(64, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = s.TruePositiveRate()(pred, sens, label)
    assert torch.equal(inside, s.TruePositiveRate()(pred, sens, label))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_computes_the_same(copied):
    stack = s.StackedLinearFractionalStatistic(s.PositiveRate(), s.FScore(2), s.TrueNegativeRate())
    for statistic in (*s.STATISTICS.values(), stack):
        torch.testing.assert_close(copied(statistic)(PRED, SENS, LABEL), statistic(PRED, SENS, LABEL))


def test_stacked_values_equal_the_single_ones():
    parts = [s.PositiveRate(), s.TruePositiveRate(), s.FScore(2)]
    stacked = s.StackedLinearFractionalStatistic(*parts)
    torch.testing.assert_close(
        stacked(PRED, SENS, LABEL), torch.stack([part(PRED, SENS, LABEL) for part in parts])
    )
    assert stacked.overall_statistic(PRED, LABEL).shape == (3, 1)


@pytest.mark.parametrize(
    "statistic",
    [
        *(each for each in s.STATISTICS.values() if isinstance(each, s.LinearFractionalStatistic)),
        s.StackedLinearFractionalStatistic(s.PositiveRate(), s.FalseOmissionRate()),
    ],
    ids=lambda each: type(each).__name__,
)
def test_the_constraint_is_numerator_minus_value_times_denominator(statistic):
    value = statistic.overall_statistic(PRED, LABEL)
    intercept, slope = statistic.fixed_constraint(value, SENS, LABEL)
    expected = statistic.num(PRED, SENS, LABEL) - value * statistic.denom(PRED, SENS, LABEL)
    torch.testing.assert_close((intercept + slope * PRED).sum(0), expected.flatten(), atol=1e-6, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_weights_split_over_rows_count_as_rows(seed):
    """The property on which auditing a table of counts rests: a row of weight 3 is three rows."""
    rng = np.random.default_rng(seed)
    pred, label = (torch.tensor(rng.integers(0, 2, (6, 1)), dtype=torch.float64) for _ in range(2))
    weight = torch.tensor(rng.integers(0, 4, (6, 1)))
    repeated = torch.repeat_interleave(torch.arange(6), weight[:, 0])
    for statistic in s.STATISTICS.values():
        torch.testing.assert_close(
            statistic(pred, weight, label),
            statistic(pred[repeated], torch.ones(len(repeated), 1), label[repeated]),
            equal_nan=True,
        )


def test_integer_and_boolean_predictions_are_taken_as_hard_ones():
    pred, label = torch.tensor([[1], [0], [1]]), torch.tensor([[True], [False], [False]])
    assert s.Accuracy()(pred, torch.ones(3, 1), label).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("pred", "sens", "label", "named"),
    [
        (PRED[:, 0], SENS, LABEL, "pred"),
        (PRED, SENS[:3], LABEL, "sens"),
        (PRED, SENS[:, 0], LABEL, "sens"),
        (PRED, SENS, LABEL[:, 0], "label"),
    ],
)
def test_shapes_that_would_broadcast_are_refused_by_name(pred, sens, label, named):
    with pytest.raises(ValueError, match=f"^{named}: shape"):
        s.TruePositiveRate()(pred, sens, label)


def test_what_cannot_be_built_is_refused():
    for beta in (-1, np.inf, np.nan):
        with pytest.raises(ValueError, match="beta"):
            s.FScore(beta)
    with pytest.raises(ValueError, match="at least one"):
        s.StackedLinearFractionalStatistic()
    with pytest.raises(ValueError, match="no LinearFractionalStatistic"):
        s.StackedLinearFractionalStatistic(s.BalancedAccuracy())
    with pytest.raises(ValueError, match="at least one"):
        s.MeanStatistic()


def test_functions_that_take_other_labels_are_named_when_the_class_is_made():
    with pytest.raises(TypeError, match=r"Lopsided\.denom_slope: takes \(weight\), but num_intercept takes \(label\)"):

        class Lopsided(s.LinearFractionalStatistic):
            def num_intercept(self, label):
                return 0.0

            def num_slope(self, label):
                return label

            def denom_intercept(self, label):
                return label

            def denom_slope(self, weight):
                return 0.0


def test_a_missing_function_is_named_when_somebody_makes_one():
    class Half(s.LinearFractionalStatistic):
        def num_intercept(self):
            return 0.0

    with pytest.raises(TypeError, match="denom_intercept"):
        Half()


def test_labels_that_the_functions_do_not_take_are_refused():
    pred, sens = torch.ones(3, 1), torch.ones(3, 2)
    with pytest.raises(TypeError, match=r"TruePositiveRate: takes the labels \(label\), 0 by position"):
        s.TruePositiveRate()(pred, sens)
    with pytest.raises(TypeError, match=r"\(lable\) by name given"):
        s.TruePositiveRate()(pred, sens, lable=pred)


def test_a_coefficient_of_the_wrong_shape_is_refused_by_the_name_of_its_function():
    class Flat(s.LinearFractionalStatistic):
        def num_intercept(self, label):
            return 0.0

        def num_slope(self, label):
            return label[:, 0]  # (N,) would broadcast to (N, N)

        def denom_intercept(self, label):
            return 1.0

        def denom_slope(self, label):
            return 0.0

    with pytest.raises(ValueError, match=r"Flat\.num_slope: a number or shape \(3, 1\) expected, \(3,\) returned"):
        Flat()(torch.ones(3, 1), torch.ones(3, 2), torch.ones(3, 1))


@pytest.mark.parametrize("value", [-1.0, 2.0, torch.nan])
def test_a_target_that_is_no_probability_is_refused(value):
    label = LABEL.clone()
    label[2] = value
    for name, statistic in s.STATISTICS.items():
        if name == "selection_rate":
            continue  # it has no use for labels
        with pytest.raises(ValueError, match=r"^label: .* at row 2 is missing or outside \[0, 1\]"):
            statistic(PRED, SENS, label)
    stack = s.StackedLinearFractionalStatistic(s.PositiveRate(), s.Accuracy())
    with pytest.raises(ValueError, match="^label: .* at row 2"):
        stack(PRED, SENS, label)


class Cost(s.LinearFractionalStatistic):
    """Price of the errors by image: missed ones cost `weight`, false alarms 1. Two labels, and tensors of any number."""

    def num_intercept(self, label, weight):
        return weight * label

    def num_slope(self, label, weight):
        return 1 - label - weight * label

    def denom_intercept(self, label, weight):
        return 1

    def denom_slope(self, label, weight):
        return 0


def test_a_statistic_of_two_labels():
    weight = torch.tensor([[1.0], [5.0], [1.0], [3.0]])
    expected = torch.tensor([(0.2 + 5 * 0.4) / 2, (0.9 + 3 * 0.2) / 2])
    torch.testing.assert_close(Cost()(PRED, SENS, LABEL, weight), expected)
    torch.testing.assert_close(Cost()(PRED, SENS, weight=weight, label=LABEL), expected)
    stack = s.StackedLinearFractionalStatistic(s.PositiveRate(), Cost())
    torch.testing.assert_close(stack(PRED, SENS, weight=weight, label=LABEL)[1], expected)
    with pytest.raises(TypeError, match=r"Cost: takes the labels \(label, weight\), 1 by position and \(\) by name given"):
        Cost()(PRED, SENS, LABEL)
    with pytest.raises(TypeError, match=r"TruePositiveRate takes \(label\), but Cost takes \(label, weight\)"):
        s.StackedLinearFractionalStatistic(Cost(), s.TruePositiveRate())
    with pytest.raises(TypeError, match=r"PositiveRate: takes the labels .* by position"):
        s.PositiveRate()(PRED, SENS, weight=weight, label=LABEL)  # in which order?


def made(slope, **others):
    """A statistic of one label whose slope of the numerator is `slope`."""

    def constant(self, label):
        return 1.0

    functions = dict.fromkeys(s.COEFFICIENTS, constant) | {"num_slope": slope} | others
    return type("Mine", (s.LinearFractionalStatistic,), functions)


@pytest.mark.parametrize(
    ("slope", "message"),
    [
        (lambda self, pred: pred, r"Mine\.num_slope: takes \(pred\), but num_intercept takes \(label\)"),
        (lambda self: 0.0, r"Mine\.num_slope: takes \(\), but num_intercept takes \(label\)"),
        (lambda self, label, more: 0.0, r"Mine\.num_slope: takes \(label, more\), but"),
    ],
)
def test_a_wrong_signature_is_named_at_once(slope, message):
    with pytest.raises(TypeError, match=message):
        made(slope)


def test_functions_that_take_the_predictions_are_refused_at_once():
    with pytest.raises(TypeError, match=r"Mine\.num_intercept: takes 'pred', but may depend on the labels only"):
        type("Mine", (s.LinearFractionalStatistic,), dict.fromkeys(s.COEFFICIENTS, lambda self, pred, label: 0.0))
    with pytest.raises(TypeError, match=r"Mine\.num_intercept: takes \(\*, label\), but labels come by position"):
        type("Mine", (s.LinearFractionalStatistic,), dict.fromkeys(s.COEFFICIENTS, lambda self, *, label: 0.0))


@pytest.mark.parametrize(
    ("slope", "error", "message"),
    [
        (lambda self, label: torch.inf, ValueError, "inf returned, which is not finite"),
        (lambda self, label: 1 / label, ValueError, "2 of 4 coefficients are not finite"),
        (lambda self, label: None, TypeError, "a number or a tensor expected, NoneType returned"),
        (lambda self, label: label.expand(4, 2), ValueError, r"a number or shape \(4, 1\) expected, \(4, 2\) returned"),
        (lambda self, label: label[:3], ValueError, r"a number or shape \(4, 1\) expected, \(3, 1\) returned"),
    ],
)
def test_what_is_no_coefficient_is_refused_by_the_name_of_its_function(slope, error, message):
    with pytest.raises(error, match=r"^Mine\.num_slope: " + message):
        made(slope)()(PRED, SENS, LABEL)


def test_a_coefficient_made_of_the_predictions_is_refused():
    pred = PRED.clone().requires_grad_()
    with pytest.raises(ValueError, match=r"Mine\.num_slope: depends on the predictions"):
        made(lambda self, label: label * pred)()(pred, SENS, LABEL)
    weight = torch.ones(4, 1, requires_grad=True)  # a learned weight is none
    made(lambda self, label: label * weight)()(pred, SENS, LABEL).sum().backward()
    assert weight.grad.abs().sum() > 0


@pytest.mark.parametrize("one", [1, True, np.float32(1), torch.tensor(1), torch.tensor(True), torch.ones(1, 1)])
def test_numbers_of_any_kind_are_coefficients(one):
    def nothing(self, label):
        return 0

    statistic = made(lambda self, label: one, num_intercept=nothing, denom_slope=nothing)()
    torch.testing.assert_close(statistic(PRED, SENS, LABEL), s.PositiveRate()(PRED, SENS))


@pytest.mark.parametrize("one_hot", [False, True])
def test_one_vs_rest_is_the_binary_statistic_of_each_class(one_hot):
    rng = torch.Generator().manual_seed(0)
    label = torch.randint(0, 4, (60,), generator=rng)
    pred = torch.rand(60, 4, generator=rng, dtype=torch.float64).softmax(1)
    sens = torch.rand(60, 3, generator=rng, dtype=torch.float64)
    given_label = torch.nn.functional.one_hot(label, 4) if one_hot else label
    found = s.one_vs_rest(s.FScore(), pred, sens, given_label)
    assert found.shape == (4, 3)
    for k in range(4):
        torch.testing.assert_close(found[k], s.FScore()(pred[:, [k]], sens, (label == k).double()[:, None]))
    hard = s.one_vs_rest(s.TruePositiveRate(), pred.argmax(1), None, given_label)
    for k in range(4):
        assert hard[k, 0] == pytest.approx(float((pred.argmax(1)[label == k] == k).float().mean()))


def test_one_vs_rest_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="label: 3 classes given, but pred has 4"):
        s.one_vs_rest(s.FScore(), torch.rand(5, 4), None, torch.rand(5, 3))
    with pytest.raises(ValueError, match="pred: classes as integers"):
        s.one_vs_rest(s.FScore(), torch.rand(5), None, torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match="label: shape"):
        s.one_vs_rest(s.FScore(), torch.rand(5, 2), None, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="label: classes -1 to 0 are not within 0 to 1"):
        s.one_vs_rest(s.FScore(), torch.rand(2, 2), None, torch.tensor([-1, 0]))
    with pytest.raises(ValueError, match="label: classes 0 to 2 are not within 0 to 1"):
        s.one_vs_rest(s.FScore(), torch.rand(2, 2), None, torch.tensor([2, 0]))
    with pytest.raises(ValueError, match="pred: empty"):
        s.one_vs_rest(s.FScore(), torch.zeros(0, dtype=torch.long), None, torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="pred: shape .*one_vs_rest takes a column a class"):
        s.FScore()(torch.rand(5, 3), None, torch.zeros(5, 1))
