import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.bias import audit
from helpers.debiasing.curves import Objective, candidates, curve, search
from helpers.debiasing.mixing import equal_rates
from helpers.debiasing.thresholds import GroupThresholds, fit_thresholds, group_thresholds
from helpers.models import Affine, RandomisedThresholds, append_after, features, load, predict, save


def planted_scores(n, groups, seed):
    rng = np.random.default_rng(seed)
    y, group = rng.integers(0, 2, n), rng.integers(0, groups, n)
    return rng.normal(size=n) + 1.5 * (y - 0.5) + 1.5 * (group - (groups - 1) / 2), y, group


def slow_objective(predicted, y, group, weight):
    """Youden's index times the power of one minus the gap, row by row."""
    tpr = [predicted[(group == g) & (y == 1)].mean() for g in np.unique(group)]
    fpr = [predicted[(group == g) & (y == 0)].mean() for g in np.unique(group)]
    accuracy = (predicted[y == 1].mean() + 1 - predicted[y == 0].mean()) / 2
    return (2 * accuracy - 1) * (1 - max(max(tpr) - min(tpr), max(fpr) - min(fpr))) ** weight


@pytest.mark.parametrize("weight", [1.0, 3.0])
@pytest.mark.parametrize("groups, n, seed", [(2, 40, 0), (2, 40, 1), (2, 50, 2), (3, 21, 11), (3, 21, 0)])
def test_the_search_finds_the_exhaustive_optimum(groups, n, seed, weight):
    scores, y, group = planted_scores(n, groups, seed)
    edges = [candidates(scores[group == g]) for g in range(groups)]
    best = -np.inf
    for cut in itertools.product(*edges):
        best = max(best, slow_objective(scores > np.array(cut)[group], y, group, weight))
    thresholds, _ = fit_thresholds(scores, y, group, groups, weight)
    assert slow_objective(scores > thresholds[group], y, group, weight) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_the_gap_shrinks_on_fresh_images_and_accuracy_does_not(groups):
    scores, y, group = planted_scores(4000, groups, 0)
    thresholds, pooled = fit_thresholds(scores, y, group, groups)
    scores, y, group = planted_scores(4000, groups, 1)
    before, common, after = (audit(y, (scores > t).astype(int), group) for t in (0, pooled, thresholds[group]))
    assert before.gap("equalized_odds") > 0.4
    assert after.gap("equalized_odds") < 0.12
    assert after.value("balanced_accuracy") > before.value("balanced_accuracy")
    assert after.gap("equalized_odds") < common.gap("equalized_odds")


def test_a_constant_prediction_is_no_way_out():
    rng = np.random.default_rng(0)
    y, group = rng.integers(0, 2, 600), rng.integers(0, 2, 600)
    scores = 0.4 * y + rng.normal(size=600)
    scores[group == 1] = -0.3 * y[group == 1] + rng.normal(size=(group == 1).sum())  # no threshold closes this gap well
    thresholds, pooled = fit_thresholds(scores, y, group, 2)
    assert len(np.unique(scores > thresholds[group])) == 2 and len(np.unique(scores > pooled)) == 2


def test_the_objective_is_the_audits_own_numbers():
    scores, y, group = planted_scores(500, 3, 2)
    curves = tuple(curve(scores[group == g], y[group == g], candidates(scores[group == g])) for g in range(3))
    chosen = search(Objective(curves))
    cut = np.array([c.threshold[i] for c, i in zip(curves, chosen, strict=True)])
    accuracy, gap = Objective(curves).parts(chosen[None])
    audited = audit(y, (scores > cut[group]).astype(int), group)
    assert audited.value("balanced_accuracy") == pytest.approx(accuracy[0], abs=1e-12)
    assert audited.gap("equalized_odds") == pytest.approx(gap[0], abs=1e-12)


def test_a_group_without_positives_or_without_images_is_survived():
    scores, y, group = planted_scores(300, 3, 3)
    y[group == 2] = 0
    thresholds, pooled = fit_thresholds(scores, y, group, 4)
    assert np.isfinite(thresholds).all() and thresholds[3] == pooled


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_model_applies_the_thresholds_it_learned(planted, batch_of, outputs):
    problem = planted(n=400, outputs=outputs)
    model = group_thresholds(problem.model, batch_of(problem))
    before, after = predict(problem.model, problem.loader()), predict(model, problem.loader())
    margin = before.logits[:, -1] - (before.logits[:, 0] if outputs == 2 else 0)
    cut = model.edit.thresholds.numpy()[:-1]
    np.testing.assert_array_equal(after.y_pred, margin > cut[problem.group])
    assert after.logits.shape == before.logits.shape
    assert 0 < after.y_score.min() and after.y_score.max() < 1
    old, new = (audit(problem.y, found.y_pred, problem.group) for found in (before, after))
    assert new.gap("equalized_odds") < old.gap("equalized_odds") - 0.1
    assert new.value("balanced_accuracy") > old.value("balanced_accuracy") - 0.02


def test_without_the_group_the_pooled_threshold_is_used_and_said():
    edit = GroupThresholds(2, np.array([-1.0, 2.0]), pooled=0.5)
    logits = torch.tensor([[0.0, 0.4], [0.0, 0.6], [0.0, 3.0]])
    with pytest.warns(UserWarning, match="pooled threshold"):
        assert edit(logits).argmax(1).tolist() == [0, 1, 1]
    group = torch.tensor([0, 1, 9])  # 9 is no group it knows: pooled
    assert edit(logits, group).argmax(1).tolist() == [1, 0, 1]
    assert edit(logits, torch.tensor([-1, -1, -1])).argmax(1).tolist() == [0, 1, 1]


def test_the_group_is_given_by_name_or_second_as_tensor_array_or_list(planted, batch_of, tmp_path):
    problem = planted(n=400)
    model = group_thresholds(problem.model, batch_of(problem))
    images, codes = problem.images[:40], torch.tensor(problem.group[:40])
    with torch.no_grad():
        named = model(images, group=codes)
        for given in (codes, codes.numpy(), codes.tolist(), codes.int()):
            assert torch.equal(model(images, given), named) and torch.equal(model(images, group=given), named)
        assert not torch.equal(model(images, 1 - codes), named)
        outer = append_after(model, "", Affine(2))
        assert torch.equal(outer(images, codes), named)
    program = torch.export.export(model, (images, codes))
    torch.testing.assert_close(program.module()(images, codes), named)


def test_what_it_cannot_do_is_refused(planted, batch_of):
    with pytest.raises(ValueError, match="3 classes"):
        group_thresholds(planted(classes=3).model, batch_of(planted(classes=3)))
    with pytest.raises(ValueError, match="gap_weight"):
        group_thresholds(planted().model, batch_of(planted()), gap_weight=-1)
    with pytest.raises(ValueError, match="1 or 2"):
        GroupThresholds(3, 2)


def expected_rates(thresholds, weights, scores, y, group):
    """(FPR, TPR) of each group under the mixture, with no draw, (G, 2)."""
    mixture = lambda g, c: zip(thresholds[g], weights[g], strict=True)
    share = lambda g, c, t: (scores[(group == g) & (y == c)] > t).mean()
    return np.array([[sum(w * share(g, c, t) for t, w in mixture(g, c)) for c in (0, 1)] for g in range(len(weights))])


def upper_hull(c, at):
    """TPR of the concave hull of a ROC curve at false positive rates `at`, corner by corner (Graham's scan)."""
    corners = []
    for x, y in sorted(zip(c.false, c.found, strict=True)):
        while len(corners) > 1:
            (x1, y1), (x2, y2) = corners[-2:]
            if (x2 - x1) * (y - y1) < (y2 - y1) * (x - x1):
                break
            corners.pop()
        corners.append((x, y))
    return np.interp(at, *np.array(corners).T)


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_mixed_thresholds_have_equal_rates_and_none_that_are_equal_are_better(groups):
    scores, y, group = planted_scores(300 * groups, groups, groups)
    curves = tuple(curve(scores[group == g], y[group == g], candidates(scores[group == g])) for g in range(groups))
    thresholds, weights, false, found = equal_rates(curves)
    np.testing.assert_allclose(
        expected_rates(thresholds, weights, scores, y, group), np.tile([false, found], (groups, 1)), atol=1e-8
    )
    assert max(map(len, thresholds)) <= 3 and all(w.min() > 0 and w.sum() == pytest.approx(1) for w in weights)
    # The best common point is where the lowest of the hulls is furthest above the diagonal.
    at = np.linspace(0, 1, 5001)
    best = (np.min([upper_hull(c, at) for c in curves], axis=0) - at).max()
    assert found - false == pytest.approx(best, abs=1e-3)


def test_a_group_without_positives_has_a_say_in_the_false_positive_rate_only():
    scores, y, group = planted_scores(900, 3, 0)
    y[group == 2] = 0
    curves = tuple(curve(scores[group == g], y[group == g], candidates(scores[group == g])) for g in range(3))
    thresholds, weights, false, found = equal_rates(curves)
    seen = expected_rates(thresholds, weights, scores, np.where(group == 2, 0, y), group)
    np.testing.assert_allclose(seen[:, 0], false, atol=1e-8)
    np.testing.assert_allclose(seen[:2, 1], found, atol=1e-8)


@pytest.mark.parametrize("outputs", [1, 2])
def test_randomised_thresholds_close_the_gap_and_treat_an_image_alike_every_time(planted, batch_of, outputs, tmp_path):
    problem = planted(n=4000, outputs=outputs)
    batch = batch_of(problem)
    model = group_thresholds(problem.model, batch, randomised=True)
    found = predict(model, problem.loader())
    assert audit(problem.y, found.y_pred, problem.group).gap("equalized_odds") < 0.04  # 0 but for the draw
    images, codes = problem.images[:50], torch.tensor(problem.group[:50])
    with torch.no_grad():
        together = model(images, group=codes)
        alone = torch.cat([model(images[i : i + 1], group=codes[i : i + 1]) for i in reversed(range(50))]).flip(0)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    other = group_thresholds(problem.model, replace(batch, seed=7), randomised=True)
    changed = (predict(other, problem.loader()).y_pred != found.y_pred).mean()
    assert 0 < changed < 0.5  # another seed draws otherwise, where the thresholds of a group differ
    save(model, tmp_path / "model")
    again = load(tmp_path / "model", model=problem.model)
    torch.testing.assert_close(again(images, codes), together, atol=0, rtol=0)
    exported = torch.export.export(model, (images, codes)).module()
    torch.testing.assert_close(exported(images, codes), together, atol=1e-5, rtol=0)
    with pytest.warns(UserWarning, match="pooled threshold"):
        model(images)


def test_the_draw_has_the_shares_asked_for_and_tells_nothing_of_the_score():
    scores = torch.randn(40000, generator=torch.Generator().manual_seed(0))[:, None]
    edit = RandomisedThresholds(1, np.array([[-100.0, 50.0, 200.0]]), np.array([[0.2, 0.5, 0.3]]), spread=1.0, seed=3)
    shift = scores - edit(scores, torch.zeros(40000, dtype=torch.int64))
    for value, share in ((-100, 0.2), (50, 0.5), (200, 0.3)):
        drawn = (shift - value).abs() < 1
        for part in scores[:, 0].argsort().split(8000):  # from the lowest to the highest fifth of scores
            assert drawn[part].float().mean().item() == pytest.approx(share, abs=0.02)


def test_groups_of_which_one_is_at_chance_cannot_share_rates_that_mean_anything(planted, batch_of):
    problem = planted(n=400)
    batch = batch_of(problem)
    rng = np.random.default_rng(0)
    y = np.where(problem.group == 1, rng.permutation(problem.y), problem.y)
    logits = batch.logits.clone()
    logits[problem.group == 1] = 0.0
    with pytest.raises(ValueError, match="no better than chance"):
        group_thresholds(problem.model, replace(batch, y=y, logits=logits), randomised=True)


@pytest.mark.parametrize("groups, outputs", [(2, 1), (2, 2), (3, 2)])
def test_thresholds_by_inferred_group_need_no_group_and_come_near_those_by_given_group(planted, batch_of, groups, outputs):
    problem, fresh = planted(groups=groups, n=1200, outputs=outputs), planted(groups=groups, n=1200, outputs=outputs, seed=5)
    batch = batch_of(problem)
    inferred, given = group_thresholds(problem.model, batch, group="inferred"), group_thresholds(problem.model, batch)
    assert not getattr(inferred, "needs_group", False)
    numbers = []
    for model in (problem.model, given, inferred):
        found = predict(model, fresh.loader())
        seen = audit(fresh.y, found.y_pred, fresh.group)
        numbers.append((seen.value("balanced_accuracy"), seen.gap("equalized_odds")))
    (_, before), (accuracy, _), (own, gap) = numbers
    assert gap < 0.5 * before and own > accuracy - 0.05


def test_the_edit_moves_the_score_by_the_threshold_of_the_group_that_it_infers(planted, batch_of):
    problem = planted(groups=3, n=600)
    model = group_thresholds(problem.model, batch_of(problem), group="inferred")
    edit, seen = model[3].edit, features(problem.model, problem.loader())
    inferred = edit.infer(torch.tensor(seen.features)).numpy()
    assert (inferred == problem.group).mean() > 0.6
    before, after = seen.logits, predict(model, problem.loader()).logits
    moved = (before[:, 1] - before[:, 0]) - (after[:, 1] - after[:, 0])
    np.testing.assert_allclose(moved, edit.thresholds.numpy()[inferred], atol=1e-3)


@pytest.mark.parametrize(
    "options, message", [({"group": "guessed"}, "group"), ({"group": "inferred", "randomised": True}, 'group="given" only')]
)
def test_options_that_do_not_go_together_are_refused(planted, batch_of, options, message):
    with pytest.raises(ValueError, match=message):
        group_thresholds(planted(n=300).model, batch_of(planted(n=300)), **options)
