"""Recipes: which rows a data set has, in a small JSON from which exactly these are loaded again, or the difference is told."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import helpers
from helpers.data.registry import find_source
from helpers.files import whole
from helpers.names import choose

if TYPE_CHECKING:
    from helpers.data.base import FaceDataset

FORMAT = 1
PARTS = ("train", "validation", "mitigation", "test")
KEYS = ("format", "name", "root", "load", "variant", "steps", "images", "classes", "groups", "check", "versions")
LOAD = ("target", "protected", "split", "image_size", "seed", "options")
CHECKS = ("rows", "labels", "pixels", "chunks", "files", "codes")
STEPS = ("rows", "relabel", "variant", "balanced")
UNSEEN = ("n_jobs", "progress")  # options that change no row
CHUNKS = 32
PIXELS = 32 * 2**20  # bytes of images that a recipe checks; of more, images at equal distances
SMALL = 4000  # bytes: a list of files or labels is kept where it packs to no more


def describe(faces: FaceDataset) -> dict | None:
    """The recipe of a data set that `load_faces` made, a dict that JSON can hold; None for one made by hand.

    Keys: `format`, `name`, `root` (as given, a hint), `load` (target, protected, split, image_size, seed, options), `variant`,
    `steps` (what was done afterwards), `images` (how many), `classes`, `groups`, `versions`, and `check`: SHA-256 of the rows
    (paths, or what a drawing is made from), of their labels and of their pixels, shorter ones of 32 stretches of each, a list
    of all files of the data set and one of labels where these are small.
    """
    if faces.source is None:
        return None
    keys, names = _keys(faces), _labels(faces)
    files = _files(faces)
    codes = np.c_[faces.targets, faces.group].astype("<i4")
    parts = {"rows": keys, "labels": names, "pixels": _pixels(faces)}
    return {
        "format": FORMAT,
        **faces.source,
        "steps": [json.loads(json.dumps(_packed(step), default=_plain)) for step in faces.steps],
        "images": len(faces),
        "classes": list(faces.classes),
        "groups": list(faces.groups),
        "check": {
            **{name: _sha(values) for name, values in parts.items()},
            "chunks": {name: _chunks(values) for name, values in parts.items()},
            "files": None if files is None else _of_files(files),
            "codes": _deflate(codes.tobytes(), SMALL),
        },
        "versions": _versions(),
    }


def source_of(name: str, root, split: str, image_size: int, seed: int, options: dict, wish, faces: FaceDataset) -> dict:
    """What a recipe keeps of a call of `load_faces`; the columns as the data set spells them."""
    plain = {key: value for key, value in options.items() if key not in (*UNSEEN, "root", "target", "protected")}
    return {
        "name": name,
        "root": None if root is None else os.fspath(root),
        "load": {
            "target": faces.target,
            "protected": faces.protected if isinstance(faces.protected, str) else list(faces.protected),
            "split": split,
            "image_size": image_size,
            "seed": seed,
            "options": json.loads(json.dumps(plain, default=_plain)),
        },
        "variant": None if wish is None else json.loads(json.dumps(wish.to_dict(), default=_plain)),
    }


def write(path: str | os.PathLike, recipes: Mapping[str, dict | None]) -> Path | None:
    """Write the recipes that there are, by part ("train", "validation", "mitigation", "test"), as one JSON file.

    Returns
    -------
    Path; None if there is no recipe, and then nothing is left there that an earlier call wrote
    """
    known = {choose(part, PARTS, "part"): recipe for part, recipe in recipes.items() if recipe is not None}
    path = Path(path)
    if not known:
        path.unlink(missing_ok=True)
        return None
    with whole(path) as part:
        part.write_text(json.dumps({"format": FORMAT, "rows": known}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read(recipe: dict | str | os.PathLike) -> dict[str, dict]:
    """The recipes in a file by part; a lone one (`faces.recipe` as JSON) comes under "".

    Parameters
    ----------
    recipe : a dict, or the path of a JSON file: that of a saved model, `report.data.json` or a lone recipe

    Raises
    ------
    FileNotFoundError : no such file.
    ValueError : no recipe, one of another format, or one with a key or value that none has (it is named).
    """
    where = "recipe"
    if not isinstance(recipe, Mapping):
        path, where = Path(recipe).expanduser(), f"recipe: {os.fspath(recipe)}"
        if not path.is_file():
            raise FileNotFoundError(f"{where} does not exist")
        try:
            recipe = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{where} is not readable JSON ({error})") from error
    if isinstance(recipe, dict) and isinstance(recipe.get("info"), dict):  # the description of a saved model
        recipe = {"format": FORMAT, "rows": recipe["info"].get("rows") or {}}
        if not recipe["rows"]:
            raise ValueError(f"{where} is of a model whose training data were not loaded by load_faces; it keeps no rows")
    if not isinstance(recipe, dict):
        raise ValueError(f"{where}: expected an object with the keys {', '.join(KEYS)}, got {type(recipe).__name__}")
    if "rows" in recipe and "name" not in recipe:
        rows = recipe["rows"]
        if not isinstance(rows, dict) or not rows:
            raise ValueError(f"{where}: rows: expected recipes by part ({', '.join(PARTS)}), got {_short(rows)}")
        return {choose(part, PARTS, f"{where}: rows"): _checked(one, f"{where}: {part}") for part, one in rows.items()}
    return {"": _checked(recipe, where)}


def recall(recipe: dict | str | os.PathLike, root=None, *, part: str | None = None, pixels: bool = True) -> FaceDataset:
    """Load exactly the rows of a recipe again, in their order.

    Parameters
    ----------
    recipe : `faces.recipe`, or the path of a JSON file: a saved model's, `report.data.json`, or a lone recipe
    root : where the data lies now; None: where it lay
    part : "train", "validation", "mitigation" or "test", for a file that holds several; None: the only one
    pixels : whether other pixels in the same files are refused; False lets them through, such as after another decoder

    Returns
    -------
    FaceDataset with the images, labels, classes and groups of the one that the recipe is of

    Raises
    ------
    FileNotFoundError : the recipe or the data is not there.
    ValueError : no recipe, or data that differs: files that are missing or new, other labels, other rows, other pixels, with
        the first examples.

    Examples
    --------
    >>> faces = helpers.load_faces("orl", split="test").subset(range(20))
    >>> again = recall(faces.recipe)
    >>> bool((again.images == faces.images).all())
    True
    """
    found = read(recipe)
    if part is not None and "" not in found:
        part = choose(part, found, "part")
    elif len(found) > 1:
        raise ValueError(f"part: the recipe holds {', '.join(found)}; name one of them")
    said = found.get(part) or next(iter(found.values()))

    from helpers.data import load_faces

    load = said["load"]
    place = said["root"] if root is None else root
    further = {} if said["variant"] is None else {"variant": said["variant"]}
    protected = load["protected"]
    try:
        faces = load_faces(
            said["name"],
            root=place,
            target=load["target"],
            protected=protected if isinstance(protected, str) else tuple(protected),
            split=load["split"],
            image_size=load["image_size"],
            seed=load["seed"],
            **further,
            **load["options"],
        )
    except TypeError as error:
        raise ValueError(f"recipe: load: {error}") from error
    difference = _other_files(said, faces)
    if difference is None:
        for step in said["steps"]:
            faces = _replay(faces, step)
        difference = _other_rows(said, faces, pixels)
    if difference is not None:
        raise ValueError(f"recipe: the data is not what it was: {difference}")
    return faces


def _replay(faces: FaceDataset, step: dict) -> FaceDataset:
    (kind, what), *_ = step.items()
    if kind == "rows":
        return faces.subset(_unpacked(what, len(faces)))
    if kind == "relabel":
        return faces.relabel(what.get("target"), what.get("protected"))
    if kind == "variant":
        return faces.variant(what["wanted"], seed=what["seed"])
    return faces.balanced(what["seed"])


def _other_files(said: dict, faces: FaceDataset) -> str | None:
    """How the files of the whole data set differ, if they do."""
    then, now = said["check"]["files"], _files(faces)
    if then is None or now is None or then["sha256"] == _sha(now):
        return None
    changed = f"it has {len(now)} images in all splits, and had {then['images']}"
    if then["list"] is None:
        return f"{changed}; of the sorted files, they differ {_where(then['chunks'], now, now, then['images'])}"
    before = _inflate(then["list"]).decode("utf-8").split("\n")
    return "; ".join([changed, *_gone_and_new(before, now)])


def _other_rows(said: dict, faces: FaceDataset, pixels: bool) -> str | None:
    """How the chosen rows, their labels or their pixels differ, if they do."""
    check, keys = said["check"], _keys(faces)
    other = {name: version for name, version in _versions().items() if said["versions"].get(name) not in (None, version)}
    versions = "".join(f"; {name} was {said['versions'][name]} and is {now}" for name, now in other.items())
    if check["rows"] != _sha(keys) or said["images"] != len(faces):
        return (
            f"{len(faces)} rows come out, and there were {said['images']}; "
            f"{_where(check['chunks']['rows'], keys, keys, said['images'])}, with the same seed and steps{versions}"
        )
    names = _labels(faces)
    if check["labels"] != _sha(names):
        if check["codes"] is None:
            return f"the files are the same, and labels differ {_where(check['chunks']['labels'], names, keys, len(names))}"
        codes = np.frombuffer(_inflate(check["codes"]), "<i4").reshape(-1, 2)
        if len(codes) != len(faces) or (codes < 0).any() or (codes.max(0) >= [len(said["classes"]), len(said["groups"])]).any():
            _refuse("recipe: check: codes", check["codes"])
        before = [f"{said['classes'][c]}, {said['groups'][g]}" for c, g in codes]
        now = [name.replace("\t", ", ") for name in names]
        rows = [row for row, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]
        shown = "; ".join(f"{keys[row]} is {now[row]} and was {before[row]}" for row in rows[:3])
        return f"the files are the same, and {len(rows)} of {len(faces)} have other labels: {shown}"
    if list(faces.classes) != said["classes"] or list(faces.groups) != said["groups"]:
        return (
            f"its classes and groups are {', '.join(faces.classes)} and {', '.join(faces.groups)}, and were "
            f"{', '.join(said['classes'])} and {', '.join(said['groups'])}"
        )
    seen = _pixels(faces)
    if pixels and check["pixels"] != _sha(seen):
        rows = np.array(keys, dtype=object)[_sampled(faces)]
        place = _where(check["chunks"]["pixels"], seen, rows, len(seen))
        return f"files and labels are the same, and pixels differ {place}{versions} (pixels=False lets that through)"
    return None


def _gone_and_new(before: Sequence[str], now: Sequence[str]) -> list[str]:
    said = []
    for names, word in ((sorted(set(before) - set(now)), "missing"), (sorted(set(now) - set(before)), "new")):
        if names:
            said.append(f"{len(names)} {'is' if len(names) == 1 else 'are'} {word}: {', '.join(names[:3])}")
            said[-1] += ", …" if len(names) > 3 else ""
    return said


def _where(chunks: Sequence[str], values: Sequence, keys: Sequence[str], n: int) -> str:
    """The first stretch in which the checksums of what were n values differ, and what stands there now."""
    edges = _edges(n)
    differs = (i for i, chunk in enumerate(chunks[: len(edges) - 1]) if chunk != _sha(values[edges[i] : edges[i + 1]])[:8])
    first = next(differs, None)
    start, stop = (n, len(values)) if first is None else edges[first : first + 2]
    start = min(start, len(keys) - 1)
    stop = max(min(stop, len(keys)) - 1, start)
    return f"first in rows {start} to {stop} (now {keys[start]} to {keys[stop]})"


def _keys(faces: FaceDataset) -> list[str]:
    """What each row is: its path, or for faces without one all that its drawing is made from."""
    if "path" in faces.table:
        return faces.table["path"].astype(str).tolist()
    columns = [
        column.map("{:.6g}".format if column.dtype == float else str).tolist() for _, column in faces.table.items()
    ]
    return [" ".join(row) for row in zip(*columns, strict=True)]


def _labels(faces: FaceDataset) -> list[str]:
    names = [f"{label}\t{group}" for label in faces.classes for group in faces.groups]
    return np.array(names, dtype=object)[faces.targets * len(faces.groups) + faces.group].tolist()


def _files(faces: FaceDataset) -> list[str] | None:
    """The paths of the whole data set, all splits, sorted; None for drawn faces."""
    return sorted(faces.reference["path"].astype(str)) if "path" in faces.reference else None


def _sampled(faces: FaceDataset) -> np.ndarray:
    n = len(faces)
    return np.unique(np.linspace(0, n - 1, min(n, max(PIXELS // faces.images[0].nbytes, 1))).astype(int))


def _pixels(faces: FaceDataset) -> list[bytes]:
    return [np.ascontiguousarray(faces.images[row]).tobytes() for row in _sampled(faces)]


def _edges(n: int) -> list[int]:
    """Where at most 32 stretches of n values begin and end, equally long to within one."""
    return np.linspace(0, n, min(CHUNKS, n) + 1).astype(int).tolist()


def _chunks(values: Sequence) -> list[str]:
    edges = _edges(len(values))
    return [_sha(values[start:stop])[:8] for start, stop in zip(edges[:-1], edges[1:], strict=True)]


def _sha(values: Sequence[str] | Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    if values and isinstance(values[0], str):
        digest.update("\n".join(values).encode("utf-8", "surrogateescape"))
    else:
        for value in values:
            digest.update(value)
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    found = {"candor": helpers.__version__}
    for package in ("numpy", "pandas", "scipy", "pillow", "dicebear-styles", "resvg-py"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _of_files(files: list[str]) -> dict:
    """What a recipe keeps of the sorted paths of the whole data set: their list, where it is small."""
    listed = "\n".join(files).encode("utf-8", "surrogateescape")
    listed = _deflate(listed, SMALL) if len(files) <= 20 * SMALL else None
    return {"images": len(files), "sha256": _sha(files), "chunks": _chunks(files), "list": listed}


def _deflate(content: bytes, most: int | None = None) -> str | None:
    """Packed bytes as text; None if they pack to more than `most` bytes."""
    if most is not None and len(content) > 1000 * most:
        return None
    packed = zlib.compress(content, 9)
    return None if most is not None and len(packed) > most else base64.b64encode(packed).decode("ascii")


def _inflate(text: str, most: int = 2**27) -> bytes:
    try:
        opened = zlib.decompressobj()
        content = opened.decompress(base64.b64decode(text, validate=True), most)
        if not opened.eof:
            raise ValueError(f"more than {most} bytes, or cut off")
    except (binascii.Error, zlib.error, TypeError, ValueError) as error:
        raise ValueError(f"recipe: {_short(text)} is no packed list ({error})") from error
    return content


def _packed(step: dict) -> dict:
    """A step as JSON: row numbers as ranges, as a bitmap or as a list, whichever says them all."""
    if "rows" not in step:
        return step
    rows, of = step["rows"], step["of"]
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    if len(breaks) <= 200:
        runs = np.split(rows, breaks) if len(breaks) else [rows]
        said = {"ranges": ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)}
    elif (np.diff(rows) > 0).all():
        said = {"bitmap": _deflate(np.packbits(np.bincount(rows, minlength=of).astype(bool)).tobytes())}
    else:
        said = {"list": _deflate(rows.astype("<i4").tobytes())}
    return {"rows": {"of": of, **said}}


def _unpacked(said: dict, n: int) -> np.ndarray:
    """The row numbers of a packed step, for a data set of n rows."""
    if said["of"] != n:
        raise ValueError(f"recipe: the data is not what it was: a step picks from {said['of']} rows, and there are {n}")
    if "ranges" in said:
        runs = []
        for run in said["ranges"].split(","):
            first, _, last = run.partition("-")
            if not first.isdecimal() or not (last or first).isdecimal() or int(last or first) >= n:
                raise ValueError(f"recipe: steps: {run!r} is no range of rows below {n}")
            runs.append(np.arange(int(first), int(last or first) + 1))
        return np.concatenate(runs)
    if "bitmap" in said:
        bits = np.unpackbits(np.frombuffer(_inflate(said["bitmap"], n // 8 + 1), np.uint8))
        return np.flatnonzero(bits[:n])
    packed = _inflate(said["list"])
    rows = np.frombuffer(packed[: len(packed) // 4 * 4], "<i4").astype(np.int64)
    if len(rows) == 0 or rows.min() < 0 or rows.max() >= n:
        raise ValueError(f"recipe: steps: a list of rows is empty or leaves the {n} rows")
    return rows


def _checked(said, where: str) -> dict:
    """A recipe whose every value is of the kind that `describe` writes, so that replaying it does nothing else."""
    if not isinstance(said, dict):
        raise ValueError(f"{where}: expected an object with the keys {', '.join(KEYS)}, got {_short(said)}")
    if said.get("format") != FORMAT:
        raise ValueError(f"{where}: format: expected {FORMAT}, got {_short(said.get('format'))}")
    _exact(said, KEYS, where)
    _exact(said["load"], LOAD, f"{where}: load")
    _exact(said["check"], CHECKS, f"{where}: check")
    expect = lambda fits, place, value: fits or _refuse(f"{where}: {place}", value)
    texts = lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value)
    load, check = said["load"], said["check"]
    expect(isinstance(said["name"], str), "name", said["name"])
    parameters = signature(find_source(said["name"])).parameters
    expect(said["root"] is None or isinstance(said["root"], str), "root", said["root"])
    expect(isinstance(load["target"], str), "load: target", load["target"])
    expect(isinstance(load["protected"], str) or texts(load["protected"]), "load: protected", load["protected"])
    expect(isinstance(load["options"], dict), "load: options", load["options"])
    for option in load["options"]:
        choose(option, [name for name in parameters if name not in ("root", *LOAD)], f"{where}: load: options")
    expect(said["variant"] is None or isinstance(said["variant"], dict), "variant", said["variant"])
    number = lambda value: isinstance(value, int) and 0 < value < 2**40
    expect(number(said["images"]), "images", said["images"])
    for key in ("classes", "groups"):
        expect(texts(said[key]), key, said[key])
    for key in ("rows", "labels", "pixels"):
        expect(isinstance(check[key], str), f"check: {key}", check[key])
        expect(isinstance(check["chunks"], dict) and texts(check["chunks"].get(key)), f"check: chunks: {key}", check["chunks"])
    expect(check["codes"] is None or isinstance(check["codes"], str), "check: codes", check["codes"])
    if check["files"] is not None:
        _exact(check["files"], ("images", "sha256", "chunks", "list"), f"{where}: check: files")
        expect(number(check["files"]["images"]), "check: files: images", check["files"]["images"])
        expect(texts(check["files"]["chunks"]), "check: files: chunks", check["files"]["chunks"])
    expect(isinstance(said["versions"], dict), "versions", said["versions"])
    expect(isinstance(said["steps"], list), "steps", said["steps"])
    for step in said["steps"]:
        expect(isinstance(step, dict) and len(step) == 1 and isinstance([*step.values()][0], dict), "steps", step)
        (kind, what), *_ = step.items()
        kind = choose(kind, STEPS, f"{where}: steps")
        if kind == "rows":
            form = [key for key in what if key != "of"]
            expect(form in (["ranges"], ["bitmap"], ["list"]) and isinstance(what.get("of"), int), "steps: rows", what)
            expect(isinstance(what[form[0]], str), "steps: rows", what)
        else:
            keys = {"relabel": ("target", "protected"), "variant": ("wanted", "seed"), "balanced": ("seed",)}[kind]
            _exact(what, keys, f"{where}: steps: {kind}")
            expect("seed" not in what or isinstance(what["seed"], int) and what["seed"] >= 0, "steps: seed", what)
            for column in ("target", "protected"):
                name = what.get(column)
                expect(name is None or isinstance(name, str) or texts(name) and column == "protected", f"steps: {kind}", what)
    return said


def _exact(said, keys: Sequence[str], where: str) -> None:
    if not isinstance(said, dict):
        _refuse(where, said)
    for key in said:
        choose(key, keys, where)
    lacking = [key for key in keys if key not in said]
    if lacking:
        raise ValueError(f"{where}: lacks {', '.join(lacking)}")


def _refuse(where: str, value) -> None:
    raise ValueError(f"{where}: {_short(value)} came, which no recipe has there")


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _plain(value):
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    return os.fspath(value) if isinstance(value, os.PathLike) else list(value)
