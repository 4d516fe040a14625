"""What changes if only the protected attribute does: the same images with it changed, and the model's answers to both.

An audit compares people; a counterfactual audit compares each image with itself. A gap in an audit may come from anything
that goes with the attribute. A flip here can come only from what was changed in the picture.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from helpers.bias.columns import read_numbers
from helpers.bias.inputs import read_groups, read_people
from helpers.bias.people import mean_of_people, rate_of_people
from helpers.bias.scores import probabilities
from helpers.bias.settings import share, whole
from helpers.names import choose

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from torch import Tensor, nn

FLIP, GAINED, LOST, CHANGE = "flip_rate", "flips_to_positive", "flips_to_negative", "score_change"


@dataclass(frozen=True)
class Counterfactual:
    """Answers of a model to pairs of images that differ in one attribute.

    Attributes
    ----------
    by_group : DataFrame, one row a group (before the change) and statistic: `group, statistic, value, low, high, n`:

        `flip_rate` : share of images whose predicted class changes
        `flips_to_positive`, `flips_to_negative` : the two parts of it, as shares of the same images (two classes only)
        `score_change` : mean of the score after minus before; the score is the probability of the positive class, with
            three classes or more that of the class that was predicted before
    by_direction : the same by how the attribute was changed, in a column `direction` ("no -> yes"); empty where no
        direction is known
    overall : the same for all pairs together, without the column `group`
    effect : the same four columns for the attribute itself: `score_effect`, the mean of the score with it minus the score
        without it, whichever came first. Empty unless the attribute is yes/no.
    transitions : DataFrame `group, before, after, n`, predicted classes
    rows : DataFrame, one row a pair: `row` (its number in the data), `group, direction, before, after` (predicted
        classes), `score_before, score_after, flip`
    skipped : DataFrame `row, reason`, images of which there is no changed version
    attribute : what was changed; "" if that is not known
    people : number of people whom the intervals take as independent; None: every pair is taken for itself
    confidence : level of the intervals.  notes, method : what to know when reading them
    """

    by_group: pd.DataFrame
    by_direction: pd.DataFrame
    overall: pd.DataFrame
    effect: pd.DataFrame
    transitions: pd.DataFrame
    rows: pd.DataFrame
    skipped: pd.DataFrame
    attribute: str
    people: int | None
    confidence: float
    notes: tuple[str, ...]
    method: str

    def value(self, statistic: str, group: str | None = None) -> float:
        """Value of a statistic for a group (None: all pairs)."""
        return float(self._row(statistic, group)["value"])

    def interval(self, statistic: str, group: str | None = None) -> tuple[float, float]:
        """(low, high) of `value`."""
        row = self._row(statistic, group)
        return float(row["low"]), float(row["high"])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Flip rates by group and direction (`helpers.plots.counterfactual.flips`)."""
        from helpers.plots import counterfactual as plots  # here, so that the numbers do not load matplotlib

        return plots.flips(self, ax=ax)

    def _row(self, statistic: str, group: str | None) -> pd.Series:
        table = self.overall
        if group is not None:
            group = choose(str(group), dict.fromkeys(self.by_group["group"]), "group")
            table = self.by_group[self.by_group["group"] == group]
        names = list(table["statistic"])
        return table.iloc[names.index(choose(statistic, names, "statistic"))]


def flip_report(
    score_before: Any,
    score_after: Any,
    group: Any,
    *,
    threshold: float | None = 0.5,
    predicted: tuple[Any, Any] | None = None,
    identity: Any = None,
    direction: Any = None,
    with_attribute: Any = None,
    attribute: str = "",
    rows: Any = None,
    skipped: pd.DataFrame | None = None,
    confidence: float = 0.95,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Counterfactual:
    """How often the answer flips, and by how much the score moves, from paired outputs.

    Parameters
    ----------
    score_before, score_after : float (N,), probability of the positive class in [0, 1]; or (N, C), of each of C > 2 classes
    group : (N,) the group of each image before the change, or a DataFrame whose columns are crossed
    threshold : with scores (N,), a row is positive if its score is at least this
    predicted : predicted classes before and after, int (N,) each, in place of `threshold` or of the largest score
    identity : (N,), whose image it is. Images of one person tend to flip together: intervals then treat people, and not
        images, as independent.
    direction : (N,) strings, how the attribute was changed
    with_attribute : bool (N,), whether the attribute is there after the change, for `effect`
    attribute, rows, skipped : carried into the result
    confidence : level of the intervals
    groups, classes : names that integer codes stand for

    Returns
    -------
    Counterfactual

    Raises
    ------
    ValueError : lengths or shapes that differ, empty input, scores missing or outside [0, 1]; the argument is named.

    Notes
    -----
    Rates have Wilson's interval on the effective number of images, n / design effect. The design effect is the variance by
    people over the binomial one, at least 1; where all images or none flip it cannot be estimated, and the number of people
    is taken. As people are few, n is also multiplied by (z / t)^2 (Korn & Graubard, 1998). The mean change has Student's t
    interval with the cluster-robust standard error, C / (C - 1) sum_c (sum of c's residuals)^2 / n^2 for C people, and C - 1
    degrees of freedom; without `identity` this is the paired t interval. One image or person alone has the whole range.
    If the changes of a score are all equal, as those of a model that ignores the attribute, its interval has no width.

    Examples
    --------
    >>> report = flip_report([0.9, 0.8, 0.2, 0.6], [0.4, 0.7, 0.1, 0.3], ["a", "a", "b", "b"])
    >>> report.value("flip_rate"), report.value("flips_to_negative", "b"), round(report.value("score_change"), 3)
    (0.5, 0.5, -0.25)
    """
    before, after = _scores(score_before, "score_before"), _scores(score_after, "score_after")
    if before.shape != after.shape:
        raise ValueError(f"score_after: shape {before.shape}, that of score_before, expected, {after.shape} given")
    n = len(before)
    if not n:
        raise ValueError("score_before: empty; at least one pair is needed")
    share(confidence, "confidence")
    binary = before.ndim == 1
    names = _class_names(classes, 2 if binary else before.shape[1])
    was, now = _predicted(before, after, threshold, predicted, len(names))
    codes, levels = read_groups(group, groups)
    _fits(n, group=codes, identity=identity, direction=direction, with_attribute=with_attribute, rows=rows)
    cluster = np.arange(n)
    if identity is not None:
        cluster = read_people(identity)[0]
    cluster = np.unique(cluster, return_inverse=True)[1]

    first = before if binary else np.take_along_axis(before, was[:, None], 1)[:, 0]
    then = after if binary else np.take_along_axis(after, was[:, None], 1)[:, 0]
    columns = {FLIP: was != now}
    if binary:
        columns |= {GAINED: now > was, LOST: now < was}
    columns[CHANGE] = then - first

    def report(mine: np.ndarray) -> list[tuple]:
        return [(name, *_summary(name, column[mine], cluster[mine], confidence), int(mine.sum()))
                for name, column in columns.items()]  # fmt: skip

    def table(key: str, labels: np.ndarray, order: Iterable[str]) -> pd.DataFrame:
        found = [(name, *row) for name in order if (labels == name).any() for row in report(labels == name)]
        return pd.DataFrame(found, columns=[key, "statistic", "value", "low", "high", "n"])

    who = np.array(levels, dtype=object)[codes]
    how = np.full(n, "", dtype=object) if direction is None else np.array([str(each) for each in direction], dtype=object)
    predicted_names = np.array(names, dtype=object)
    pairs = pd.DataFrame(
        {
            "row": np.arange(n) if rows is None else np.asarray(rows),
            "group": who,
            "direction": how,
            "before": predicted_names[was],
            "after": predicted_names[now],
            "score_before": first,
            "score_after": then,
            "flip": was != now,
        }
    )
    effect = []
    if with_attribute is not None and binary:
        signed = np.where(np.asarray(with_attribute, dtype=bool), 1, -1) * (then - first)
        effect = [("score_effect", *_summary(CHANGE, signed, cluster, confidence), n)]
    overall = report(np.ones(n, dtype=bool))
    skipped = pd.DataFrame({"row": [], "reason": []}) if skipped is None else skipped
    people = None if identity is None else int(cluster.max()) + 1
    numbers = ["statistic", "value", "low", "high", "n"]
    return Counterfactual(
        by_group=table("group", who, levels),
        by_direction=table("direction", how, [] if direction is None else sorted(set(how))),
        overall=pd.DataFrame(overall, columns=numbers),
        effect=pd.DataFrame(effect, columns=numbers),
        transitions=pairs.groupby(["group", "before", "after"], sort=True).size().rename("n").reset_index(),
        rows=pairs,
        skipped=skipped,
        attribute=attribute,
        people=people,
        confidence=confidence,
        notes=tuple(_notes(codes, levels, cluster, skipped, attribute)),
        method=(
            f"{confidence:.0%} intervals: Wilson for rates, paired t for the change of score"
            + (f"; {people} people, not {n} images, are taken for independent." if people is not None else ".")
        ),
    )


def counterfactual(
    model: nn.Module,
    faces: Any,
    attribute: str | None = None,
    *,
    value: Any = None,
    indices: Sequence[int] | None = None,
    n: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    confidence: float = 0.95,
    progress: bool = False,
) -> Counterfactual:
    """Redraw each face with one attribute changed and nothing else, and compare the model's answers.

    Parameters
    ----------
    model : nn.Module, images -> logits; one with `needs_group = True` is told the group that the changed image belongs to
    faces : data set with `counterfactual(i, attribute, value)`, such as `load_faces("illustrated")`
    attribute : what to change; None: the protected attribute
    value : the new value; None: the next one (the other one, of a yes/no attribute). Faces that have it already are skipped.
    indices : rows to redraw; None: all, or `n` random ones
    n : how many rows, drawn without replacement by `seed`; redrawing takes some milliseconds a face
    batch_size : images a pass, and redrawn at a time
    device : the model's own by default
    confidence : level of the intervals
    progress : show a bar

    Returns
    -------
    Counterfactual; groups are those of the faces as they were. Faces whose style has no drawing for the attribute, and those
    in which it cannot be seen (hair under a head covering), are in `skipped`. With an `identity` column the intervals take
    people, not images, as independent.

    Raises
    ------
    ValueError : `faces` cannot be redrawn; several protected attributes and none named; an unknown attribute or value; no
        face can be redrawn; `indices` and `n` together, or outside the data set.
    """
    from helpers.data.styles import ATTRIBUTES  # here, so that statistics alone load neither faces nor the model zoo
    from helpers.models.prediction import predict

    redraw = getattr(faces, "counterfactual", None)
    if redraw is None:
        raise ValueError(
            f"faces: {type(faces).__name__} cannot redraw its images; give pairs of images to `counterfactual_pairs`"
        )
    if attribute is None:
        if not isinstance(faces.protected, str):
            raise ValueError(f"attribute: name one of the protected attributes, {', '.join(faces.protected)}")
        attribute = faces.protected
    attribute = choose(attribute, ATTRIBUTES, "attribute")
    rows = _chosen(faces, indices, n, seed)
    present, wanted = _values(faces.table, attribute, ATTRIBUTES[attribute], value, rows)
    same = np.array([now == new for now, new in zip(present, wanted, strict=True)], dtype=bool)
    skipped = [(int(row), f"{attribute} is {now!r} already") for row, now in zip(rows[same], present[same], strict=True)]
    rows, present, wanted = rows[~same], present[~same], wanted[~same]
    if not len(rows):
        raise ValueError(f"value: every face chosen has {attribute} = {value!r} already; nothing would change")

    cannot = _undrawable(faces, rows, attribute)
    skipped += [(int(row), cannot[row]) for row in rows if row in cannot]
    able = np.array([row not in cannot for row in rows], dtype=bool)
    if not able.any():
        raise ValueError(f"attribute: no face chosen can be redrawn; {skipped[-1][1]}")
    rows, present, wanted = rows[able], present[able], wanted[able]

    original = faces.subset(rows)
    changed_group = _changed_groups(original, attribute, wanted)

    hidden = np.zeros(len(rows), dtype=bool)

    def redrawn() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        import torch

        for start in range(0, len(rows), batch_size):
            part = slice(start, start + batch_size)
            images = [redraw(int(row), attribute, new) for row, new in zip(rows[part], wanted[part], strict=True)]
            images = torch.stack(images)
            hidden[part] = (images == original[part][0]).flatten(1).all(1).numpy()
            yield images, torch.from_numpy(original.targets[part]), torch.from_numpy(changed_group[part])

    options = {"device": device, "batch_size": batch_size, "progress": progress}
    before = predict(model, original, **options)
    after = predict(model, _Batches(redrawn, -(-len(rows) // batch_size), faces.classes), **options)
    reason = f"{attribute} cannot be seen in this picture: redrawn, it is the same"
    skipped += [(int(row), reason) for row in rows[hidden]]
    if hidden.all():
        raise ValueError(f"attribute: no face chosen can be redrawn; {reason}")
    seen = np.flatnonzero(~hidden)
    rows, present, wanted = rows[seen], present[seen], wanted[seen]
    flags = all(isinstance(each, bool | np.bool_) for each in [*present, *wanted])
    said = (lambda each: "yes" if each else "no") if flags else str
    return flip_report(
        before.y_score[seen],
        after.y_score[seen],
        original.group[seen],
        predicted=(before.y_pred[seen], after.y_pred[seen]),
        identity=original.table["identity"].to_numpy()[seen] if "identity" in original.table else None,
        direction=[f"{said(now)} -> {said(new)}" for now, new in zip(present, wanted, strict=True)],
        with_attribute=wanted.astype(bool) if flags else None,
        attribute=attribute,
        rows=rows,
        skipped=pd.DataFrame(skipped, columns=["row", "reason"]),
        confidence=confidence,
        groups=faces.groups,
        classes=faces.classes,
    )


def counterfactual_pairs(
    model: nn.Module,
    before: Any,
    after: Any,
    group: Any = None,
    *,
    group_after: Any = None,
    identity: Any = None,
    direction: Any = None,
    attribute: str = "",
    batch_size: int = 256,
    device: str | torch.device | None = None,
    confidence: float = 0.95,
    groups: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    progress: bool = False,
) -> Counterfactual:
    """The same for pairs of images of your own: photographs edited by hand or by a generative model, or taken twice.

    Parameters
    ----------
    model : as in `counterfactual`
    before, after : image i of one belongs with image i of the other: float (N, 3, H, W) in [0, 1], or loaders of such
        batches, alone or in triples with target and group, that do not shuffle
    group : (N,) group of each image before the change; None: what the loader `before` says
    group_after : (N,) codes for a model with `needs_group`, as `group`; None: what the loader `after` says, else `group`
    identity, direction, attribute, confidence, groups, classes : as in `flip_report`
    batch_size, device, progress : as in `counterfactual`; a loader has its own batches

    Returns
    -------
    Counterfactual

    Raises
    ------
    ValueError : the two do not hold equally many images, a loader shuffles, no group is given; as `flip_report`.

    Notes
    -----
    The effect that is measured is that of the edit, all of it: an edit that also changes the light, the sharpness or the
    background is charged to the attribute. Compare with pairs edited in a way that should not matter.
    """
    from helpers.models.prediction import predict

    options = {"device": device, "batch_size": batch_size, "progress": progress}
    own = None if group is None else read_groups(group, groups)[0]
    other = own if group_after is None else read_groups(group_after, groups)[0]
    first = predict(model, _stream(before, "before", own, batch_size), **options)
    second = predict(model, _stream(after, "after", other, batch_size), **options)
    if len(first.y_pred) != len(second.y_pred):
        raise ValueError(f"after: {len(second.y_pred)} images given, but before has {len(first.y_pred)}")
    if group is None:
        if (first.group < 0).any():
            raise ValueError("group: none given, and the batches of `before` hold images only")
        group = first.group
    return flip_report(
        first.y_score, second.y_score, group, predicted=(first.y_pred, second.y_pred), identity=identity,
        direction=direction, attribute=attribute, confidence=confidence, groups=groups, classes=classes,
    )  # fmt: skip


class _Batches:
    """A stream of triples that knows its length and is not indexed, as `predict` takes loaders."""

    def __init__(self, make, length: int, classes: tuple[str, ...] | None = None):
        self._make, self._length, self.classes = make, length, classes

    def __len__(self) -> int:
        return self._length

    def __iter__(self):
        return self._make()


def _stream(images: Any, argument: str, group: np.ndarray | None, batch_size: int) -> _Batches:
    """Tensors, or a loader of tensors or of triples, as triples; group -1 where nobody says which."""
    import torch
    from torch.utils.data import RandomSampler

    if isinstance(images, torch.Tensor | np.ndarray):
        images = torch.as_tensor(images)
        if images.dim() != 4:
            raise ValueError(f"{argument}: images (N, 3, H, W) expected, shape {tuple(images.shape)} given")
        source: Any = images.split(batch_size) if len(images) else []
    elif hasattr(images, "loader"):
        source = images.loader(batch_size=batch_size)
    else:
        source = images
    sampler = getattr(source, "sampler", None)
    # A data set's own loader has a sampler of batches around the one that gives the order.
    if isinstance(sampler, RandomSampler) or isinstance(getattr(sampler, "sampler", None), RandomSampler):
        raise ValueError(f"{argument}: the loader shuffles, so its images could not be paired; shuffle=False is needed")
    try:
        length = len(source)
    except TypeError:
        raise ValueError(f"{argument}: {type(images).__name__} given; a tensor (N, 3, H, W) or a loader expected") from None
    if not length:
        raise ValueError(f"{argument}: empty; at least one image is needed")

    def make():
        start = 0
        for batch in source:
            alone = isinstance(batch, torch.Tensor)
            pixels = batch if alone else batch[0]
            end = start + len(pixels)
            if group is not None:
                if end > len(group):
                    raise ValueError(f"group: {len(group)} rows given, but {argument} has more images")
                codes = torch.from_numpy(group[start:end])
            else:
                codes = batch[2] if not alone and len(batch) == 3 else torch.full((len(pixels),), -1)
            # The target plays no part in a flip; 0 is a class of every model.
            yield pixels, torch.zeros(len(pixels), dtype=torch.int64), codes
            start = end
        if group is not None and start != len(group):
            raise ValueError(f"group: {len(group)} rows given, but {argument} has {start} images")

    return _Batches(make, length)


def _chosen(faces: Any, indices: Sequence[int] | None, n: int | None, seed: int) -> np.ndarray:
    if indices is not None and n is not None:
        raise ValueError("indices: give either the rows or their number n, not both")
    if n is not None:
        whole(n, "n")
        return np.sort(np.random.default_rng(seed).permutation(len(faces))[:n])
    if indices is None:
        return np.arange(len(faces))
    rows = np.asarray(indices)
    if rows.dtype == bool and rows.shape == (len(faces),):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in "iu":
        raise ValueError(f"indices: row numbers expected, {indices!r} given")
    outside = rows[(rows < -len(faces)) | (rows >= len(faces))]
    if len(outside):
        raise ValueError(f"indices: {outside[0]} is outside the {len(faces)} images")
    return rows % len(faces)


def _values(
    table: pd.DataFrame, attribute: str, known: tuple, value: Any, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The attribute's value in each row, and the one it is to get."""
    if value is not None and value not in known:
        raise ValueError(f"value: {attribute} cannot be {value!r}; accepted: {', '.join(map(str, known))}")
    present = table[attribute].to_numpy(dtype=object)[rows]
    wanted = np.empty(len(rows), dtype=object)
    for k, each in enumerate(present):
        wanted[k] = known[(known.index(each) + 1) % len(known)] if value is None else known[known.index(value)]
    return present, wanted


def _undrawable(faces: Any, rows: np.ndarray, attribute: str) -> dict[int, str]:
    """Why a row cannot be redrawn, for those that cannot: a matter of the style, so each style is asked once."""
    reason: dict[str, str] = {}
    styles = faces.table["style"].to_numpy()[rows]
    for style in dict.fromkeys(styles):
        row = int(rows[np.flatnonzero(styles == style)[0]])
        try:
            faces.counterfactual(row, attribute)
        except ValueError as error:
            reason[style] = str(error).replace(f" of image {row}", "")
    return {int(row): reason[style] for row, style in zip(rows, styles, strict=True) if style in reason}


def _changed_groups(original: Any, attribute: str, wanted: np.ndarray) -> np.ndarray:
    """The codes of the groups that the changed faces belong to, int64 (n,)."""
    changed = original.subset(np.arange(len(original)))
    changed.table[attribute] = pd.Series(list(wanted), index=changed.table.index)
    return changed.relabel().group


def _scores(scores: Any, argument: str) -> np.ndarray:
    scores = read_numbers(scores, argument).astype(np.float64)
    if scores.ndim not in (1, 2) or (scores.ndim == 2 and scores.shape[1] < 3):
        raise ValueError(
            f"{argument}: the positive class's probability (N,), or (N, C) of three classes or more, expected; "
            f"{scores.shape} given"
        )
    return probabilities(scores, argument)


def _class_names(classes: Sequence[str] | None, number: int) -> tuple[str, ...]:
    if classes is None:
        return ("negative", "positive") if number == 2 else tuple(str(k) for k in range(number))
    if len(classes) != number:
        raise ValueError(f"classes: {number} names expected, {list(classes)} given")
    return tuple(str(name) for name in classes)


def _predicted(
    before: np.ndarray, after: np.ndarray, threshold: float | None, predicted: tuple[Any, Any] | None, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    if predicted is None:
        if before.ndim == 2:
            return before.argmax(1), after.argmax(1)
        if not isinstance(threshold, numbers.Real) or not np.isfinite(threshold):
            raise ValueError(f"threshold: a number expected, {threshold!r} given; or give the `predicted` classes")
        return (before >= threshold).astype(np.int64), (after >= threshold).astype(np.int64)
    if not isinstance(predicted, tuple | list) or len(predicted) != 2:
        given = f"{len(predicted)} columns" if isinstance(predicted, tuple | list) else type(predicted).__name__
        raise ValueError(f"predicted: the classes before and after expected, {given} given")
    codes = []
    for each in predicted:
        each = np.asarray(each.detach().cpu() if hasattr(each, "detach") else each)
        fits = each.shape == before.shape[:1] and each.dtype.kind in "iub"
        if not fits or not 0 <= each.min() <= each.max() < classes:
            raise ValueError(f"predicted: two columns of {len(before)} codes from 0 to {classes - 1} expected, {each!r} given")
        codes.append(each.astype(np.int64))
    return codes[0], codes[1]


def _fits(n: int, **columns: Any) -> None:
    for argument, column in columns.items():
        if column is not None and len(column) != n:
            raise ValueError(f"{argument}: {len(column)} rows given, but score_before has {n}")


def _summary(name: str, column: np.ndarray, cluster: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """Mean of a column over pairs with its interval, clusters taken as independent."""
    return (mean_of_people if name == CHANGE else rate_of_people)(column, cluster, confidence)


def _notes(codes: np.ndarray, levels: tuple[str, ...], cluster: np.ndarray, skipped: pd.DataFrame, attribute: str):
    if len(skipped):
        yield f"{len(skipped)} images have no version with {attribute or 'the attribute'} changed; they are listed in `skipped`."
    present = np.bincount(codes, minlength=len(levels))
    absent = [name for name, n in zip(levels, present, strict=True) if n == 0]
    if absent:
        yield f"No pair belongs to: {'; '.join(absent)}."
    for g, name in enumerate(levels):
        people = len(np.unique(cluster[codes == g]))
        if 0 < people < 20:
            yield f"{name}: {present[g]} pairs of {people} independent people or images; the intervals are rough."
