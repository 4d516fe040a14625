"""Drawn faces with known causes: exact attributes, masks and counterfactuals, and as much bias as asked for."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from torch import Tensor
from tqdm.auto import tqdm

from helpers.data.base import FaceDataset
from helpers.data.cache import cache_dir
from helpers.data.masks import attribute_mask, region_masks
from helpers.data.registry import source
from helpers.data.rendering import Nuisance, draw_nuisance, render
from helpers.data.sampling import whole_shares
from helpers.data.styles import ATTRIBUTES, GUIDES, Person, draw_person
from helpers.files import whole
from helpers.names import choose

SPLITS = {"train": 0, "validation": 1, "test": 2}
SIZES = {"train": 4000, "validation": 1000, "test": 2000}
IDENTITY_LEVEL = ("facial_hair", "hair_length", "skin_tone")
CHUNK = 250
DEFAULT_CORRELATION = 0.8
DRAWING = 1  # raised whenever the same table would give other pixels, so that old renders are not taken for new ones


class IllustratedFaces(FaceDataset):
    """A `FaceDataset` that can redraw its faces.

    Adds `mask`, `regions` and `counterfactual`. Its table holds, beside the attributes, `identity`, `style`, the
    nuisances `blur` (fraction of the side) and `light` (factor), and the seeds from which each picture is redrawn.
    """

    @property
    def nuisance(self) -> float:
        """Strength of crop, blur, light, background and noise: 0 is a studio picture, 1 the default."""
        return float(self.table["nuisance"].iloc[0])

    def face(self, i: int) -> tuple[Person, dict, Nuisance]:
        """What picture `i` is drawn from: the person, the attributes and the nuisances."""
        row = self.table.iloc[i]
        return _person(row), _attributes(row), _nuisance(row)

    def mask(self, i: int, attribute: str) -> np.ndarray:
        """Pixels of image `i` that depend on `attribute`: bool (H, W).

        The picture is drawn with every other value of the attribute; the mask is where any of them differs. For
        `smiling` that is the mouth (in Open Peeps the whole expression), for `glasses` the glasses, worn or not.

        Raises
        ------
        ValueError : `attribute` is unknown, or the face's style has no drawing for it.
        """
        attribute = self._drawable(i, attribute)
        return attribute_mask(*self.face(i), self.image_size, attribute)

    def masks(self, indices: Sequence[int], attribute: str) -> Tensor:
        """`mask` for several images: bool (n, H, W)."""
        return torch.from_numpy(np.stack([self.mask(int(i), attribute) for i in indices]))

    def regions(self, i: int) -> dict[str, np.ndarray]:
        """The parts of face `i`: a bool (H, W) mask for each name in `helpers.data.masks.REGIONS`, covering each pixel once."""
        return region_masks(*self.face(i), self.image_size)

    def counterfactual(self, i: int, attribute: str, value=None) -> Tensor:
        """Image `i` redrawn with only `attribute` changed: float32 (3, H, W) in [0, 1].

        Parameters
        ----------
        i : int, row of the data set
        attribute : str, a key of `helpers.data.styles.ATTRIBUTES`
        value : the new value; None: the next one (the other one, for a yes/no attribute)

        Raises
        ------
        ValueError : unknown attribute or value, or the face's style has no drawing for it.
        """
        attribute = self._drawable(i, attribute)
        person, attributes, nuisance = self.face(i)
        values = ATTRIBUTES[attribute]
        if value is None:
            value = values[(values.index(attributes[attribute]) + 1) % len(values)]
        elif value not in values:
            raise ValueError(f"value: {attribute} cannot be {value!r}; accepted: {', '.join(map(str, values))}")
        picture = render(person, {**attributes, attribute: value}, nuisance, self.image_size)
        return torch.from_numpy(picture).permute(2, 0, 1).float() / 255

    def _drawable(self, i: int, attribute: str) -> str:
        """The attribute as `ATTRIBUTES` spells it, if the style of face `i` has a drawing for it."""
        attribute = choose(attribute, ATTRIBUTES, "attribute")
        style = self.table["style"].iloc[i]
        if attribute in GUIDES[style].cannot:
            able = [name for name, guide in GUIDES.items() if attribute not in guide.cannot]
            raise ValueError(f"attribute: the style {style!r} of image {i} has no drawing for {attribute!r}; "
                             f"these have: {', '.join(able)} (option styles=)")
        return attribute


def _person(row) -> Person:
    return draw_person(row["style"], np.random.default_rng(int(row["person_seed"])))


def _attributes(row) -> dict:
    return {name: row[name] for name in ATTRIBUTES}


def _nuisance(row) -> Nuisance:
    return draw_nuisance(np.random.default_rng(int(row["picture_seed"])), float(row["nuisance"]))


def _seed(*key: int | str) -> int:
    """A 62-bit seed from a readable key, the same on every machine."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:8], "big") >> 2


def _levels(n: int, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """n codes in random order whose counts are `shares` of n, rounded by largest remainder: no sampling noise."""
    wanted = shares / shares.sum() * n
    counts = np.floor(wanted).astype(int)
    counts[np.argsort(-(wanted - counts), kind="stable")[: n - counts.sum()]] += 1
    return rng.permutation(np.repeat(np.arange(len(shares)), counts))


def joint_shares(target: str, biased: str, correlation: float) -> np.ndarray:
    """Share of each (protected value, target value): float (P, T), rows and columns balanced.

    With T target values, a picture's target agrees with its protected value (code modulo T) with probability
    1/T + correlation (1 − 1/T) and otherwise takes each other value equally often. For two yes/no attributes
    `correlation` is their phi coefficient: 0 unrelated, 1 always together, −1 never.
    """
    rows, columns = len(ATTRIBUTES[biased]), len(ATTRIBUTES[target])
    agree = 1 / columns + correlation * (1 - 1 / columns)
    shares = np.full((rows, columns), (1 - agree) / (columns - 1))
    shares[np.arange(rows), np.arange(rows) % columns] = agree
    return shares / rows


def sample_table(n: int, split: str, target: str, protected: Sequence[str], correlation: float, per_identity: int,
                 styles: Sequence[str], nuisance: float, seed: int) -> pd.DataFrame:
    """The faces to draw: one row an image, every attribute, the identity, and the seeds of its drawing.

    Cells of (protected, target) have the wanted sizes exactly; attributes that are not under study are independent of
    both. Facial hair, hair length and skin tone belong to the identity unless they are under study.
    """
    rng = np.random.default_rng(_seed("table", seed, split, n, target, *protected, correlation))
    people = -(-n // per_identity)
    identity = np.repeat(np.arange(people), per_identity)[:n]
    style = np.array(styles, dtype=object)[_levels(people, np.ones(len(styles)), rng)][identity]
    independent = {"smiling": 0.5, "glasses": 0.3, "facial_hair": 0.3, "head_covering": 0.15}
    table = pd.DataFrame({"identity": [f"{split}-{seed}-{k:06d}" for k in identity], "style": style})
    for name, values in ATTRIBUTES.items():
        owner = name in IDENTITY_LEVEL
        shares = np.array([1 - independent[name], independent[name]]) if name in independent else np.ones(len(values))
        codes = _levels(people if owner else n, shares, rng)
        table[name] = [values[code] for code in (codes[identity] if owner else codes)]
    biased = protected[0]
    shares = joint_shares(target, biased, correlation)
    cells = _levels(n, shares.ravel(), rng)
    table[biased] = [ATTRIBUTES[biased][c] for c in cells // shares.shape[1]]
    table[target] = [ATTRIBUTES[target][c] for c in cells % shares.shape[1]]
    for name in protected[1:]:
        table[name] = [ATTRIBUTES[name][c] for c in _levels(n, np.ones(len(ATTRIBUTES[name])), rng)]
    under_study = {target, *protected}
    for name in ATTRIBUTES:  # what a style cannot draw is not there
        cannot = table["style"].map(lambda s, name=name: name in GUIDES[s].cannot).to_numpy()
        table.loc[cannot, name] = ATTRIBUTES[name][0]
    if "hair_length" in under_study:  # a head covering would hide the attribute under study
        table["head_covering"] = False
    table["nuisance"] = nuisance
    table["person_seed"] = [_seed("person", seed, split, int(k)) for k in identity]
    table["picture_seed"] = [_seed("picture", seed, split, k) for k in range(n)]
    pictures = [draw_nuisance(np.random.default_rng(s), nuisance) for s in table["picture_seed"]]
    table["blur"] = [p.blur for p in pictures]
    table["light"] = [p.light for p in pictures]
    table["split"] = split
    return table


def _render_chunk(rows: pd.DataFrame, size: int, path: Path) -> None:
    pictures = np.stack([render(_person(row), _attributes(row), _nuisance(row), size) for _, row in rows.iterrows()])
    with whole(path) as part, open(part, "wb") as file:
        np.save(file, pictures)


def render_table(table: pd.DataFrame, size: int, *, n_jobs: int = -1, progress: bool = True) -> np.ndarray:
    """Draw every row of `table` on all cores, or take the pictures from the cache: uint8 (N, size, size, 3), memory-mapped.

    Drawn in chunks, each written through a temporary file and a rename: an interrupted run goes on where it stopped.
    """
    drawn = table[[*ATTRIBUTES, "style", "nuisance", "person_seed", "picture_seed"]]
    packages = [version(name) for name in ("dicebear-core", "dicebear-styles", "resvg-py")]
    key = hashlib.sha256(json.dumps([DRAWING, size, packages, drawn.to_csv(index=False)]).encode()).hexdigest()[:20]
    final = cache_dir("illustrated") / f"{key}.npy"
    if not final.is_file():
        folder = cache_dir("illustrated", f"{key}.parts")
        starts = range(0, len(drawn), CHUNK)
        parts = [folder / f"{start:08d}.npy" for start in starts]
        todo = [(start, part) for start, part in zip(starts, parts, strict=True) if not part.is_file()]
        jobs = (delayed(_render_chunk)(drawn.iloc[start : start + CHUNK], size, part) for start, part in todo)
        bar = tqdm(total=len(drawn), initial=len(drawn) - CHUNK * len(todo) if len(todo) < len(parts) else 0,
                   desc="drawing faces", unit="face", disable=not progress)
        with bar:
            for _ in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(jobs):
                bar.update(min(CHUNK, len(drawn) - bar.n))
        try:
            pictures = np.concatenate([np.load(part) for part in parts])
            with whole(final) as part, open(part, "wb") as file:
                np.save(file, pictures)
        except (FileNotFoundError, PermissionError):
            # Another process drew the same faces, finished first and cleared the parts; Windows replaces no file that is mapped.
            if not final.is_file():
                raise
        shutil.rmtree(folder, ignore_errors=True)
    return np.load(final, mmap_mode="r")


def _several(value, argument: str) -> tuple:
    """A name or several as a tuple."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        raise ValueError(f"{argument}: expected a name or several, got {value!r}")
    return tuple(value)


def _check_number(value, argument: str, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value <= high:
        raise ValueError(f"{argument}: expected a number in [{low}, {high}], got {value!r}")


def _check_whole(value, argument: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{argument}: expected a whole number of at least {least}, got {value!r}")


@source("illustrated")
def load_illustrated(*, root=None, target: str = "smiling", protected: str | Sequence[str] = "glasses",
                     split: str = "train", image_size: int = 64, seed: int = 0,
                     n: int | None = None, correlation: float | None = None, styles: Sequence[str] | str = tuple(GUIDES),
                     nuisance: float = 1.0, images_per_identity: int = 4, n_jobs: int = -1,
                     progress: bool = True) -> IllustratedFaces:
    """Draw a data set of faces.

    Parameters
    ----------
    target, protected : names in `helpers.data.styles.ATTRIBUTES`; of several protected ones, the first is biased
    split : "train" (biased by `correlation`), "validation", "test" (unbiased unless `correlation` is given) or "all"
    n : number of images; None: 4,000, 1,000 and 2,000 by split; "all" shares n out among the splits as 4 : 1 : 2
    correlation : float in [-1, 1], how strongly target and protected attribute go together (see `joint_shares`)
    styles : which drawing styles; those that cannot draw an attribute under study are left out
    nuisance : float in [0, 1], strength of crop, rotation, blur, light, background and noise
    images_per_identity : how many pictures of each drawn person
    seed : the same seed gives the same bytes; no identity occurs under two seeds or in two splits

    Raises
    ------
    ValueError : an unknown attribute, style or split, a correlation or nuisance out of range, or no style that can draw both.
    """
    if root is not None:
        raise ValueError(f"root: 'illustrated' is drawn, not read, so it takes no folder; got {str(root)!r}")
    target = choose(target, ATTRIBUTES, "target")
    names = _several(protected, "protected")
    names = tuple(choose(name, ATTRIBUTES, "protected") for name in names)
    if not names or target in names or len(set(names)) < len(names):
        raise ValueError(f"protected: expected attributes other than the target {target!r}, each once; got {protected!r}")
    if split != "all":
        split = choose(split, SPLITS, "split")
    if correlation is not None:
        _check_number(correlation, "correlation", -1, 1)
    _check_number(nuisance, "nuisance", 0, 1)
    if n is not None:
        _check_whole(n, "n", 3 if split == "all" else 1)
    _check_whole(images_per_identity, "images_per_identity", 1)
    asked = tuple(choose(style, GUIDES, "styles") for style in _several(styles, "styles"))
    if not asked:
        raise ValueError(f"styles: expected at least one of {', '.join(GUIDES)}, got none")
    able = tuple(style for style in asked if not {target, *names} & set(GUIDES[style].cannot))
    if not able:
        raise ValueError(f"styles: none of {', '.join(asked)} can draw {target!r} and {', '.join(names)} together")
    sizes = SIZES if n is None else {split: int(n)}
    if n is not None and split == "all":
        sizes = dict(zip(SIZES, whole_shares(int(n), np.array([*SIZES.values()]) / sum(SIZES.values())).tolist(), strict=True))
    tables = []
    for part in SPLITS if split == "all" else (split,):
        size = sizes[part]
        strength = correlation if correlation is not None else DEFAULT_CORRELATION if part == "train" else 0.0
        tables.append(sample_table(size, part, target, names, strength, images_per_identity, able, nuisance, seed))
    pictures = [render_table(table, image_size, n_jobs=n_jobs, progress=progress) for table in tables]
    images = pictures[0] if len(pictures) == 1 else np.concatenate(pictures)
    vocabulary = pd.DataFrame({name: [values[k % len(values)] for k in range(6)] for name, values in ATTRIBUTES.items()})
    return IllustratedFaces(images, pd.concat(tables, ignore_index=True), target=target,
                            protected=names[0] if len(names) == 1 else names, name="illustrated", split=split,
                            reference=vocabulary)
