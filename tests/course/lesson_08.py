import warnings

import numpy as np
import torch

from helpers import course, losses
from helpers.bias.statistics import ErrorRate, FalsePositiveRate, LinearFractionalStatistic, PositiveRate, TruePositiveRate
from tests.course.tries import Tries

batch = course.case("08-1")
logit, sens, label = batch["logit"], batch["sens"], batch["label"]
rates = course.case("08-2").groupby("group")["y_true"].mean()


class WeightedError(LinearFractionalStatistic):
    missed, invented, by_weight = 2, 1, False

    def num_intercept(self, label):
        return self.missed * label

    def num_slope(self, label):
        return self.invented * (1 - label) - self.missed * label

    def denom_intercept(self, label):
        return 1 + label if self.by_weight else 1.0

    def denom_slope(self, label):
        return 0.0


class Plain(WeightedError):
    missed = 1


class Turned(WeightedError):
    missed, invented = 1, 2


class ByWeight(WeightedError):
    by_weight = True


class Thrice(WeightedError):
    missed = 3


def norm(statistic, *inputs, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # probabilities where logits are expected: the mistake of exercise 08-1
        return losses.NormLoss(statistic)(*inputs, **options)


TRIES = {
    "08-1": Tries(
        [norm(FalsePositiveRate(), logit, sens, label), norm(FalsePositiveRate(), logit, sens, label).item()],
        [
            (norm(PositiveRate(), logit, sens).item(), "positive rate; it does not look at labels"),
            (norm(TruePositiveRate(), logit, sens, label).item(), "true positive rate"),
            (norm(FalsePositiveRate(), logit.sigmoid(), sens, label).item(), "probabilities of the logits first"),
            (norm(FalsePositiveRate(), (logit > 0).float(), sens, label, pred_as_logit=False).item(), "decisions"),
            (torch.zeros(2), "2 came"),
        ],
    ),
    "08-2": Tries(
        [rates.max() - rates.min()],
        [
            (0, "equalized-odds gap"),
            (rates["A"] - rates["B"], "first two groups"),
            (rates["B"] - rates["C"], "two of the groups"),
            (rates.max() - course.case("08-2")["y_true"].mean(), "with all faces"),
            (rates["C"] / rates["A"], "ratio"),
        ],
    ),
    "08-3": Tries(["B"], [("A", "It is fair"), ("C", "The loss sees it"), ("D", "The loss sees it"), (["B"], "One of")]),
    "08-4": Tries(
        [WeightedError, WeightedError()],
        [
            (Plain(), "plain error rate"),
            (
                ErrorRate,
                "subclass of LinearFractionalStatistic" if not issubclass(ErrorRate, LinearFractionalStatistic) else "plain",
            ),
            (Turned, "invented smile counts twice"),
            (ByWeight, "sum of the weights"),
            (Thrice, "not the mean of"),
            (np.mean, "subclass of LinearFractionalStatistic"),
            (LinearFractionalStatistic, "TypeError"),
        ],
    ),
}
