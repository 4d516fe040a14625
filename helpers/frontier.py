"""What fairness losses cost: one model a loss and strength, each judged by accuracy and gap on the same images."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import nn
from tqdm.auto import tqdm

import helpers
from helpers.bias import Comparison, compare
from helpers.data.cache import cache_dir
from helpers.files import whole
from helpers.models import predict, resume

X, Y = "balanced_accuracy", "equalized_odds"
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Frontier:
    """Models trained with fairness losses, side by side.

    Attributes
    ----------
    table : DataFrame, one row a model: `loss, strength, epochs, seed`, then `balanced_accuracy, equalized_odds,
        demographic_parity` of the test images, each with `_low` and `_high`, and the first three as `validation_…`
    y_true, group : dict of split ("validation", "test") to int64 (N,)
    y_pred : dict of split to int64 (models, N), rows as in `table`
    failed : DataFrame, one row a training that broke off: `loss, strength, seed, error`
    """

    table: pd.DataFrame
    y_true: dict[str, np.ndarray]
    group: dict[str, np.ndarray]
    y_pred: dict[str, np.ndarray]
    failed: pd.DataFrame

    def compare(self, first: int, second: int) -> Comparison:
        """The models of two rows of `table` on the same test images; see `helpers.bias.compare`."""
        names = tuple(f"{row.loss} x {row.strength:g} [{at}]" for at in (first, second) for row in [self.table.loc[at]])
        pred = self.y_pred["test"]
        return compare(self.y_true["test"], pred[first], pred[second], self.group["test"], names=names)

    def best(self, accuracy: float, losses: Sequence[str] | None = None, gap: str = Y) -> int | None:
        """The row with the least validation gap among those whose validation balanced accuracy is at least `accuracy`.

        Chosen on validation images, so that the test images remain a fair judge. None if no model is that accurate.
        """
        rows = self.table if losses is None else self.table[self.table.loss.isin(losses)]
        rows = rows[rows[f"validation_{X}"] >= accuracy]
        return None if rows.empty else int(rows[f"validation_{gap}"].idxmin())

    def plot(self, gap: str = Y, **options):
        """Accuracy against gap; see `helpers.plots.losses.frontier`."""
        from helpers.plots import losses

        return losses.frontier(self.table, gap=gap, **options)


def sweep(
    problem,
    losses: Mapping[str, Callable | None],
    strengths: Mapping[str, Sequence[float]] | Sequence[float],
    *,
    epochs: int = 1,
    lr: float = 1e-3,
    batch_size: int = 64,
    seeds: Sequence[int] = (0,),
    progress: bool = True,
) -> Frontier:
    """Train one model a loss, strength and seed, all from the same start, and judge them on the same images.

    Predictions are kept in the cache: a sweep that was interrupted goes on where it stopped.

    Parameters
    ----------
    problem : helpers.problem.Problem, whose model is the start of every training and whose training faces are trained on
    losses : dict of name to loss, as `helpers.train` takes it; None trains without one (its strengths are not used)
    strengths : list of float for all losses, or dict of name to list
    epochs, lr, batch_size : of each training
    seeds : of the order of the images
    progress : bool, show a bar

    Returns
    -------
    Frontier

    Raises
    ------
    ValueError : a loss without strengths; and as `helpers.train`.
    """
    runs = []
    for name, loss in losses.items():
        own = strengths.get(name) if isinstance(strengths, Mapping) else strengths
        if loss is not None and not own:
            raise ValueError(f"strengths: none given for {name!r}")
        runs += [(name, loss, float(strength), seed) for strength in (own if loss is not None else (0.0,)) for seed in seeds]
    kept = {
        "train": resume.fingerprint(problem.train.images, problem.train.targets),
        "model": resume.weights_fingerprint(problem.model),
        "epochs": epochs,
        "lr": lr,
        "batch": batch_size,
    }
    rows, failed, predictions = [], [], {split: [] for split in SPLITS}
    sets = {split: getattr(problem, split) for split in SPLITS}
    truth = {}
    for name, loss, strength, seed in tqdm(runs, "sweep", unit="model", disable=not progress):
        key = kept | {
            "loss": _text(loss),
            "strength": strength,
            "seed": seed,
            "images": [resume.fingerprint(each.images) for each in sets.values()],
        }
        path = cache_dir("frontier") / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz"
        if not path.is_file():
            try:
                model = helpers.train(
                    problem.train,
                    problem.model,
                    epochs=epochs,
                    lr=lr,
                    batch_size=batch_size,
                    seed=seed,
                    fairness=copy.deepcopy(loss),
                    strength=strength,
                    progress=False,
                )
            except (FloatingPointError, RuntimeError) as error:
                failed.append({"loss": name, "strength": strength, "seed": seed, "error": str(error).splitlines()[0]})
                continue
            found = {split: predict(model, data) for split, data in sets.items()}
            with whole(path) as part, open(part, "wb") as file:
                np.savez_compressed(file, **{split: each.y_pred for split, each in found.items()})
        with np.load(path) as saved:
            pred = {split: saved[split] for split in SPLITS}
        for split in SPLITS:
            predictions[split].append(pred[split])
            truth[split] = np.asarray(sets[split].targets), np.asarray(sets[split].group)
        rows.append({"loss": name, "strength": strength, "epochs": epochs, "seed": seed} | _judged(pred, truth, sets))
    return Frontier(
        pd.DataFrame(rows),
        {split: truth[split][0] for split in SPLITS},
        {split: truth[split][1] for split in SPLITS},
        {split: np.stack(predictions[split]) for split in SPLITS},
        pd.DataFrame(failed, columns=["loss", "strength", "seed", "error"]),
    )


def _text(loss) -> str:
    return "none" if loss is None else f"{type(loss).__module__}.{loss}" if isinstance(loss, nn.Module) else repr(loss)


def _judged(pred: dict, truth: dict, sets: dict) -> dict:
    row = {}
    for split in ("test", "validation"):
        result = helpers.audit(truth[split][0], pred[split], truth[split][1], groups=sets[split].groups)
        before = "" if split == "test" else "validation_"
        for name, value, interval in (
            (X, result.value, result.interval),
            *((gap, result.gap, result.gap_interval) for gap in (Y, "demographic_parity")),
        ):
            row[before + name] = value(name)
            if split == "test":
                row[f"{name}_low"], row[f"{name}_high"] = interval(name)
    return row
