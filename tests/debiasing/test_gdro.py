import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from helpers.debiasing.gdro import WorstCells
from helpers.debiasing.tuning import losses_of


def test_weights_and_loss_are_those_of_the_algorithm_written_out():
    rng, sizes, eta, C = np.random.default_rng(0), [40, 3, 0, 11, 7, 25], 0.3, 1.5
    worst = WorstCells(torch.tensor(sizes).float(), eta, C)
    q = [1 / 5 if n else 0.0 for n in sizes]
    for _ in range(12):
        cell = rng.choice([0, 1, 3, 4, 5], 6)  # of six images, some cells have none
        losses = rng.exponential(size=6)
        means = {g: losses[cell == g].mean() for g in set(cell.tolist())}
        q = [q[g] * math.exp(eta * (means[g] + C / math.sqrt(sizes[g]))) if g in means else q[g] for g in range(6)]
        q = [each / sum(q) for each in q]
        given = torch.tensor(losses, requires_grad=True)
        loss = worst(given, torch.tensor(cell))
        assert loss.item() == pytest.approx(sum(q[g] * mean for g, mean in means.items()), rel=1e-5)
        np.testing.assert_allclose(worst.q.numpy(), q, rtol=1e-4)
        (gradient,) = torch.autograd.grad(loss, given)
        np.testing.assert_allclose(gradient.numpy(), [q[g] / (cell == g).sum() for g in cell], rtol=1e-4)
    assert worst.q[2] == 0


def test_the_worst_cell_ends_up_with_all_the_weight_and_without_steps_all_count_equally():
    cell, losses = torch.arange(4), torch.tensor([0.2, 0.9, 0.3, 0.1])
    worst, even = WorstCells(torch.full((4,), 9.0), 0.5), WorstCells(torch.full((4,), 9.0), 1e-12)
    for _ in range(60):
        loss, mean = worst(losses, cell), even(losses, cell)
    assert worst.q.argmax() == 1 and loss.item() == pytest.approx(0.9, abs=1e-3)
    assert mean.item() == pytest.approx(losses.mean().item())


def test_the_adjustment_favours_small_cells():
    worst = WorstCells(torch.tensor([4.0, 100.0]), 0.1, 2.0)
    worst(torch.ones(2), torch.arange(2))
    assert (worst.q[0] / worst.q[1]).item() == pytest.approx(math.exp(0.1 * 2.0 * (1 / 2 - 1 / 10)), rel=1e-5)


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_losses_of_rows_are_cross_entropies(outputs):
    logits, target = torch.randn(7, outputs), torch.arange(7) % max(2, outputs)
    both = logits if outputs > 1 else torch.cat([torch.zeros(7, 1), logits], 1)
    torch.testing.assert_close(losses_of(logits, target), -F.log_softmax(both, 1)[torch.arange(7), target])
