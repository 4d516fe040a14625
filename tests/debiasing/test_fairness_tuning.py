"""FAIRRET and FAIRTORCH: cross-entropy plus a loss of `helpers.losses`."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.bias.statistics import PositiveRate
from helpers.debiasing.fairret import fairret, with_fairness
from helpers.debiasing.fairtorch import fairtorch
from helpers.debiasing.finetune import finetune
from helpers.losses import DemographicParityLoss, EqualizedOddsLoss, MovingStatistic, NormLoss, named
from helpers.models import predict
from helpers.models.training import task_loss

QUICK = {"epochs": 1, "batch_size": 64}


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_without_strength_it_is_fine_tuning(planted, batch_of):
    problem = planted(n=300)
    batch = batch_of(problem)
    plain = finetune(problem.model, batch, **QUICK)
    assert same(fairret(problem.model, batch, strength=0.0, **QUICK), plain)
    assert same(fairtorch(problem.model, batch, alpha=0.0, **QUICK), plain)
    assert not same(fairret(problem.model, batch, **QUICK), plain)
    assert not same(fairtorch(problem.model, batch, **QUICK), plain)


@pytest.mark.parametrize("outputs, classes, groups", [(1, 2, 2), (2, 2, 3), (3, 3, 3)])
def test_the_loss_is_cross_entropy_and_the_term(planted, batch_of, outputs, classes, groups):
    problem = planted(outputs=outputs, classes=classes, groups=groups, n=300)
    batch = batch_of(problem)
    logits, target, group = batch.logits[:60], torch.tensor(batch.y[:60]), torch.tensor(batch.group[:60])
    one = logits[:, 1:] - logits[:, :1] if outputs == 2 else logits
    sens, label = F.one_hot(group, groups).float(), target[:, None].float()
    entropy = task_loss(logits, target)
    for loss in (named("kl", "equalized_odds"), lambda logit, sens, label: (logit * sens).sum()):
        term = with_fairness(loss, 0.7, problem.model, batch)(logits, target, group)
        assert torch.isclose(term, entropy + 0.7 * loss(one, sens, label))
    parity = EqualizedOddsLoss(range(groups), alpha=5)
    found = with_fairness(parity, 1.0, problem.model, batch)(logits, target, group)
    assert torch.isclose(found, entropy + parity(None, one, group, target))


def rates(model, problem):
    positive = predict(model, problem.loader()).y_score
    return np.array([positive[problem.group == g].mean() for g in range(problem.groups)])


@pytest.mark.parametrize(
    "function, options",
    [
        (fairret, {"statistic": "selection_rate", "strength": 10.0}),
        (fairret, {"loss": NormLoss(PositiveRate()), "strength": 3.0}),
        (fairtorch, {"loss": "demographic_parity", "alpha": 30.0}),
        (fairtorch, {"loss": DemographicParityLoss(range(3), alpha=30)}),
    ],
)
def test_what_is_to_be_equal_becomes_more_equal(planted, batch_of, function, options):
    problem = planted(groups=3, bias=0.97, n=600)
    before = np.ptp(rates(problem.model, problem))
    after = np.ptp(rates(function(problem.model, batch_of(problem), lr=3e-3, **options), problem))
    assert before > 0.2 and after < 0.35 * before


def test_the_loss_that_was_given_stays_as_it_was_and_is_forgotten_in_between(planted, batch_of):
    problem = planted(n=300)
    loss = NormLoss(MovingStatistic(PositiveRate())).eval()
    before = str(loss.state_dict())
    one, two = (fairret(problem.model, batch_of(problem), loss=loss, **QUICK) for _ in range(2))
    assert same(one, two) and not loss.training and str(loss.state_dict()) == before
    loss.train()(torch.randn(20, 1), torch.eye(2)[torch.arange(20) % 2], torch.ones(20, 1))  # it remembers another run
    assert same(fairret(problem.model, batch_of(problem), loss=loss, **QUICK), one)


def test_a_loss_of_other_groups_is_refused(planted, batch_of):
    with pytest.raises(ValueError, match="sensitive_classes: 2 given, but the data have 3 groups"):
        fairtorch(planted(groups=3).model, batch_of(planted(groups=3)), loss=EqualizedOddsLoss([0, 1]))
