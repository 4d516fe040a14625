"""The verb: run several debiasing methods on one model and compare what they give."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.bias import NAMED, STATISTICS, Audit, audit
from helpers.crew import crew_of
from helpers.debiasing import select
from helpers.debiasing.changes import changes
from helpers.debiasing.deadline import OutOfTime, deadline
from helpers.debiasing.dfr import is_linear_head
from helpers.debiasing.fold import AFFINE, make_foldable
from helpers.debiasing.holdout import stratified
from helpers.debiasing.method import INSIDE, METHODS, Batch, Method, collect
from helpers.debiasing.replay import Probe, logits_of, make_probe, replays
from helpers.debiasing.result import VANILLA, Answers, CorrectionResult, Results, changes_of, joined, metric_name, one_value
from helpers.models import layers
from helpers.models.data_in import check_logits, check_targets, classes_of, codes_of, loader_of, triple
from helpers.models.prediction import hard, score
from helpers.models.running import call, untouched_random_state
from helpers.names import choose

RETURN_TYPES = ("all", "pareto-front", "best")
HELD_OUT = 0.25
LEAST_SECONDS = 1.0  # of a method that is solved in closed form, its audit included
LEAST_HELD = 5  # held-out images of a group x class cell: of fewer, an interval of the gap says little
PROBE = 16  # images on which layers are found and shortcuts are checked
OF_SCORES = ("mean_score", "roc_auc")  # what an audit adds where it has scores
OPTION_ALIASES = {  # DetoxAI's names
    "intervention_layers": "layer",
    "cav_layers": "layer",
    "fine_tune_epochs": "epochs",
    "ft_lr": "lr",
    "model_lr": "lr",
    "train_batch_size": "batch_size",
    "n_layers_to_optimize": "n_layers",
    "skopt_maxiter": "evaluations",
}
NESTED = ("rr_config", "options")  # DetoxAI's: options of a method that are given as a dict of their own
OF_THE_CALL = ("method_timeout",)  # options that every method has
WITHOUT_EFFECT = (  # DetoxAI's: nothing to name, features are shared, the last layer is found, thresholds are searched exactly
    "experiment_name", "use_cache", "last_layer_name", "outputs_are_logits", "tau_init", "optimizer_maxiter",
    "thresh_optimizer_maxiter", "soft_thresh_temperature", "eval_batch_size", "n_eval_batches", "skopt_verbose",
    "skopt_njobs", "skopt_npoints", "critic_filters",
)  # fmt: skip


def debias(
    model: nn.Module,
    dataloader,
    methods: str | Iterable[str] = "all",
    metrics: str | Iterable[str] = "all",
    methods_config: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    pareto_metrics: Iterable[str] = ("balanced_accuracy", "equalized_odds"),
    return_type: str = "all",
    device: str | torch.device = "cpu",
    include_vanilla: bool = True,
    test_dataloader=None,
    seed: int = 0,
    *,
    method_timeout: float | None = None,
    each: Callable[[CorrectionResult], None] | None = None,
    include_vanila_in_results: bool | None = None,
    num_of_classes: int | None = None,
) -> Results | CorrectionResult:
    """Correct a trained classifier by several methods and compare them on the same data.

    A quarter of `dataloader`, taken from every group x class cell in proportion, is held out; the methods fit on the
    rest, from features captured in one pass that all of them share. The held-out part serves to choose among
    them ("pareto-front", "best") and, without `test_dataloader`, to report; the test data never takes part in
    a choice. A cell of one image stays with the rows to fit on, and the held-out part is judged without it, with a
    warning; if some class then has fewer than two groups there, so that its gap is undefined, all rows serve
    for fitting and for choosing, with a warning that such numbers flatter.

    Parameters
    ----------
    model : nn.Module, images (N, 3, H, W) -> logits (N, K), K = 1 for a binary model of one logit. Never changed.
    dataloader : DataLoader of (image, target, group) batches, or FaceDataset; any batch size, shuffled or not
    methods : "all", a key of `METHODS` or several, in any case
    metrics : "all" or names of the metrics to report, those of `helpers.audit`; the Pareto metrics are always there
    methods_config : options by method, {"PCLARC": {"cav_type": "ridge"}}, put over the defaults in the signatures;
        the key "global" holds options for every method that has them
    pareto_metrics : names of the metrics to choose by
    return_type : "all"; "pareto-front", the methods that no other beats on the held-out part; or "best", the one
        nearest to the ideal point there (1 for an accuracy, 0 for a gap, Euclidean distance). Failed and
        degenerate models are never chosen, and Vanilla, where it takes part, stays unless the held-out part tells the
        nearest apart from it: the nearest of many models on few images may be so by chance. The `.note` says so, tells a
        tie, and names the models that cannot be told apart: the 95 % intervals of the changes, paired over the images,
        all contain zero, or a group has fewer than 5 held-out images of a class.
    device : where to compute; the models that come back are there. The input model stays where it is. Of a launched Lightning
        `Fabric` the processes share the passes over the data and the steps of FINETUNE, GDRO, JTT, FAIRRET and FAIRTORCH; all
        else each does for itself, and all get the same results.
    include_vanilla : bool, put the model as it was into the results, and into the choice, as "Vanilla"
    test_dataloader : like `dataloader`, None to report on the held-out part
    seed : int, for the split, the methods and the intervals
    method_timeout : seconds that each method may take, None for no limit; one that takes longer fails, and the others go
        on. Also as an option, {"global": {"method_timeout": 600}}
    each : called with each result as soon as it is there, Vanilla's first, so that it can be shown or kept before the others are
        done; what it raises ends the call
    include_vanila_in_results : DetoxAI's spelling of `include_vanilla`
    num_of_classes : DetoxAI's; checked against the model's output

    The bar tells, before the first method runs, about how long they will take: from what each costs in passes over the data
    (`METHODS[key].passes`) and the time of the first pass.

    Returns
    -------
    Results (a dict key -> CorrectionResult that prints as a table), or one CorrectionResult for "best". Each result's
    `comparison` puts it beside the model as it was; `helpers.examine` asks how it got there.

    Raises
    ------
    ValueError : an unknown method, option, metric, return type or layer (the nearest name is given); a loader without
        groups; data of one group or one class; targets that do not fit the output; features or logits that are
        not finite. All of these before any method runs.
    RuntimeError : "best" was asked for and there is no model to choose.

    Examples
    --------
    >>> results = debias(model, loader, methods=["LEACE", "DFR"], test_dataloader=test)
    >>> results["LEACE"].get_metric("equalized_odds"), results["LEACE"].get_model()
    """
    chosen = chosen_methods(methods)
    options = merged_options(chosen, methods_config)
    limits = {key: own.pop("method_timeout", method_timeout) for key, own in options.items()}
    pareto_metrics = directed(pareto_metrics)
    return_type = choose(return_type, RETURN_TYPES, "return_type")
    metrics = metrics if metrics == "all" else wanted_metrics(metrics)
    if include_vanila_in_results is not None:
        include_vanilla = include_vanila_in_results
    check_codes(dataloader, "dataloader")

    crew = crew_of(device)
    work = copy.deepcopy(model).to(crew.device).eval()
    crew = replace(crew, device=layers.device_of(work))  # "cuda" is cuda:0 now, and what has no weights has not moved
    images, group, outputs = first_batch(work, dataloader, "dataloader")
    if num_of_classes is not None and num_of_classes != max(2, outputs):
        raise ValueError(f"num_of_classes: {num_of_classes} does not fit the model's {outputs} outputs")
    if test_dataloader is not None:
        first_batch(work, test_dataloader, "test_dataloader")
    for key in chosen:
        if "layer" in options[key] and not getattr(work, "opaque", False):
            options[key]["layer"] = layer_names(model, work, options[key]["layer"], images)

    batch = collect(work, dataloader, images, seed=seed, device=crew)
    check_seen(batch)
    fit_rows, held_rows = split(batch, seed, group_names(dataloader, batch.groups))
    held = batch.take(held_rows)
    test = held if test_dataloader is None else collect(work, test_dataloader, images, seed=seed, device=crew)
    check_targets(test.y, test.logits.shape[1])
    judge = Judge(held, test, dataloader, make_probe(work, batch, images, group), metrics, pareto_metrics, seed)

    vanilla = judge(CorrectionResult(VANILLA, copy.deepcopy(work)), ())
    if lacking := [name for name in pareto_metrics if name not in vanilla.validation]:
        accepted = ", ".join(vanilla.validation)
        raise ValueError(f"pareto_metrics: {lacking[0]!r} has no one value for {batch.classes} classes; of {accepted}")
    results = Results({VANILLA: vanilla} if include_vanilla else {})
    if each is not None and include_vanilla:
        each(vanilla)
    fit_on = batch.take(fit_rows)
    judged = len(held) + (len(test) if test is not held else 0)
    expected = {key: expected_seconds(METHODS[key], options[key], fit_on, judged) for key in chosen}
    told = f"{{desc}} {{percentage:3.0f}} % |{{bar}}| {{elapsed}} of {about(sum(expected.values()))}"
    with tqdm(total=sum(expected.values()), desc="debias", bar_format=told, leave=False) as bar:
        for key in chosen:
            bar.set_description(key)
            results[key] = run(METHODS[key], options[key], work, fit_on, judge, limits[key])
            if each is not None:
                each(results[key])
            bar.update(expected[key])
    return selected(results, return_type, pareto_metrics, judge)


def expected_seconds(entry: Method, options: dict, fit_on: Batch, judged: int) -> float:
    """How long a method will take, from what it costs in passes and the time that the first pass over the data took.

    One that runs the network gives a model that has to be run once more on the `judged` images.
    """
    try:
        passes = float(entry.passes(fit_on, **options))
    except (TypeError, ValueError):  # an option that the method itself will refuse, by name
        passes = 0.0
    each = fit_on.seconds / len(fit_on.data)
    return LEAST_SECONDS + each * (passes * len(fit_on) + (judged if passes else 0))


def about(seconds: float) -> str:
    """A time as one says it: "about 40 s", "about 6 min", "about 2.5 h"."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"


def run(
    entry: Method, options: dict, model: nn.Module, batch: Batch, judge: Judge, limit: float | None = None
) -> CorrectionResult:
    """One method on its own, timed; whatever goes wrong becomes the result's `error`, and the others go on.

    What the method left by `Batch.note` becomes the result's `note`, whether it failed afterwards or not.
    """
    batch, start = replace(batch, notes=[]), time.perf_counter()
    try:
        if "binary" in entry.needs and batch.classes > 2:
            raise ValueError(f"target: {batch.classes} classes; {entry.key} is defined for two")
        if batch.opaque and entry.needs & INSIDE:
            needed = " and ".join(sorted(entry.needs & INSIDE))
            raise ValueError(f"model: PyTorch cannot see into it, and {entry.key} needs its {needed}; accepted: {on_logits()}")
        with untouched_random_state(batch.seed), deadline(limit):
            corrected = applied(entry, options, model, batch).eval()
        seconds = time.perf_counter() - start
        changed = changes(model, corrected)
        if any(name in (batch.layer, batch.last) and isinstance(part, AFFINE) for name, part in changed):
            # So nothing but the edit stands before a classifier that is linear in the features.
            if is_linear_head(model, batch) and replays(corrected, changed, batch, judge.probe):
                make_foldable(corrected, batch.layer, batch.last)
        return judge(CorrectionResult(entry.key, corrected, seconds=seconds, note=joined(batch.notes)), changed)
    except OutOfTime:
        reason = f"took longer than method_timeout, {limit:g} s"
    except Exception as error:
        reason = str(error) or type(error).__name__
    return CorrectionResult(entry.key, seconds=time.perf_counter() - start, error=reason, note=joined(batch.notes))


def on_logits() -> str:
    """Names of the methods that need nothing of a model but its logits."""
    return ", ".join(key for key, entry in METHODS.items() if not entry.needs & INSIDE)


def applied(entry: Method, options: dict, model: nn.Module, batch: Batch) -> nn.Module:
    """The corrected model. With several layers they are edited in the order in which they run, each on what is left by
    the edits before it."""
    if "layer" not in options:
        return entry.function(model, batch, **options)
    corrected = model
    for place, layer in enumerate(options["layer"]):
        seen = batch if place == 0 else batch.of(corrected)
        corrected = entry.function(corrected, seen, **options | {"layer": layer})
    return corrected


class Judge:
    """Fills a result with what its model does on the held-out part and on the test data, which may be the same."""

    def __init__(self, held: Batch, test: Batch, data, probe: Probe, metrics, pareto_metrics, seed):
        self.held, self.test, self.probe = held, test, probe
        self.metrics, self.pareto_metrics, self.seed = metrics, pareto_metrics, seed
        self.constant: set[str] = set()  # methods that predict one class on the held-out part
        self.answered: dict[str, np.ndarray] = {}  # what each method's model predicts there
        self.groups = group_names(data, held.groups)
        self.classes = classes_of(data) or tuple(map(str, range(held.classes)))

    def __call__(self, result: CorrectionResult, changed: tuple) -> CorrectionResult:
        logits = self.logits(result, changed, self.held)
        self.answered[result.method] = hard(logits)
        one_class = len(np.unique(hard(logits))) < 2
        if one_class:
            self.constant.add(result.method)
        held = shown = self.audit(self.held, logits)
        if self.test is not self.held:
            logits = self.logits(result, changed, self.test)
            shown = self.audit(self.test, logits)
        return replace(
            result,
            metrics=self.kept(metrics_of(shown)),
            validation=self.kept(metrics_of(held)),
            pareto_metrics=self.pareto_metrics,
            audit=shown,
            answers=None if result.method == VANILLA else self.answers(self.test, logits),
            edits=changed,
            needs_group=bool(getattr(result.model, "needs_group", False)),
            degenerate=one_class or len(np.unique(hard(logits))) < 2,
        )

    def logits(self, result: CorrectionResult, changed: tuple, batch: Batch) -> np.ndarray:
        """Logits for all rows; those of the model as it was are known already."""
        if result.method == VANILLA:
            return batch.logits.numpy()
        return logits_of(result.model, changed, batch, self.probe)

    def audit(self, batch: Batch, logits: np.ndarray) -> Audit:
        """Audit of a batch."""
        return audit(
            batch.y, hard(logits), batch.group, y_score=score(logits), groups=self.names(batch), classes=self.classes,
            seed=self.seed,
        )  # fmt: skip

    def answers(self, batch: Batch, logits: np.ndarray) -> Answers:
        """What the model as it was and another with these logits say of a batch."""
        return Answers(batch.y, hard(batch.logits.numpy()), hard(logits), batch.group, self.classes, self.names(batch))

    def like(self, best: str, others: list[str], metrics: tuple[str, ...]) -> list[str]:
        """Which of the others the held-out part does not tell from `best` by any of the metrics.

        Decisions are compared in pairs; by a metric of scores none is said to be like another. Where a group has fewer than
        `LEAST_HELD` images of a class nothing is told apart: resampling one or two images does not show how they vary.
        """
        if self.held.smallest_cell < LEAST_HELD:
            return others
        y, group, found = self.held.y, self.held.group, []
        for other in others:
            pair = Answers(y, self.answered[other], self.answered[best], group, self.classes, of=other)
            rows = changes_of(pair.compare(best)).reindex(metrics)
            if ((rows["low"] <= 0) & (rows["high"] >= 0)).all():
                found.append(other)
        return found

    def names(self, batch: Batch) -> tuple[str, ...] | None:
        """Names of the groups, if they reach to all that occur."""
        return self.groups if self.groups and batch.group.max() < len(self.groups) else None

    def kept(self, values: dict[str, float]) -> dict[str, float]:
        """The metrics that were asked for, and those by which is chosen."""
        if isinstance(self.metrics, str):
            return values
        return {name: value for name, value in values.items() if name in self.metrics or name in self.pareto_metrics}


def metrics_of(audited: Audit) -> dict[str, float]:
    """All statistics over all images, all gaps by their names, and the spread of each statistic as `…_gap`.

    With more than two classes these are the audit's own summaries: macro averages, and for named gaps the largest;
    what has a value for each class and no summary (the selection rate) is in the audit only.
    """
    overall = {name: audited.value(name) for name in one_value(audited.overall).index}
    gaps = {name: audited.gap(name) for name in one_value(audited.gaps).index}
    return overall | {f"{name}_gap" if name in overall else name: value for name, value in gaps.items()}


def selected(
    results: Results, return_type: str, names: tuple[str, ...], judge: Judge
) -> Results | CorrectionResult:
    """All results, the front, or the best, by the metrics on the held-out part."""
    if return_type == "all":
        return results
    constant = judge.constant
    able = [key for key, result in results.items() if result.error is None and key not in constant]
    values = np.array([[results[key].validation[name] for name in names] for key in able]).reshape(
        len(able), len(names)
    )
    if return_type == "pareto-front":
        front = select.pareto_front(values, names)
        if not front.any():
            warnings.warn(f"return_type: the front is empty; {reasons(results, constant)}", UserWarning, stacklevel=3)
        return Results({key: results[key] for key, on in zip(able, front, strict=True) if on})
    nearest = [able[i] for i in select.nearest(values, names)] if able else []
    if not nearest:
        raise RuntimeError(f"return_type: no model to choose as the best; {reasons(results, constant)}")
    tied = f"ties with {', '.join(nearest[1:])} on the held-out part; the first is given" if nearest[1:] else ""
    best = results[nearest[0]]
    like = judge.like(nearest[0], [key for key in able if key not in nearest], names)
    held = f"{len(judge.held)} held-out images do not tell"
    if VANILLA in like:
        return replace(results[VANILLA], note=f"{nearest[0]} is nearest to the ideal, but {held} it from the model as it was")
    return replace(best, note=joined([best.note, tied, f"{held} it from {', '.join(like)}" if like else ""]))


def reasons(results: Results, constant: set[str]) -> str:
    """Why each of the results cannot be chosen."""
    return "; ".join(
        f"{key}: {result.error or ('predicts one class' if key in constant else 'a metric is undefined')}"
        for key, result in results.items()
    )


def chosen_methods(methods: str | Iterable[str]) -> list[str]:
    """Keys of `METHODS`, each once, in the order asked for."""
    if isinstance(methods, str):
        methods = list(METHODS) if methods.casefold() == "all" else [methods]
    keys = list(dict.fromkeys(choose(name, METHODS, "methods") for name in methods))
    if not keys:
        raise ValueError(f"methods: none given; accepted: 'all' or some of {', '.join(METHODS)}")
    return keys


def merged_options(keys: list[str], config: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, object]]:
    """Options by method: the defaults, "global" over them, the method's own over both. `config` is not changed."""
    given: dict[str, dict] = {}
    for name, own in config.items():
        key = choose(name, ["global", *METHODS], "methods_config")
        if not isinstance(own, Mapping):
            raise ValueError(f"methods_config[{name!r}]: got {own!r}; a dict of options is needed")
        accepted = [*(METHODS[key].defaults if key != "global" else all_options()), *OF_THE_CALL]
        own = dict(own)
        for name in NESTED:
            nested = own.pop(name, {})
            if not isinstance(nested, Mapping):
                raise ValueError(f"methods_config[{key!r}][{name!r}]: got {nested!r}; a dict of options is needed")
            own |= nested
        renamed = {
            OPTION_ALIASES.get(option, option) if option not in accepted else option: value
            for option, value in own.items()
            if option in accepted or option not in WITHOUT_EFFECT
        }
        for option in renamed:
            if option not in accepted:
                choose(option, sorted(accepted), f"methods_config[{key!r}]")
        given[key] = renamed
    merged = {}
    for key in keys:
        own = METHODS[key].defaults
        shared = {option: v for option, v in given.get("global", {}).items() if option in own or option in OF_THE_CALL}
        merged[key] = own | shared | given.get(key, {})
    return merged


def all_options() -> set[str]:
    """Names of the options of all methods."""
    return {option for entry in METHODS.values() for option in entry.defaults}


def directed(names: Iterable[str]) -> tuple[str, ...]:
    """Metrics that have a good end, by their names."""
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("pareto_metrics: none given; two are usual, such as balanced_accuracy and equalized_odds")
    accepted = [*select.HIGHER, *select.LOWER, *(f"{name}_gap" for name in (*STATISTICS, *OF_SCORES))]
    return tuple(metric_name(name, accepted, "pareto_metrics") for name in names)


def wanted_metrics(names: str | Iterable[str]) -> tuple[str, ...]:
    """Names of metrics as `metrics_of` gives them."""
    overall = [*STATISTICS, *OF_SCORES]
    accepted = [*overall, *NAMED, *(f"{name}_gap" for name in overall)]
    names = [names] if isinstance(names, str) else names
    return tuple(metric_name(name, accepted, "metrics") for name in names)


def layer_names(given: nn.Module, model: nn.Module, layer, images: Tensor) -> list[str]:
    """Names of the layers that an option means, in the order in which they run.

    Parameters
    ----------
    given : the user's model, of which a layer may be given as a module
    model : the copy that is worked on
    layer : a name, "penultimate", "last", a module of `given`, or a list of these
    """
    wanted = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    if not wanted:
        raise ValueError("layer: an empty list; give the layers to edit")
    own = {module: name for name, module in given.named_modules()}
    names = {layers.find(model, own.get(each, each) if isinstance(each, nn.Module) else each, images) for each in wanted}
    running = [*layers.flow(model, images), ""]
    for name in names:
        if name not in running:
            raise ValueError(f"layer: {name!r} never runs; the layers that run: {', '.join(running[:-1])}")
    return sorted(names, key=running.index)


def first_batch(model: nn.Module, data, argument: str) -> tuple[Tensor, Tensor, int]:
    """A few images and groups of the first batch, and the width of the model's output on them, all checked."""
    with untouched_random_state(), torch.inference_mode():
        try:
            images, target, group = triple(next(iter(loader_of(data, PROBE))))
        except StopIteration:
            raise ValueError(f"{argument}: it gives no batch") from None
        except ValueError as error:
            raise ValueError(f"{argument}: {str(error).removeprefix('data: ')}") from None
        images, group = images[:PROBE].float().clone(), group[:PROBE].clone()
        device = layers.device_of(model)
        logits = call(model, images.to(device), group.to(device))
        outputs = check_logits(logits, images, classes_of(data))
        known = codes_of(data, "targets")
        check_targets(target if known is None else known, outputs, classes_of(data))
    return images.clone(), group.clone(), outputs


def check_codes(data, argument: str) -> None:
    """Where targets and groups are known without reading images: ValueError if there is only one of either."""
    for which, word in (("targets", "class"), ("group", "group")):
        codes = codes_of(data, which)
        if codes is not None and len(codes):
            check_several(codes, word, argument)


def check_several(codes: np.ndarray, word: str, argument: str) -> None:
    """ValueError unless the codes are non-negative and of two kinds or more."""
    present = np.unique(codes)
    if present[0] < 0:
        raise ValueError(f"{argument}: {word} code {present[0]} came; codes count from 0")
    if len(present) < 2:
        raise ValueError(f"{argument}: all {len(codes)} images are of {word} {present[0]}; a comparison needs two")


def check_seen(batch: Batch) -> None:
    """The checks that need the whole data: two classes, two groups, targets that fit the output."""
    check_several(batch.y, "class", "dataloader")
    check_several(batch.group, "group", "dataloader")
    check_targets(batch.y, batch.logits.shape[1])


def group_names(data, groups: int) -> tuple[str, ...] | None:
    """Names of the groups, if the data set behind the loader has them."""
    names = getattr(data, "groups", None) or getattr(getattr(data, "dataset", None), "groups", None)
    return tuple(map(str, names)) if names is not None and len(names) >= groups else None


def split(batch: Batch, seed: int, names: tuple[str, ...] | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows held out; see `debias` for what happens if the latter lack a cell."""
    cell = batch.group * batch.classes + batch.y
    rest, held = stratified(cell, HELD_OUT, np.random.default_rng(seed))
    lacking = sorted(set(cell.tolist()) - set(cell[held].tolist()))
    if not lacking:
        return rest, held
    told = ", ".join(
        f"group {names[c // batch.classes] if names else c // batch.classes} with class {c % batch.classes}"
        for c in lacking
    )
    groups_of_class = np.bincount(np.unique(cell[held]) % batch.classes, minlength=batch.classes)
    if (groups_of_class[np.unique(batch.y)] < 2).any():
        warnings.warn(
            f"dataloader: a single image of {told}; without it no gap is defined, so all rows serve for fitting "
            "and for choosing: the choice, and numbers without test data, are too kind",
            UserWarning,
            stacklevel=3,
        )
        return np.arange(len(cell)), np.arange(len(cell))
    warnings.warn(
        f"dataloader: a single image of {told}; the held-out part is judged without it", UserWarning, stacklevel=3
    )
    return rest, held
