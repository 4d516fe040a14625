import numpy as np
import pytest
import torch

from helpers.bias import audit
from helpers.debiasing import debias
from helpers.debiasing.common_threshold import common_threshold
from helpers.debiasing.objective import best, measured, statistics_of, useful
from helpers.debiasing.thresholds import score
from helpers.models import predict


def rowwise(scores, y, group, threshold):
    """Balanced accuracy and equalized-odds gap of one threshold, row by row."""
    predicted = scores > threshold
    rates = [[predicted[(group == g) & (y == c)].mean() for g in np.unique(group)] for c in (0, 1)]
    return (predicted[y == 1].mean() + 1 - predicted[y == 0].mean()) / 2, max(np.ptp(r) for r in rates)


def applied_threshold(model, batch, problem):
    """The threshold on the original score, read from the difference of outputs."""
    after = score(torch.from_numpy(predict(model, problem.loader()).logits))
    shift = score(batch.logits) - after
    assert np.ptp(shift) < 1e-4
    return shift.mean(), after


@pytest.mark.parametrize("groups, outputs", [(2, 1), (2, 2), (3, 2)])
def test_it_is_the_best_of_all_thresholds_that_are_no_constant(planted, batch_of, groups, outputs):
    problem = planted(groups=groups, n=300, outputs=outputs)
    batch = batch_of(problem)
    threshold, after = applied_threshold(common_threshold(problem.model, batch), batch, problem)
    scores = score(batch.logits)
    values = np.sort(scores)
    best_value = -1
    for cut in (values[1:] + values[:-1]) / 2:
        if 0.02 <= (scores > cut).mean() <= 0.98:
            accuracy, gap = rowwise(scores, problem.y, problem.group, cut)
            best_value = max(best_value, (2 * accuracy - 1) * (1 - gap) ** 3)
    accuracy, gap = rowwise(after, problem.y, problem.group, 0)
    assert (2 * accuracy - 1) * (1 - gap) ** 3 == pytest.approx(best_value, abs=1e-9)
    assert rowwise(scores, problem.y, problem.group, threshold) == pytest.approx((accuracy, gap), abs=0.02)


def test_the_objective_and_the_metric_are_the_users(planted, batch_of):
    problem = planted(n=400)
    batch = batch_of(problem)
    seen = []

    def accurate(fairness, accuracy):
        seen.append((fairness, accuracy))
        return accuracy

    model = common_threshold(problem.model, batch, objective_function=accurate, metric="EO_GAP")
    assert all(type(f) is float and type(a) is float for f, a in seen)
    best_accuracy = max(accuracy for _, accuracy in seen)
    found = predict(model, problem.loader())
    assert audit(problem.y, found.y_pred, problem.group).value("balanced_accuracy") == pytest.approx(best_accuracy)
    fair = predict(common_threshold(problem.model, batch, objective_function=lambda f, a: -f, metric="DP_GAP"), problem.loader())
    by_metric = audit(problem.y, fair.y_pred, problem.group).gap("demographic_parity")
    assert by_metric < audit(problem.y, found.y_pred, problem.group).gap("demographic_parity")
    assert 0.02 <= fair.y_pred.mean() <= 0.98  # the fairest threshold of all is a constant, and that is not taken


def test_detoxais_grid_is_tried_where_it_is_asked_for(planted, batch_of):
    problem = planted(n=300)
    batch = batch_of(problem)
    seen = []
    model = common_threshold(
        problem.model, batch, threshold_range=(0.1, 0.9), threshold_steps=5, objective_function=lambda f, a: seen.append(a) or a
    )
    threshold, _ = applied_threshold(model, batch, problem)
    assert len(seen) <= 5
    assert np.abs(1 / (1 + np.exp(-threshold)) - np.array([0.1, 0.3, 0.5, 0.7, 0.9])).min() < 1e-3
    narrow, _ = applied_threshold(common_threshold(problem.model, batch, threshold_range=(0.6, 0.7)), batch, problem)
    assert 0.6 <= 1 / (1 + np.exp(-narrow)) <= 0.7


def test_counts_give_the_audits_own_gaps():
    rng = np.random.default_rng(0)
    y, group, scores = rng.integers(0, 2, 500), rng.integers(0, 3, 500), rng.normal(size=500)
    cells = np.zeros((3, 4, 1), int)
    np.add.at(cells[..., 0], (group, 2 * y + (scores > 0)), 1)
    seen = audit(y, (scores > 0).astype(int), group)
    for metric, name in (("EO_GAP", "equalized_odds"), ("demographic_parity", "demographic_parity"), ("f1_gap", "f1")):
        gap, accuracy = measured(cells, metric)
        assert gap[0] == pytest.approx(seen.gap(name)) and accuracy[0] == pytest.approx(seen.value("balanced_accuracy"))
    assert statistics_of("eoo_gap") == ("true_positive_rate",)


def test_a_constant_is_never_useful():
    cells = np.array([[[250, 250, 0, 249, 0], [0, 0, 250, 1, 250], [250, 240, 0, 240, 1], [0, 10, 250, 10, 249]]])
    assert useful(cells).tolist() == [False, True, False, True, False]
    with pytest.raises(ValueError, match="single class"):
        best(cells[..., [0, 2]], "EO_GAP", None)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objective_function": "lambda fairness, accuracy: -fairness"}, "objective_function: got 'lambda"),
        ({"objective_function": lambda f, a: None}, "objective_function: it gave None"),
        ({"objective_function": lambda f, a: np.nan}, "objective_function: it is NaN"),
        ({"metric": "EOGAP"}, "metric: unknown name"),
        ({"threshold_range": (0.9, 0.1)}, "threshold_range"),
        ({"threshold_range": 0.5}, "threshold_range: got 0.5"),
        ({"threshold_steps": 1}, "threshold_steps: got 1"),
        ({"threshold_range": (0.9999999, 1.0)}, "single class"),
    ],
)
def test_bad_options_are_named(planted, batch_of, options, message):
    with pytest.raises(ValueError, match=message):
        common_threshold(planted(n=300).model, batch_of(planted(n=300)), **options)


def test_the_shift_folds_into_the_last_layer(planted):
    problem = planted()
    result = debias(problem.model, problem.loader(), "NT")["NT"]
    folded = result.model.fold()
    torch.testing.assert_close(folded(problem.images[:32]), result.model(problem.images[:32]), atol=1e-5, rtol=0)
    assert [name for name, _ in result.edits] == ["4"] and list(folded.state_dict()) == list(problem.model.state_dict())
