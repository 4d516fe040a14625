"""Accuracy against gap, for every fairness loss, statistic and strength, ours and those of fairret and FairTorch.

    python benchmarks/frontier.py [--peers] [--dataset illustrated|orl] [--seeds 0]
    python benchmarks/frontier.py --draw [--dataset illustrated|orl]

Every model starts from the plainly trained one of the problem and is trained for one more epoch with the loss, so that all have
the same budget. Which model of a library is held against another's is chosen on validation images; figures are of the test
images. Writes benchmarks/results/frontier[-orl].csv, .txt and .png; runs come from the cache if they were made before, and with
--draw nothing is trained: the figures are drawn again from the csv.

fairret is one of the dev extras. FairTorch asks for torch below 2: `pip install --no-deps fairtorch==0.1.2`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from helpers import losses
from helpers.bias.statistics import FalsePositiveRate, PositiveRate, StackedLinearFractionalStatistic, TruePositiveRate
from helpers.files import whole
from helpers.frontier import X, Y, sweep
from helpers.plots import losses as draw
from helpers.plots import use
from helpers.problem import load_problem

RESULTS = Path(__file__).resolve().parent / "results"
GAPS = {"PR": "demographic_parity", "EO": "equalized_odds"}


def odds() -> StackedLinearFractionalStatistic:
    return StackedLinearFractionalStatistic(TruePositiveRate(), FalsePositiveRate())


def ours() -> tuple[dict, dict]:
    """Every loss of `helpers.losses` for the positive rate (PR) and for equalized odds (EO), and the strengths of each."""
    found, strengths = {"plain": None}, {}
    for short, statistic in (("PR", PositiveRate), ("EO", odds)):
        for name, loss, own in (
            ("Norm", losses.NormLoss(statistic()), (0.1, 0.3, 1.0)),
            ("KL", losses.KLProjectionLoss(statistic()), (0.3, 1.0, 3.0, 10.0)),
            ("JensenShannon", losses.JensenShannonProjectionLoss(statistic()), (1.0, 4.0, 12.0, 40.0)),
            ("Constraint", {"PR": losses.DemographicParityLoss, "EO": losses.EqualizedOddsLoss}[short](), (1.0, 3.0, 10.0, 30.0)),
            ("Unbiased", losses.UnbiasedSquareLoss(statistic()), (1.0, 3.0, 10.0)),
            ("Moving", losses.NormLoss(losses.MovingStatistic(statistic())), (0.1, 0.3, 1.0)),
            ("LSE", losses.LSELoss(statistic()), (0.3, 1.0, 3.0)),
            ("TotalVariation", losses.TotalVariationProjectionLoss(statistic()), (0.3, 1.0, 3.0)),
            ("SquaredEuclidean", losses.SquaredEuclideanProjectionLoss(statistic()), (1.0, 3.0, 10.0)),
            ("Norm inf", losses.NormLoss(statistic(), p=float("inf")), (0.3, 1.0, 3.0)),
            *((f"Lagrangian {gap}", losses.AugmentedLagrangianLoss(statistic(), gap), (1.0,)) for gap in (0.3, 0.1, 0.02)),
        ):
            found[f"{name} {short}"], strengths[f"{name} {short}"] = loss, own
    return found, strengths


def peers() -> tuple[dict, dict]:
    """The losses of fairret and FairTorch; those that are the same function as ours train the same model and are left out."""
    import fairret.loss
    import fairret.statistic
    import fairtorch

    found, strengths = {}, {}
    stack = fairret.statistic.StackedLinearFractionalStatistic(
        fairret.statistic.TruePositiveRate(), fairret.statistic.FalsePositiveRate()
    )
    for short, statistic in (("PR", fairret.statistic.PositiveRate()), ("EO", stack)):
        for name, own in (("KL", (0.3, 1.0, 3.0, 10.0)), ("JensenShannon", (1.0, 4.0, 12.0, 40.0))):
            loss = getattr(fairret.loss, f"{name}ProjectionLoss")(statistic)
            found[f"fairret {name} {short}"], strengths[f"fairret {name} {short}"] = Fairret(loss), own
        constraint = {"PR": fairtorch.DemographicParityLoss, "EO": fairtorch.EqualiedOddsLoss}[short]([0, 1])
        found[f"FairTorch {short}"], strengths[f"FairTorch {short}"] = FairTorch(constraint), (1.0, 3.0, 10.0, 30.0)
    return found, strengths


class Fairret(nn.Module):
    """Labels are handed on only to the statistics that take them."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss, self.takes = loss, 1 if "Stacked" in type(loss.statistic).__name__ else 0

    def forward(self, logit, sens, label):
        return self.loss(logit, sens, *(label,) * self.takes)

    def __deepcopy__(self, memo):  # its solver's problem cannot be copied, and is made at the first batch
        return Fairret(type(self.loss)(self.loss.statistic))

    def extra_repr(self) -> str:
        return type(self.loss.statistic).__name__


class FairTorch(nn.Module):
    """Its losses take the group's value instead of one-hot columns, and are the mean of nothing where a group has no image of a
    label: a batch without one is named, so that the model is not blamed for it."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.loss = loss
        self.loss.device = torch.device("cpu")

    def forward(self, logit, sens, label):
        value = self.loss(None, logit, sens.argmax(1), label)
        if value.isnan() and logit.isfinite().all():
            positive, every = (sens * label).sum(0).tolist(), sens.sum(0).tolist()
            cells = ", ".join(f"{of:g} + {n - of:g}" for of, n in zip(positive, every, strict=True))
            raise FloatingPointError(
                f"FairTorch's own loss is NaN at finite logits: it has no value for a group without images of one of the labels, "
                f"and this batch has, positive + negative by group, {cells}"
            )
        return value


def held_against(found, rivals, own) -> list[str]:
    """For every accuracy that a rival reaches: its least gap, ours at that accuracy, and the paired difference on test images."""
    lines = []
    for short, gap in GAPS.items():
        mine = [name for name in own if name.endswith(short)]
        for rival in [name for name in rivals if name.endswith(short)]:
            for at in found.table.index[found.table.loss == rival]:
                accuracy = found.table.loc[at, f"validation_{X}"]
                best = found.best(accuracy, mine, gap)
                if best is None:
                    lines.append(f"{rival:24} x {found.table.loc[at, 'strength']:<5g} no model of ours is as accurate")
                    continue
                row = found.compare(at, best).gaps.set_index("statistic").loc[gap]
                lines.append(
                    f"{rival:24} x {found.table.loc[at, 'strength']:<5g} balanced accuracy {found.table.loc[at, X]:.3f}, {gap} "
                    f"{row['first']:.3f}; ours {found.table.loc[best, 'loss']:20} {found.table.loc[best, X]:.3f}, "
                    f"{row['second']:.3f}: {row['change']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
                )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--dataset", default="illustrated", choices=["illustrated", "orl"])
    parser.add_argument("--draw", action="store_true", help="draw the results that are there, and train nothing")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    use()
    name = "frontier" if arguments.dataset == "illustrated" else f"frontier-{arguments.dataset}"
    if arguments.draw:
        figures(pd.read_csv(RESULTS / f"{name}.csv"), name)
        return
    problem = load_problem(arguments.dataset)
    own, strengths = ours()
    rivals, theirs = peers() if arguments.peers else ({}, {})
    first = dict(list(own.items())[:5])  # so that an interrupted run already has something to compare
    order = first | rivals | own
    batch = min(64, max(8, len(problem.train) // 8))
    found = sweep(problem, order, strengths | theirs, epochs=1, batch_size=batch, seeds=arguments.seeds)
    RESULTS.mkdir(exist_ok=True)
    with whole(RESULTS / f"{name}.csv") as part:
        found.table.to_csv(part, index=False, float_format="%.4f")
    lines = held_against(found, rivals, own)
    lines += [f"{row.loss:24} x {row.strength:<5g} broke off: {row.error}" for row in found.failed.itertuples()]
    print("\n".join(lines))
    if lines:
        with whole(RESULTS / f"{name}.txt") as part:
            part.write_text("\n".join(lines) + "\n")
    figures(found.table, name)


def figures(table: pd.DataFrame, name: str) -> None:
    """The frontiers of the losses that differ most, and of the rivals, for either gap."""
    there = list(table["loss"].unique())
    shown = [f"{kind} {short}" for short in GAPS for kind in ("Norm", "KL", "Constraint", "Unbiased")]
    shown = [kind for kind in shown if kind in there] + [kind for kind in there if kind.startswith(("fairret ", "FairTorch "))]
    for gap in (Y, "demographic_parity"):
        drawn = draw.frontier(table, gap=gap, losses=shown)
        with whole(RESULTS / f"{name}-{gap}.png") as part:
            drawn.savefig(part, bbox_inches="tight")


if __name__ == "__main__":
    main()
