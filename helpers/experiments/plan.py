"""What is to be done: a YAML file read into problems and methods, each cell with the hash of what is said of it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from helpers.debiasing import METHODS
from helpers.debiasing.result import VANILLA
from helpers.names import choose

SPLITS = ("train", "validation", "test")
FIELDS = ("data", "biases", "model", "methods", "seeds")
OF_MODEL = ("architecture", "epochs", "batch_size", "lr", "weight_decay", "augment", "balance")
VERSION = 1  # of what a cell means: another one is computed anew


@dataclass(frozen=True)
class Problem:
    """A data set, a bias and a seed.

    Attributes
    ----------
    data, bias : their names in the plan
    seed : of the faces, of the network and of the methods
    load, model : options of `load_faces` by split, and of `train`
    """

    data: str
    bias: str
    seed: int
    load: dict[str, dict]
    model: dict

    @property
    def key(self) -> str:
        return _hash({"load": self.load, "model": self.model, "seed": self.seed, "version": VERSION})


@dataclass(frozen=True)
class Plan:
    """What a file asks for: problems, and the options of each method."""

    problems: tuple[Problem, ...]
    methods: dict[str, dict]

    def cells(self) -> list[tuple[Problem, str]]:
        """Every method on every problem, the network as it was first, in the order of the file."""
        return [(problem, method) for problem in self.problems for method in (VANILLA, *self.methods)]

    def file(self, out: Path, problem: Problem, method: str) -> Path:
        """Where a cell is kept."""
        key = _hash({"problem": problem.key, "method": method, "options": self.methods.get(method, {})})
        return out / "cells" / f"{key}.json"


def read_plan(source: str | os.PathLike | Mapping) -> Plan:
    """A plan from a YAML file, or from the dict that such a file holds.

    Parameters
    ----------
    source : with the keys
        `data` : name -> options of `load_faces`; `name` is the data set ("illustrated", …), and `train`, `validation`, `test`
            hold what is for one split alone
        `biases` : name -> further options of the training split, such as `{correlation: 0.9}`; by default one, without any
        `model` : options of `train`, and `architecture`
        `methods` : keys of `METHODS`, as a list or with their options
        `seeds` : whole numbers

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : no YAML; a key, method or option that is not known, with the nearest; nothing to do.
    """
    if isinstance(source, Mapping):
        given = dict(source)
    else:
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"plan: no file {str(path)!r}")
        try:
            given = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"plan: {str(path)!r} is not YAML: {' '.join(str(error).split())}") from error
    given = _mapping(given, "plan", FIELDS)
    data = {name: _mapping(own, f"data.{name}") for name, own in _mapping(given.get("data"), "data").items()}
    biases = _mapping(given.get("biases") or {"as it is": {}}, "biases")
    biases = {name: _mapping(own or {}, f"biases.{name}") for name, own in biases.items()}
    model = {"architecture": "resnet18", **_mapping(given.get("model") or {}, "model", OF_MODEL)}
    methods = given.get("methods")
    methods = dict.fromkeys(methods, None) if isinstance(methods, list | tuple) else _mapping(methods, "methods")
    chosen = {}
    for name, own in methods.items():
        key = choose(name, METHODS, "methods")
        chosen[key] = _mapping(own or {}, f"methods.{key}", METHODS[key].defaults)
    seeds = given.get("seeds", [0])
    if not isinstance(seeds, list | tuple) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ValueError(f"seeds: {seeds!r}; expected a list of whole numbers of at least 0, such as [0, 1, 2]")
    if not chosen:
        raise ValueError(f"methods: none given; accepted: {', '.join(METHODS)}")
    problems = []
    for name, own in data.items():
        if "name" not in own:
            raise ValueError(f"data.{name}: {own!r}; expected `name`, the data set, and options of load_faces")
        for bias, further in biases.items():
            shared = {key: value for key, value in own.items() if key not in SPLITS}
            load = {split: shared | _mapping(own.get(split) or {}, f"data.{name}.{split}") for split in SPLITS}
            load["train"] |= further
            problems += [Problem(name, bias, seed, load, model) for seed in dict.fromkeys(seeds)]
    if not problems:
        raise ValueError("data: none given; expected a name with options of load_faces")
    return Plan(tuple(problems), chosen)


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:20]


def _mapping(given: Any, what: str, accepted=None) -> dict:
    if not isinstance(given, Mapping):
        raise ValueError(f"{what}: {given!r}; expected names with values" + (f", of {', '.join(accepted)}" if accepted else ""))
    for name in given if accepted is not None else ():
        choose(name, accepted, what)
    return {str(name): value for name, value in given.items()}
