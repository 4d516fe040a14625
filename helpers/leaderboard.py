"""Every attribution method against causes that are known: which ones point at what makes the network decide?

    board = leaderboard()                      # or: python -m helpers leaderboard
    board.table                                # one row a method, best first, with intervals of values and of ranks
    board.models                               # did the networks do what they were built for?

The rank goes by one number, `found`: the share of pictures in which every cause has more |relevance| a pixel than every other
part of the picture (beyond a margin of three pixels), averaged over the problems: the mouth, the glasses, both. Ties go by `auc`,
the same average of the area under the curve. Maps explain the decision that the network takes. Three rows know nothing of the
network: random maps, an edge detector and a bump in the middle; a fourth is the mask of the cause itself, the best that any map
could do.

Intervals and ranges of ranks are those of `helpers.ranking`: where the ranges of two methods overlap widely, their order is not
settled. Unlike the sanity checks of Adebayo et al. 2018, which randomise a network, `discrimination` compares two networks that
both work, on the same picture, and asks whether the map goes where the cause went.

References
----------
Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018, arXiv 1810.03292.
And those of `helpers.causes` (how the truth is planted) and `helpers.finding` (the scores).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from helpers.attribution.explain import attribute, check_options, random_maps
from helpers.attribution.explainer import Explain, explainer
from helpers.attribution.method import METHODS, cost, find_method
from helpers.attribution.score import check_batch_size
from helpers.bias.settings import share, whole
from helpers.causes import KnownCauses, known_causes
from helpers.data.cache import cache_dir
from helpers.files import whole as whole_file
from helpers.finding import centre, edges, leaning, scores
from helpers.models import resume
from helpers.names import choose
from helpers.ranking import VALUES, ranked

PROFILES = {"quick": {"images": 24, "seeds": (0,), "most": 600}, "full": {"images": 96, "seeds": (0, 1, 2), "most": None}}
FINE = "network.layer2"  # 8 × 8 of 64 pixels, where a ResNet's last map has 2 × 2, too few to tell a mouth from a nose
DRAWS = 20  # random maps of each picture, so that chance is known better than by one
REFERENCES = {
    "the cause's mask": "upper bound: the truth itself",
    "edges": "knows the picture, not the network",
    "centre": "knows neither, but where faces are",
    "random": "chance",
}


@dataclass(frozen=True)
class Leaderboard:
    """Methods, ranked by whether they find the known cause.

    Attributes
    ----------
    table : DataFrame, one row a method, best first, then the references: `rank, rank_low, rank_high, method, kind` ("method" or
        "reference"), `found, found_low, found_high`, `found_…` of each problem, `auc, auc_low, auc_high`, `discrimination` with
        `_low` and `_high` (mouth against glasses), `lift, relevance_mass, relevance_rank, pointing_game, silent` (see
        `helpers.finding.scores`; means over the problems, NaN left out), `passes` of one image (forward and backward together;
        NaN where a method does not say), `cpu_seconds` and `seconds` an image
    per_image : DataFrame, one row a method, seed, problem and picture, with the scores
    models : DataFrame, one row a network: the causal check, see `helpers.causes.known_causes`
    left_out : DataFrame `method, reason`: too many passes for the profile, or failed on these networks
    settings : what the run was: images, seeds, batch size, threads, …
    """

    table: pd.DataFrame
    per_image: pd.DataFrame
    models: pd.DataFrame
    left_out: pd.DataFrame
    settings: dict[str, Any]

    def to_markdown(self, rows: int | None = None) -> str:
        """The table for a README: the first `rows` methods (None: all) and the references, and a line on the run."""
        return markdown(self, rows)

    def plot(self, ax=None):
        """`found` with intervals, best on top; see `helpers.plots.leaderboard.found`."""
        from helpers.plots import leaderboard as plots

        return plots.found(self.table, ax=ax, confidence=self.settings["confidence"])

    def save(self, folder: str | Path, rows: int | None = 10) -> list[Path]:
        """Write leaderboard.csv, -images.csv, -networks.csv, .md (`rows` of it in -top.md) and .png into a folder.

        Everything but the seconds is the same bytes for the same seed, networks and machine.
        """
        folder, written = Path(folder), []

        def put(name: str, write) -> None:
            with whole_file(folder / name) as part:
                write(part)
            written.append(folder / name)

        put("leaderboard.csv", lambda path: self.table.to_csv(path, index=False, float_format="%.4f"))
        put("leaderboard-images.csv", lambda path: self.per_image.to_csv(path, index=False, float_format="%.5g"))
        put("leaderboard-networks.csv", lambda path: self.models.to_csv(path, index=False, float_format="%.4f"))
        put("leaderboard.md", lambda path: path.write_text(self.to_markdown(), encoding="utf-8"))
        put("leaderboard-top.md", lambda path: path.write_text(self.to_markdown(rows), encoding="utf-8"))
        put("leaderboard.png", lambda path: self.plot().figure.savefig(path, bbox_inches="tight"))
        return written


def entries(backends: str = "auto") -> dict[str, Explain]:
    """What is judged by default: each method of `attribution.methods()` once, and those of a layer at a finer one as well.

    Parameters
    ----------
    backends : "auto", one backend a method, or "all", each of them under "name (backend)"

    Returns
    -------
    dict of name to (method, options), as `evaluate(…, explain=…)` takes it. Further ones join as
    `{**entries(), "mine": function}`, a function (model, images, target) -> maps (N, H, W).
    """
    found: dict[str, Explain] = {}
    everything = choose(backends, ("auto", "all"), "backends") == "all"
    for name in dict.fromkeys(name for name, _ in METHODS):
        having = [backend for known, backend in METHODS if known == name] if everything else [find_method(name, "auto").backend]
        for backend in having:
            label = f"{name} ({backend})" if everything else name
            found[label] = (name, {"backend": backend})
            if "layer" in METHODS[name, backend].defaults:
                found[f"{label} @ layer2"] = (name, {"backend": backend, "layer": FINE})
    return found


def leaderboard(
    methods: str | Sequence[str] | Mapping[str, Explain] = "all",
    *,
    profile: str = "quick",
    known: KnownCauses | None = None,
    images: int | None = None,
    seeds: Sequence[int] | None = None,
    most: int | None = None,
    backends: str = "auto",
    batch_size: int | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    n_boot: int = 2000,
    progress: bool = True,
    **options: Any,
) -> Leaderboard:
    """Explain pictures whose cause is known by every method, and rank the methods by whether they find it.

    The maps are kept in the cache: a run that was stopped goes on where it was. (Not those of functions of your own, whose
    content cannot be told.)

    Parameters
    ----------
    methods : "all" of `entries()`, several of them by name, or a dict of name to one way to make maps: a method's name, a name
        with options, or a function (model, images, target) -> maps (N, H, W)
    profile : "quick" (24 pictures, one training, methods of at most 600 passes) or "full" (96, three trainings, all methods)
    known : pictures, networks and causes of your own; None: `helpers.causes.known_causes(images, seeds, seed=seed, **options)`
    images, seeds, most : in place of the profile's; `most` passes (forward and backward) of one image, 0 for no limit
    backends : as in `entries`
    batch_size : images a pass, by default as many as `attribute` takes
    seed : of faces, sampled methods, random maps and the bootstrap
    confidence, n_boot : of the intervals
    progress : show bars

    Returns
    -------
    Leaderboard

    Raises
    ------
    ValueError : before any long work, for unknown methods, options or profiles; later as `known_causes`. A method that fails on
        these networks is listed in `left_out`, and the others go on.

    Examples
    --------
    >>> def mine(model, images, target):                                       # darkness, whatever the model
    ...     return 1 - images.mean(1)
    >>> board = leaderboard({**entries(), "mine": mine})                       # doctest: +SKIP
    >>> board.table[["rank", "rank_low", "rank_high", "method", "found"]]      # doctest: +SKIP
    """
    work = PROFILES[choose(profile, PROFILES, "profile")]
    ways, wanted = chosen(methods, backends)
    share(confidence, "confidence")
    whole(n_boot, "n_boot", 1)
    whole(seed, "seed", 0)
    most = work["most"] if most is None else whole(most, "most", 0) or None
    if known is not None and (images is not None or seeds is not None or options):
        raise ValueError("known: given, so that images, seeds and options of `known_causes` are decided already")
    if known is None:
        images = work["images"] if images is None else images
        known = known_causes(images, work["seeds"] if seeds is None else seeds, seed=seed, progress=progress, **options)
    batch = check_batch_size(batch_size, known.images)
    passes = {label: passes_of(way, known) for label, way in ways.items()}
    left_out = [
        {"method": label, "reason": f"{passes[label]:,.0f} passes an image, more than most={most}"}
        for label in ways
        if most is not None and passes[label] > most
    ]
    rows = [reference(name, known, seed) for name in REFERENCES]
    named = [label for label in ways if label not in {row["method"] for row in left_out}]
    for label in (bar := tqdm(named, "leaderboard", unit="method", disable=not progress)):
        bar.set_postfix_str(label)
        try:
            rows.append(judged(label, ways[label], wanted.get(label), known, batch, seed))
        except (ValueError, RuntimeError, NotImplementedError, ImportError, FloatingPointError) as error:
            left_out.append({"method": label, "reason": f"failed: {shorten(str(error).splitlines()[0], 160)}"})
    if len(rows) == len(REFERENCES):
        raise ValueError("methods: none could be judged; " + "; ".join(f"{row['method']}: {row['reason']}" for row in left_out))
    per_image = pd.concat(rows, ignore_index=True)
    settings = {
        "profile": profile,
        "images": len(known.images),
        "people": len(np.unique(known.people)),
        "image_size": list(known.images.shape[2:]),
        "seeds": sorted({each for _, each in known.networks}),
        "batch_size": batch,
        "threads": torch.get_num_threads(),
        "most": most,
        "seed": seed,
        "confidence": confidence,
    }
    table = ranked(per_image, list(known.causes), passes, confidence, n_boot, seed)
    return Leaderboard(table, per_image, known.checks, pd.DataFrame(left_out, columns=["method", "reason"]), settings)


def chosen(methods: Any, backends: str) -> tuple[dict[str, Explain], dict[str, Any]]:
    """The ways to make maps by name, and for those of `methods()` a text that says how; ValueError for what is none."""
    default = entries(backends)
    if isinstance(methods, Mapping):
        ways = {label: label if way is True else way for label, way in methods.items()}
    elif isinstance(methods, str) and methods == "all":
        ways = default
    else:
        names = [methods] if isinstance(methods, str) else list(methods)
        ways = {label: default[label] for label in (choose(name, default, "methods") for name in names)}
    if not ways:
        raise ValueError("methods: none given; expected 'all', names, or a dict of name to a method or function")
    if taken := [label for label in ways if label in REFERENCES]:
        raise ValueError(f"methods: {taken[0]!r} is a reference row; choose another name")
    wanted = {}
    for label, way in ways.items():
        try:
            explainer(way, label, 1, 0)
        except ValueError as error:
            raise ValueError(f"methods: {label!r}: {error}") from error
        if (known := method_of(way)) is not None:
            name, options = known
            found = find_method(name, options.get("backend", "auto"))
            given = {key: value for key, value in options.items() if key != "backend"}
            wanted[label] = [found.name, found.backend, {k: str(v) for k, v in sorted(check_options(found, given).items())}]
    return ways, wanted


def method_of(way: Explain) -> tuple[str, dict[str, Any]] | None:
    """The method and options of a way to make maps; None for a function."""
    if isinstance(way, str):
        return way, {}
    return (way[0], dict(way[1])) if isinstance(way, tuple) else None


def passes_of(way: Explain, known: KnownCauses) -> float:
    """Forward and backward passes of one image; NaN of a function, and of a method that does not count them."""
    if (method := method_of(way)) is None:
        return np.nan
    options = dict(method[1])
    backend, size = options.pop("backend", "auto"), tuple(known.images.shape[2:])
    try:
        return float(sum(cost(method[0], backend, size, **options)))
    except ValueError:  # it depends on the model, on how many channels a layer has
        report = {}
        (key, target), *_ = known.targets.items()
        try:
            attribute(known.networks[key], known.images[:1], target[:1], method[0], backend, report=report, **options)
        except (ValueError, RuntimeError):  # told where the method is judged
            return np.nan
        return float(report["forward"] + report["backward"]) if report else np.nan


def reference(name: str, known: KnownCauses, seed: int) -> pd.DataFrame:
    """The scores of a row that needs no network; of random maps the mean over several."""
    tables = []
    drawn = {
        "edges": lambda: [edges(known.images)],
        "centre": lambda: [centre(known.images)],
        "random": lambda: [random_maps(known.images, 1000 * seed + k).numpy() for k in range(DRAWS)],
    }
    blind = drawn[name]() if name in drawn else None
    for problem, each in known.targets:
        cause = np.logical_or.reduce([known.parts[part] for part in known.causes[problem]]).astype(float)
        frames = [scored(maps, known, problem, each, seed) for maps in ([cause] if blind is None else blind)]
        mean = sum(frame.drop(columns=["problem", "seed", "image"]) for frame in frames) / len(frames)
        tables.append(frames[0][["problem", "seed", "image"]].join(mean))
    return labelled(pd.concat(tables, ignore_index=True), name, "reference", known)


def judged(label: str, way: Explain, text: Any, known: KnownCauses, batch: int, seed: int) -> pd.DataFrame:
    """The scores of one method on every network, from the cache where they are known."""
    make = explainer(way, label, batch, seed)
    warm, tables = False, []
    pictures = resume.fingerprint(known.images)
    for (problem, each), target in known.targets.items():
        network = known.networks[problem, each]
        key = {"way": text, "network": resume.weights_fingerprint(network), "pictures": pictures, "target": target.tolist(),
               "batch": batch, "seed": seed, "threads": torch.get_num_threads()}  # fmt: skip
        path = cache_dir("leaderboard") / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.npz"
        if text is None or not path.is_file():
            if not warm:  # what a library does once, such as compiling, is not the time of an image
                make(network, known.images[:1], target[:1])
                warm = True
            wall, processor = time.perf_counter(), time.process_time()
            maps = make(network, known.images, target).astype(np.float32)
            found = {"maps": maps, "cpu_seconds": time.process_time() - processor, "seconds": time.perf_counter() - wall}
            if text is not None:
                with whole_file(path) as part, open(part, "wb") as file:
                    np.savez(file, **found)
        else:
            with np.load(path) as saved:
                found = dict(saved)
        took = {name: float(found[name]) / len(found["maps"]) for name in ("cpu_seconds", "seconds")}
        tables.append(scored(found["maps"], known, problem, each, seed).assign(**took))
    return labelled(pd.concat(tables, ignore_index=True), label, "method", known)


def scored(maps: np.ndarray, known: KnownCauses, problem: str, each: int, seed: int) -> pd.DataFrame:
    """One row a picture: the scores, and `leaning` between the two single causes, where there are such."""
    columns = scores(maps, known.parts, known.causes[problem], seed)
    if (pair := singles(known.causes)) is not None and problem in pair:
        columns["leaning"] = leaning(maps, *(known.parts[known.causes[name][0]] for name in pair))
    head = {"problem": problem, "seed": each, "image": np.arange(len(maps))}
    return pd.DataFrame(head | {name: columns.get(name, np.nan) for name in (*VALUES, "leaning")})


def singles(causes: Mapping[str, Sequence[str]]) -> tuple[str, str] | None:
    """The first two problems whose cause is one part; None if there are not two."""
    alone = [problem for problem, names in causes.items() if len(names) == 1]
    return (alone[0], alone[1]) if len(alone) > 1 else None


def labelled(table: pd.DataFrame, label: str, kind: str, known: KnownCauses) -> pd.DataFrame:
    who, cell = known.people[table["image"]], known.cells[table["image"]]
    table = table.assign(method=label, kind=kind, person=who, cell=cell)
    first = ["method", "kind", "problem", "seed", "image", "person", "cell"]
    return table[[*first, *(name for name in table if name not in first)]]


def markdown(board: Leaderboard, rows: int | None) -> str:
    """See `Leaderboard.to_markdown`."""
    table, run = board.table, board.settings
    real, other = table[table["kind"] == "method"], table[table["kind"] == "reference"]
    shown = pd.concat([real if rows is None else real.head(rows), other])
    problems = [name.removeprefix("found_") for name in table if name.startswith("found_")][2:]  # after found_low and found_high
    head = ["rank", "method", "found", *problems, "AUC", "lift", "discrimination", "passes", "CPU s an image"]
    lines = ["| " + " | ".join(head) + " |", "|---:|---|" + "---:|" * (len(head) - 2)]
    for _, row in shown.iterrows():
        method = row["kind"] == "method"
        cells = [
            f"{row['rank']:.0f} [{row['rank_low']:.0f}, {row['rank_high']:.0f}]" if method else "",
            f"`{row['method']}`" if method else f"*{row['method']}: {REFERENCES[row['method']]}*",
            f"{row['found']:.2f} [{row['found_low']:.2f}, {row['found_high']:.2f}]",
            *(f"{row[f'found_{problem}']:.2f}" for problem in problems),
            f"{row['auc']:.3f}",
            f"{row['lift']:.1f}",
            number(row["discrimination"], "{:.2f}"),
            number(row["passes"], "{:,.0f}"),
            number(row["cpu_seconds"], "{:.2g}"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    seeds = len(run["seeds"])
    out = f" ({len(board.left_out)} left out, named under the full table)" if len(board.left_out) else ""
    said = (
        f"{run['images']} pictures of {run['people']} people, {seeds} training{'s' * (seeds > 1)} a problem, {len(real)} "
        f"methods{out}; intervals of {100 * run['confidence']:g} % in brackets resample people{' and networks' * (seeds > 1)}. "
        f"CPU seconds are the process's, in batches of up to {run['batch_size']} pictures on {run['threads']} "
        f"thread{'s' * (run['threads'] > 1)}."
    )
    if len(board.models):
        checks = board.models.groupby("problem", sort=False)[["agree", "balanced_accuracy"]].mean()
        passed = [f"{100 * row.agree:.0f} % for {row.Index} (balanced accuracy {row.balanced_accuracy:.3f})"
                  for row in checks.itertuples()]  # fmt: skip
        said += f" Of {board.models['checked'].iloc[0]} pictures looked at, the check passed {', '.join(passed)}."
    lines += ["", said]
    if rows is None and len(board.left_out):
        lines += ["", "Left out:", "", *(f"- `{row.method}`: {row.reason}" for row in board.left_out.itertuples())]
    return "\n".join(lines) + "\n"


def number(value: float, form: str) -> str:
    return "" if pd.isna(value) else form.format(value)
