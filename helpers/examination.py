"""Did it work, and how? What mitigation changed in the decisions, in the features, and in where the model looks.

An accuracy and a gap say whether a model got fairer. They do not say why: a method can have removed what tells the group, have
taught the model to ignore it, or have corrected the decisions afterwards. Three experiments on the same faces tell these apart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.attribution import attribute as explain
from helpers.attribution import evaluate
from helpers.attribution.evaluate import bootstrapped, interval
from helpers.attribution.explain import check_options
from helpers.attribution.method import find_method
from helpers.bias import counterfactual
from helpers.bias.people import change_of_rates
from helpers.bias.settings import share, whole
from helpers.data.sampling import spread
from helpers.debiasing.probe import LinearProbe
from helpers.debiasing.result import VANILLA, CorrectionResult, Results, to_frame
from helpers.debiasing.select import pareto_front
from helpers.debiasing.watch import Watch
from helpers.models import layers
from helpers.names import choose

PARTS = ("probe", "flips", "regions")
OF_ONE_MAP = ("RRF", "HRF", "MRR", "DET")
OF_A_CHANGE = ("ADR", "DIF", "RDDT")  # of maps before and after
OF_DECISIONS = ("DET", "RDDT")  # 1 or 0 for each image
N_BOOT = 1000
ALL = "all"  # the rows for all groups together
FLIPS = ("method", "group", "flip_rate", "low", "high", "change", "change_low", "change_high", "n")
PROBED = (
    "method", "layer", "accuracy", "low", "high", "before", "before_low", "before_high", "change", "change_low", "change_high",
    "chance", "n",
)  # fmt: skip
REGIONS = (
    "method", "region", "group", "score", "value", "low", "high", "n", "undefined", "before", "change", "change_low",
    "change_high",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Examination:
    """What several methods did to one model, on the same faces.

    Attributes
    ----------
    results : Results as given, but `audit`, `metrics` and `comparison` are those of these faces
    groups : DataFrame, one row a method, group and statistic: `method`, then as `Comparison.by_group`: `group, statistic,
        first, second, change, low, high, n, verdict`, the verdict "levels up", "levels down" or "within noise"
    front : DataFrame of `to_frame`, and `on_front`: no other model beats it in both numbers. A degenerate one never is.
    probe : DataFrame, one row a method: `layer` (where features were probed), `accuracy, low, high` of a cross-fitted linear
        probe for the group (mean over groups of the share recognised), `before, before_low, before_high` of the model as it was
        at the same layer, the paired `change, change_low, change_high`, `chance`, `n`
    flips : DataFrame, one row a method and group ("all": together): `flip_rate, low, high` of the decisions when only the
        attribute is redrawn, the paired `change, change_low, change_high` against the model as it was, `n`
    regions : DataFrame, one row a method, region, group and score: mean `value, low, high` over `n` images (`undefined` have
        none), and of RRF, HRF, MRR and DET the mean `before` and the paired `change, change_low, change_high`; ADR, DIF and
        RDDT are comparisons in themselves
    maps : dict of method to the maps (n, H, W) that were judged.  explained : int64 (n,), rows of their faces
    attribute : what was redrawn
    confidence : of all intervals
    notes : what was left out and why
    """

    results: Results
    groups: pd.DataFrame
    front: pd.DataFrame
    probe: pd.DataFrame
    flips: pd.DataFrame
    regions: pd.DataFrame
    maps: dict[str, Tensor] = field(repr=False)
    explained: np.ndarray = field(repr=False)
    attribute: str
    confidence: float
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row a method, for people: accuracy and gap, flips, what the probe reads, and the relevance on each region."""
        shown = self.front[["method"]].copy()
        columns = [
            ("balanced accuracy", self.front, "balanced_accuracy", "balanced_accuracy_low", "balanced_accuracy_high"),
            ("equalized-odds gap", self.front, "equalized_odds", "equalized_odds_low", "equalized_odds_high"),
            ("flips", self.flips[self.flips["group"] == ALL], "flip_rate", "low", "high"),
            ("group read from features", self.probe, "accuracy", "low", "high"),
        ]
        rrf = self.regions[(self.regions["group"] == ALL) & (self.regions["score"] == "RRF")]
        columns += [(f"relevance on {name}", rows, "value", "low", "high") for name, rows in rrf.groupby("region", sort=False)]
        for name, table, *values in columns:
            if len(table):
                cells = table.set_index("method")[values].reindex(shown["method"])
                shown[name] = [f"{v:.3f} [{a:.3f}, {b:.3f}]" if v == v else "–" for v, a, b in cells.to_numpy(float)]
        shown["predicts one class"] = np.where(self.front["degenerate"], "yes", "")
        return shown

    def __str__(self) -> str:
        return "\n".join([self.table().to_string(index=False), *self.notes])

    def _repr_html_(self) -> str:
        return self.table().to_html(index=False) + "".join(f"<p>{note}</p>" for note in self.notes)


def examine(
    results: Mapping[str, CorrectionResult | nn.Module],
    faces: Any,
    *,
    parts: str | Iterable[str] = "all",
    attribute: str | None = None,
    layer: str | None = None,
    masks: str | Sequence[str] | Mapping[str, np.ndarray | Tensor] | np.ndarray | Tensor | None = None,
    redrawn: int = 300,
    explained: int = 32,
    attribution: str = "saliency",
    folds: int = 5,
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Examination:
    """Ask of every mitigated model whether it worked, and how.

    Parameters
    ----------
    results : what `helpers.debias` returned, with the model as it was, "Vanilla", among them; or dict of name to module
    faces : FaceDataset that neither a model nor a method was fitted on: where an eraser was fitted, the probe is misled (see
        `helpers.debiasing.probe`). A loader of (image, target, group) that does not shuffle gives decisions and probe alone.
    parts : "all", or some of "probe", "flips" and "regions"; decisions are always compared
    attribute : what is redrawn, and whose pixels are the region; None: the protected attribute
    layer : where features are probed; None: what each edit puts out, or for a model whose weights or decisions were changed
        what the classifier is given (the penultimate layer)
    masks : the regions: names of attributes whose pixels the data set knows, or dict of name to bool (N, H, W), a mask for each
        of the faces; None: the pixels of `attribute`
    redrawn : faces that are redrawn, once for all models
    explained : faces whose maps are judged, taken from groups and classes in turn; the class explained is the annotated one
    attribution : a name of `helpers.attribution.methods()`; `saliency` is the fastest.  **options : of that method
    folds : parts of the probe's cross-fit
    confidence : of all intervals
    seed : of the faces chosen and of the folds
    progress : show bars

    Returns
    -------
    Examination

    Raises
    ------
    ValueError : before any long work, for results without "Vanilla", an unknown part, attribute, attribution method or option
        (with the nearest name), masks that do not fit, numbers out of range.

    Examples
    --------
    >>> results = helpers.debias(model, validation, ["LEACE", "DFR"], test_dataloader=test)  # doctest: +SKIP
    >>> helpers.examine(results, test).table()  # doctest: +SKIP
    """
    results = read_results(results)
    wanted = PARTS if isinstance(parts, str) and parts == "all" else [parts] if isinstance(parts, str) else list(parts)
    wanted = [choose(part, PARTS, "parts") for part in wanted]
    for number, name in ((redrawn, "redrawn"), (explained, "explained")):
        whole(number, name)
    whole(folds, "folds", least=2)
    share(confidence, "confidence")
    check_options(find_method(attribution, "auto"), dict(options))
    attribute = attribute_of(faces, attribute)
    regions = read_masks(faces, masks, attribute)
    maps, rows = {}, np.empty(0, np.int64)
    if "regions" in wanted and regions is not None:
        rows, known = explained_rows(faces, regions, explained, seed)

    notes = [f"{name} gave no model: {result.error}" for name, result in results.items() if result.model is None]
    able = {name: result for name, result in results.items() if result.model is not None}
    watch = Watch(able[VANILLA].model, faces, seed)
    judged, probed = Results(), {}
    for name, result in tqdm(results.items(), "decisions and features", disable=not progress):
        if result.model is None:
            judged[name] = result
            continue
        seen = watch(result.model, layer)
        judged[name] = watch.judge(result, seen.logits, confidence)
        if "probe" in wanted and seen.features is None:
            why = "PyTorch cannot see into it" if watch.opaque else f"it has no layer {seen.layer!r}"
            notes.append(f"probe: {name} is left out; {why}")
        elif "probe" in wanted:
            try:
                probed[name] = watch.probe(seen, folds, confidence)
            except ValueError as error:  # groups too small for a probe leave everything else to be examined
                notes.append(f"probe: {name} is left out; {error}")
    flips = regional = None
    models = {name: result.model for name, result in able.items()}
    if "flips" in wanted:
        if not hasattr(faces, "counterfactual"):
            notes.append(f"flips: {type(faces).__name__} cannot redraw its images; pairs go to `bias.counterfactual_pairs`")
        else:
            flips = flip_table(models, faces, attribute, redrawn, confidence, seed, progress)
    if "regions" in wanted:
        if regions is None:
            notes.append("regions: no masks are known of these images; give `masks`")
        else:
            maps, failed = all_maps(models, faces, rows, attribution, seed, progress, options)
            notes += failed
            regional = region_table(models[VANILLA], faces, rows, known, maps, confidence, seed)
    of_layer = [(name, place, *of_probe(after, before)) for name, (place, after, before) in probed.items()]
    return Examination(
        results=judged,
        groups=group_table(judged),
        front=front_table(judged),
        probe=pd.DataFrame(of_layer, columns=list(PROBED)),
        flips=pd.DataFrame(columns=list(FLIPS)) if flips is None else flips,
        regions=pd.DataFrame(columns=list(REGIONS)) if regional is None else regional,
        maps=maps,
        explained=rows,
        attribute=attribute,
        confidence=confidence,
        notes=tuple(notes),
    )


def read_results(results: Mapping[str, CorrectionResult | nn.Module]) -> Results:
    """Results by name, modules wrapped; ValueError unless the model as it was is among them."""
    if not isinstance(results, Mapping):
        raise ValueError(f"results: a dict of name to result or module expected, {type(results).__name__} given")
    read = Results()
    for name, result in results.items():
        if isinstance(result, nn.Module):
            result = CorrectionResult(str(name), copy.deepcopy(result).eval(), seconds=np.nan)  # the caller's keeps its mode
        if not isinstance(result, CorrectionResult):
            raise ValueError(f"results[{name!r}]: {type(result).__name__} given; a result of `debias` or a module expected")
        read[str(name)] = result
    if VANILLA not in list(read) or read[VANILLA].model is None:
        given = ", ".join(read) or "none"
        raise ValueError(f"results: {VANILLA!r}, the model as it was, is needed beside {given}; {{'Vanilla': model, **results}}")
    return read


def attribute_of(faces: Any, attribute: str | None) -> str:
    """The attribute to redraw, as the drawn faces spell it; "" where nothing can be redrawn and none is named."""
    if not hasattr(faces, "counterfactual"):
        return attribute or ""
    from helpers.data.styles import ATTRIBUTES  # only drawn faces have a fixed list of attributes

    if attribute is None and not isinstance(faces.protected, str):
        raise ValueError(f"attribute: name one of the protected attributes, {', '.join(faces.protected)}")
    return choose(attribute or faces.protected, ATTRIBUTES, "attribute")


def of_probe(after: LinearProbe, before: LinearProbe) -> tuple:
    """The numbers of a row of `Examination.probe`."""
    change = (np.nan,) * 3 if after is before else after.change(before)
    numbers = [(each.accuracy, each.low, each.high) for each in (after, before)]
    return (*numbers[0], *numbers[1], *change, after.chance, len(after.right))


def group_table(results: Results) -> pd.DataFrame:
    """Each method's verdicts by group and statistic."""
    tables = [result.comparison.by_group for result in results.values() if result.answers is not None]
    names = [name for name, result in results.items() if result.answers is not None]
    tables = [table.assign(method=name) for name, table in zip(names, tables, strict=True)]
    if not tables:
        return pd.DataFrame(columns=["method", "group", "statistic", "first", "second", "change", "low", "high", "n", "verdict"])
    table = pd.concat(tables, ignore_index=True)
    return table[["method", *(name for name in table if name != "method")]]


def front_table(results: Results) -> pd.DataFrame:
    """`to_frame` under the names of `results`, and which models no other beats."""
    frame = to_frame(results).assign(method=list(results))
    names = ("balanced_accuracy", "equalized_odds")
    able = ~frame["degenerate"].to_numpy(bool) & frame[list(names)].notna().all(axis=1).to_numpy()
    frame["on_front"] = False
    frame.loc[able, "on_front"] = pareto_front(frame.loc[able, list(names)].to_numpy(float), names)
    return frame


def flip_table(
    models: Mapping[str, nn.Module], faces: Any, attribute: str, n: int, confidence: float, seed: int, progress: bool
) -> pd.DataFrame:
    """Flip rates of every model on the same redrawn faces."""
    drawn = copy.copy(faces)
    drawn.counterfactual = cache(faces.counterfactual)  # drawing a face takes longer than asking a model about it
    found = {
        name: counterfactual(model, drawn, attribute, n=n, seed=seed, confidence=confidence)
        for name, model in tqdm(models.items(), "flips", disable=not progress)
    }
    before = found[VANILLA].rows
    people = before["row"]
    if "identity" in faces.table:
        people = faces.table["identity"].iloc[before["row"]]
    people = pd.factorize(people)[0]
    rows = []
    for name, report in found.items():
        for group in (ALL, *dict.fromkeys(report.by_group["group"])):
            mine = np.ones(len(before), bool) if group == ALL else (before["group"] == group).to_numpy()
            asked = None if group == ALL else group
            change = (np.nan,) * 3
            if name != VANILLA:
                flips = (each["flip"].to_numpy()[mine] for each in (before, report.rows))
                change = change_of_rates(*flips, people[mine], confidence)
            value = report.value("flip_rate", asked), *report.interval("flip_rate", asked)
            rows.append((name, group, *value, *change, int(mine.sum())))
    return pd.DataFrame(rows, columns=list(FLIPS))


def read_masks(faces: Any, masks: Any, attribute: str) -> dict[str, np.ndarray | None] | None:
    """Regions by name, each with a mask a face, or None where the data set draws it; None if nothing is known."""
    if masks is None:
        masks = attribute if hasattr(faces, "mask") else None
        if masks is None:
            return None
    if isinstance(masks, np.ndarray | Tensor):
        masks = {"region": masks}
    if isinstance(masks, Mapping):
        read = {str(name): np.asarray(values) for name, values in masks.items()}
        size = faces.images.shape[1:3] if hasattr(faces, "images") else None
        for name, values in read.items():
            if size is None or values.shape != (len(faces), *size) or values.dtype != bool:
                expected = "a FaceDataset" if size is None else f"bool {(len(faces), *size)}, a mask for each of the faces,"
                raise ValueError(f"masks[{name!r}]: {expected} expected, {values.dtype} {values.shape} given")
        return read
    if not hasattr(faces, "mask"):
        raise ValueError(f"masks: {type(faces).__name__} knows no pixels of {masks!r}; give a dict of name to bool (N, H, W)")
    from helpers.data.styles import ATTRIBUTES  # as in `attribute_of`

    return {choose(name, ATTRIBUTES, "masks"): None for name in ([masks] if isinstance(masks, str) else masks)}


def explained_rows(faces: Any, regions: Mapping[str, np.ndarray | None], n: int, seed: int) -> tuple[np.ndarray, dict]:
    """Up to `n` faces in which every region is seen, from groups and classes in turn; masks bool (n, H, W) by region."""
    rows, found = [], []
    for row in spread(faces, len(faces), seed):
        try:
            masks = {name: faces.mask(row, name) if known is None else known[row] for name, known in regions.items()}
        except ValueError:  # the style has no drawing for it
            continue
        if all(mask.any() for mask in masks.values()):
            rows.append(row)
            found.append(masks)
        if len(rows) == n:
            break
    if not rows:
        raise ValueError(f"masks: no face has a pixel in {', '.join(regions)}")
    return np.array(rows), {name: np.stack([masks[name] for masks in found]) for name in regions}


class Told(nn.Module):
    """A model that decides by image and group, for images of one group, so that the image is all that is left to explain."""

    def __init__(self, model: nn.Module, code: int):
        super().__init__()
        self.model, self.code = model, code

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images, group=torch.full((len(images),), self.code, device=images.device))


def all_maps(
    models: Mapping[str, nn.Module], faces: Any, rows: np.ndarray, method: str, seed: int, progress: bool, options: dict
) -> tuple[dict[str, Tensor], list[str]]:
    """Every model's maps of the same faces and classes, and which models cannot be explained."""
    images, target, group = faces[rows]
    maps, failed = {}, []
    for name, model in tqdm(models.items(), "maps", disable=not progress):
        try:
            if getattr(model, "needs_group", False):
                found = torch.zeros(len(images), *images.shape[2:])
                for code in group.unique().tolist():
                    mine = group == code
                    found[mine] = explain(Told(model, code), images[mine], target[mine], method, seed=seed, **options)
            else:
                found = explain(model, images, target, method, seed=seed, **options)
        except ValueError as error:
            if name == VANILLA:
                raise
            failed.append(f"regions: {name} is left out; {error}")
            continue
        maps[name] = found
    return maps, failed


def region_table(
    vanilla: nn.Module, faces: Any, rows: np.ndarray, masks: dict, maps: dict[str, Tensor], confidence: float, seed: int
) -> pd.DataFrame:
    """The region scores of all maps by region and group, beside those of the model as it was."""
    images, target, group = faces[rows]
    while getattr(vanilla, "needs_group", False) and isinstance(vanilla, layers.Edited):
        vanilla = vanilla.layer  # region scores look at maps alone, but `evaluate` wants a model of images
    names = np.array(faces.groups, dtype=object)[group.numpy()]
    tables = []
    for region, known in masks.items():
        frame = evaluate(vanilla, images, maps, target, [*OF_ONE_MAP, *OF_A_CHANGE], known, before=maps[VANILLA], seed=seed)
        frame = frame[(frame["method"] != VANILLA) | frame["metric"].isin(OF_ONE_MAP)]
        before = frame[frame["method"] == VANILLA].set_index(["image", "metric"])["value"].rename("before")
        frame = frame.join(before, on=["image", "metric"]).assign(region=region, group=names[frame["image"]])
        tables += [frame.assign(group=ALL), frame]
    frame = pd.concat(tables, ignore_index=True).rename(columns={"metric": "score"})
    keys = ["method", "region", "group", "score"]
    rows = [(*key, *region_row(key, part, confidence, seed)) for key, part in frame.groupby(keys, sort=False)]
    table = pd.DataFrame(rows, columns=list(REGIONS))
    order = {name: place for place, name in enumerate((ALL, *faces.groups))}
    table = table.sort_values("group", key=lambda column: column.map(order), kind="stable")
    table = table.sort_values("method", key=lambda column: column.map(list(maps).index), kind="stable")
    return table.reset_index(drop=True)


def region_row(key: tuple[str, ...], part: pd.DataFrame, confidence: float, seed: int) -> tuple:
    """Mean of one score with its interval, and its paired change from the model as it was."""
    method, *_, name = key
    known = part.dropna(subset="value")
    value = known["value"].to_numpy()
    # A yes or no for each image is a rate; a mean of anything else is bootstrapped, also where it is 0 for every image.
    limits = interval if name in OF_DECISIONS else bootstrapped
    mean = value.mean() if len(value) else np.nan
    numbers = (mean, *limits(value, confidence, seed, N_BOOT), len(value), len(part) - len(value))
    both = known.dropna(subset="before")
    before = both["before"].to_numpy()
    if method == VANILLA or not len(both):
        return (*numbers, before.mean() if len(both) else np.nan, *(np.nan,) * 3)
    after = both["value"].to_numpy()
    if name in OF_DECISIONS:
        change = change_of_rates(before > 0, after > 0, np.arange(len(both)), confidence)
    else:
        change = (after - before).mean(), *bootstrapped(after - before, confidence, seed, N_BOOT)
    return (*numbers, before.mean(), *change)
