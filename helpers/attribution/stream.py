"""Maps of more images than memory holds: explained chunk by chunk, kept on disk in half precision, read back as needed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from tqdm.auto import tqdm

from helpers import files
from helpers.bias.settings import whole
from helpers.models.resume import fingerprint, weights_fingerprint
from helpers.models.running import untouched_random_state
from helpers.names import choose

from .estimate import estimate, of_rows
from .explain import attribute, check_options
from .method import find_method
from .score import Score, borrowed, check_images, check_model, dtype_of, first_scores, resolve_target
from .timing import LONG, duration

DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Maps:
    """Maps on disk. `maps[3]`, `maps[10:20]`, `maps[numbers]` are float32 arrays; only what is asked for is read.

    Attributes
    ----------
    values : (N, H, W) as stored, mapped into memory: each map divided by its largest modulus
    scale : float32 (N,), these moduli; 1 for a map of zeros
    about : dict, how the maps were made: method, backend, options, target, seed, …
    """

    values: np.ndarray
    scale: np.ndarray
    about: dict[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, which: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        if isinstance(which, tuple):
            raise TypeError(f"maps[{which}]: expected numbers of images only; index the array that maps[images] returns")
        return self.values[which].astype(np.float32) * self.scale[which, None, None]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    def chunks(self, size: int = 256) -> Iterator[tuple[slice, np.ndarray]]:
        """Which images, and their maps (n, H, W), `size` at a time."""
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self[rows]


def stream(
    model: nn.Module,
    images: Tensor | np.ndarray | Dataset | DataLoader,
    path: str | Path,
    target: int | Tensor | np.ndarray | None = None,
    method: str = "integrated_gradients",
    backend: str = "auto",
    *,
    dtype: str = "float16",
    chunk: int = 128,
    batch_size: int | None = None,
    memory: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = False,
    **options: Any,
) -> Maps:
    """The maps of `attribute`, written to disk as they come, so that neither images nor maps have to fit into memory.

    Writes `path` (an .npy file, (N, H, W)), the scale of each map beside it (`<name>.scale.npy`), and how they were made
    (`<name>.json`). Until all are there the first two end in `.part`. A call that was interrupted, even killed, goes on from the
    last whole chunk when it is made again; a call that asks for something else at that path is refused.

    In half precision a map is divided by its largest modulus first, so that none overflows or vanishes: what is read back differs
    from the map by at most 1/2000 of that modulus.

    Parameters
    ----------
    model, target, method, backend, batch_size, memory, seed, device, progress, **options : as in `attribute`
    images : float (N, C, H, W) in [0, 1], also an array mapped into memory; a data set of images, or of tuples that begin with
        one; or a `DataLoader` of either that does not shuffle
    path : where to write, with the ending .npy
    dtype : "float16" or "float32"
    chunk : images that are held at a time. Maps of backend "torch" do not depend on it; for others a chunk that begins with image
        number s draws from the seed `seed + s`

    Returns
    -------
    Maps, as `open_maps(path)` returns them.

    Raises
    ------
    ValueError : as in `attribute`; no .npy path; what is at `path` is of another call (what differs is named).

    Examples
    --------
    >>> maps = stream(model, faces, "maps.npy", method="saliency")  # doctest: +SKIP
    >>> frames = [evaluate(model, images[rows], part) for rows, part in maps.chunks()]  # doctest: +SKIP
    """
    chosen, dtype = find_method(method, backend), choose(dtype, DTYPES, "dtype")
    check_options(chosen, options)
    check_model(model)
    if isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1:
        raise ValueError(f"chunk: {chunk!r}; expected a whole number of at least 1")
    seed = whole(seed, "seed", least=0)
    path = files.check(path)
    if path.suffix != ".npy":
        raise ValueError(f"path: {str(path)!r}; expected the ending .npy")
    count, first = number_of(images), next(iter(pieces(images, 0, 1)))
    request = {
        "method": chosen.name,
        "backend": chosen.backend,
        "options": {name: described(value, model) for name, value in options.items()},
        "target": described(target, model),
        "seed": seed,
        "dtype": dtype,
        "shape": [count, *first.shape[1:]],
        "first image": fingerprint(first),
        "model": weights_fingerprint(model),
        "chunk": chunk,
        "batch_size": batch_size,
    }
    values, scale, record = Part(path), Part(path.with_suffix(".scale.npy")), path.with_suffix(".json")
    done = begun(path, record, request)
    if done == 0:
        check_first(model, first, target, count, device)
        path.parent.mkdir(parents=True, exist_ok=True)
        values.make((count, *first.shape[2:]), dtype)
        scale.make((count,), "float32")
        note(record, request, 0)
    name = chosen.name
    if progress and done < count:
        expected = estimate(
            model, (count - done, *first.shape[1:]), name, chosen.backend, batch_size=batch_size, device=device, **options
        ).seconds
        name += f", about {duration(expected)}" if expected >= LONG else ""
    with tqdm(total=count, initial=done, desc=name, disable=not progress) as bar:
        for some in pieces(images, done, chunk):
            rows = slice(done, done + len(some))
            codes = target if target is None or np.ndim(target) == 0 else target[rows]
            here = {key: of_rows(key, value, count, rows) for key, value in options.items()}
            number = {"first": done, "seed": seed} if chosen.backend == "torch" else {"seed": seed + done}
            limits = {"batch_size": batch_size, "memory": memory, "device": device}
            maps = attribute(model, some, codes, chosen.name, chosen.backend, **limits, **number, **here).numpy()
            stored, sizes = packed(maps, dtype)
            values.write(done, stored)
            scale.write(done, sizes)
            done = rows.stop
            note(record, request, done)
            bar.update(len(some))
    scale.finish()
    values.finish()
    return open_maps(path)


def check_first(model: nn.Module, first: Tensor, target: Any, count: int, device: str | torch.device | None) -> None:
    """Refuse a model that does not fit the first image, and targets that do not fit the model or the `count` images."""
    score = Score(model)
    with torch.inference_mode(False), torch.no_grad(), borrowed(score, device) as place:
        classes = first_scores(score, check_images(first).to(place, dtype_of(model))).shape[1]
    if target is not None:
        resolve_target(target, score, torch.empty(count), classes, count)


def packed(maps: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Maps (n, H, W) as they are stored, and the scale (n,) to multiply them with: the largest finite modulus of each.

    The largest is 1 as stored. Half precision rounds numbers above 6e-5 by at most 2⁻¹¹ of themselves, and those below by 3e-8.
    """
    if dtype == "float32":
        return maps.astype(np.float32), np.ones(len(maps), dtype=np.float32)
    size = np.abs(maps, where=np.isfinite(maps), out=np.zeros_like(maps)).max((1, 2)).astype(np.float32)
    size[size == 0] = 1
    return (maps / size[:, None, None].astype(np.float64)).astype(np.float16), size


def open_maps(path: str | Path) -> Maps:
    """The maps that `stream` wrote at `path`, none of them read yet.

    Raises
    ------
    FileNotFoundError : nothing is there.
    ValueError : not all maps are there yet, or they are not from `stream`.
    """
    path = Path(path)
    record = path.with_suffix(".json")
    if not path.exists() and not record.exists():
        raise FileNotFoundError(f"path: there are no maps at {str(path)!r}")
    about = read(record)
    if not path.exists():
        count = about["request"]["shape"][0]
        raise ValueError(f"path: {str(path)!r} has {about['done']} of {count} maps so far; call stream again, to go on")
    values, scale = np.load(path, mmap_mode="r"), np.load(path.with_suffix(".scale.npy"))
    if values.ndim != 3 or scale.shape != values.shape[:1]:
        raise ValueError(f"path: {str(path)!r} holds {values.shape}, with scales {scale.shape}; expected maps written by stream")
    return Maps(values, scale, about["request"])


class Part:
    """An array on disk that is written piece by piece under another name, and gets its own when it is whole.

    Written, not mapped: what is written through a map counts as memory of the process until it is written back.
    """

    def __init__(self, path: Path):
        self.path, self.part = path, path.with_name(path.name + ".part")

    def make(self, shape: tuple[int, ...], dtype: str) -> None:
        np.lib.format.open_memmap(self.part, mode="w+", dtype=dtype, shape=shape)

    def write(self, start: int, values: np.ndarray) -> None:
        """Put values (n, …) at the places from `start` on; they are on disk when this returns."""
        offset = np.load(self.part, mmap_mode="r").offset
        try:
            with open(self.part, "r+b") as file:
                file.seek(offset + start * values[0].nbytes)
                file.write(values.tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            kept = f"{error.strerror}; the chunks before are kept, and the same call goes on from there"
            raise OSError(error.errno, kept, str(self.part)) from error

    def finish(self) -> None:
        if self.part.exists():
            os.replace(self.part, self.path)


def begun(path: Path, record: Path, request: dict[str, Any]) -> int:
    """How many maps of this request are on disk; ValueError if those there are of another one."""
    if not record.exists():
        if path.exists():
            raise ValueError(f"path: {str(path)!r} exists, and is not from stream; give another path, or remove it")
        return 0
    about = read(record)
    if about["done"] == 0 and not path.exists():
        return 0  # nothing of the other call is lost
    asked, there = json.loads(json.dumps(request)), about["request"]
    differing = [key for key in asked | there if asked.get(key) != there.get(key)]
    if differing:
        what = "; ".join(f"{key} was {there.get(key)!r}, is now {asked.get(key)!r}" for key in differing)
        raise ValueError(f"path: {str(path)!r} holds maps of another call: {what}. Give another path, or remove what is there")
    there = any(one.exists() for one in (path, Part(path).part))
    return about["done"] if there else 0


def note(record: Path, request: dict[str, Any], done: int) -> None:
    with files.whole(record) as part:
        part.write_text(json.dumps({"request": request, "done": done}, indent=1), encoding="utf-8")


def read(record: Path) -> dict[str, Any]:
    try:
        about = json.loads(record.read_text(encoding="utf-8"))
        if about["done"] >= 0 and about["request"]["shape"]:
            return about
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"path: {str(record)!r} does not say how maps were made; expected what stream writes beside them")


def described(value: Any, model: nn.Module) -> Any:
    """An option as JSON can hold it: arrays by their fingerprint, layers by their name."""
    if isinstance(value, (Tensor, np.ndarray)):
        return fingerprint(value)
    if isinstance(value, nn.Module):
        return next((name for name, module in model.named_modules() if module is value), repr(value))
    if isinstance(value, (list, tuple)):
        return [described(part, model) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def number_of(images: Any) -> int:
    """How many images there are; ValueError for what has no fixed number or order."""
    if isinstance(images, DataLoader):
        if isinstance(images.sampler, RandomSampler):
            raise ValueError("images: a loader that shuffles; expected one with shuffle=False, so that map i is of image i")
        dropping = images.drop_last and images.batch_size
        return len(images) * images.batch_size if dropping else len(images.sampler)
    if not hasattr(images, "__len__") or not hasattr(images, "__getitem__"):
        raise ValueError(f"images: {type(images).__name__}; expected (N, C, H, W), a data set with a length, or a DataLoader")
    if not len(images):
        raise ValueError(f"images: the {type(images).__name__} is empty")
    return len(images)


def pieces(images: Any, start: int, size: int) -> Iterator[Tensor]:
    """The images from number `start` on, (n, C, H, W), `size` at a time."""
    if isinstance(images, DataLoader):
        with untouched_random_state():
            yield from regrouped(map(picture, images), start, size)
        return
    for begin in range(start, len(images), size):
        end = min(begin + size, len(images))
        if isinstance(images, (Tensor, np.ndarray)):
            yield torch.as_tensor(np.array(images[begin:end]) if isinstance(images, np.memmap) else images[begin:end])
        else:
            yield torch.stack([torch.as_tensor(picture(images[i])) for i in range(begin, end)])


def picture(item: Any) -> Any:
    """The image of an item, or the images of a batch: the first of several parts."""
    return item[0] if isinstance(item, (tuple, list)) else item


def regrouped(batches: Iterable[Tensor], start: int, size: int) -> Iterator[Tensor]:
    """Batches of any size, from image number `start` on, in pieces of `size`."""
    held, passed = [], 0
    for batch in batches:
        batch, passed = batch[max(0, start - passed) :], passed + len(batch)
        if len(batch):
            held = list(torch.cat([*held, batch]).split(size))
            while held and len(held[0]) == size:
                yield held.pop(0)
    yield from held
