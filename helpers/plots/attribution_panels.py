"""Side by side: maps before and after a fix, and mean maps of methods × groups with the pixels that differ by more than noise.

Red speaks for the class, blue against it, white is zero, grey has no number. Every scale is drawn, is symmetric about zero and
ends at the 99th percentile of the sizes that it covers. What is to be compared by eye has one scale; differences have their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from helpers.names import choose
from helpers.plots.attribution import (
    SCALES,
    _array,
    _bare,
    _check_shape,
    _check_titles,
    _colours,
    _end,
    _map,
    _pictures,
    _say,
    _say_end,
    _words,
)
from helpers.plots.style import alt

if TYPE_CHECKING:
    from torch import Tensor

CELL = 1.35  # inches a picture


def before_after(
    images: Tensor | np.ndarray,
    before: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray],
    after: Tensor | np.ndarray | Mapping[str, Tensor | np.ndarray],
    titles: Sequence[str] | None = None,
    *,
    images_after: Tensor | np.ndarray | None = None,
    names: tuple[str, str] = ("before", "after"),
    scores: tuple[Sequence[float], Sequence[float]] | None = None,
    overlay: bool = False,
    scale: str = "method",
) -> Figure:
    """One row a face: its map by the model before, by the model after, and after minus before.

    Parameters
    ----------
    images : float (N, 3, H, W) in [0, 1]
    before, after : float (N, H, W), signed, of the same images by the same method; or both by name of the method
    titles : N texts, to the left of the rows
    images_after : as `images`, where not the model but the face was changed (redrawn): shown beside them
    names : what "before" and "after" are called in the figure
    scores : the model's score of what is explained before and after, N numbers each, written beneath the title
    overlay : lay the maps over the grey face
    scale : "method": before and after of all faces on one scale, differences on another; "map": so for each face, whose ends
        stand under its maps

    Returns
    -------
    Figure.

    Raises
    ------
    ValueError : another shape, other methods after than before, titles or scores that differ in number, an unknown scale.
    """
    pictures, scale = _pictures(images), choose(scale, SCALES, "scale")
    first, second = (_named(maps, pictures.shape[:3], name) for maps, name in ((before, "before"), (after, "after")))
    if set(first) != set(second):
        raise ValueError(f"after: maps of {', '.join(map(repr, second))}; before has {', '.join(map(repr, first))}")
    _check_titles(titles, len(pictures))
    titles = _with_scores(titles, scores, len(pictures))

    later = None if images_after is None else _pictures(images_after)
    if later is not None and later.shape != pictures.shape:
        came, wanted = (f"{len(each)} of {each.shape[1:3]}" for each in (later, pictures))
        raise ValueError(f"images_after: {came}; expected {wanted}, as images")
    if isinstance(names, str) or len(names) != 2:
        raise ValueError(f"names: {names!r} given; expected two, of before and after")

    left = 1 if later is None else 2  # columns of faces
    count, wide = len(pictures), left + 3 * len(first)
    figure, grid = plt.subplots(
        count + 1,  # the last row holds the scales
        wide,
        figsize=(CELL * wide + (1.0 if titles else 0.1), CELL * count + 0.9),
        height_ratios=[*[1] * count, 0.06],
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    for column, faces in enumerate((pictures, later)[:left]):
        for ax, picture in zip(grid[:, column], faces, strict=False):
            _bare(ax).imshow(picture)
        grid[0, column].set_title("Face" if later is None else f"Face\n{names[column]}", fontsize=10, loc="center")
        grid[-1, column].axis("off")
    for ax, title in zip(grid[:, 0], titles or [], strict=False):
        ax.set_ylabel(title, rotation=0, ha="right", va="center", fontsize=9)
    backs = (pictures, pictures if later is None else later, pictures)
    for at, name in enumerate(first):
        columns = grid[:, left + 3 * at : left + 3 + 3 * at]
        with np.errstate(invalid="ignore"):  # infinite in both is no number
            kinds = (first[name], second[name], second[name] - first[name])
        together = lambda rows, kinds=kinds: _end(np.stack([kind[rows] for kind in kinds[:2]]))
        rows = [slice(None)] * count if scale == "method" else list(range(count))
        ends = np.array([[together(row)] * 2 + [_end(kinds[2][row])] for row in rows])  # (N, 3)
        for column, (kind, word) in enumerate(zip(kinds, (*names, f"{names[1]} − {names[0]}"), strict=True)):
            for ax, values, end, picture in zip(columns[:, column], kind, ends[:, column], backs[column], strict=False):
                _map(_bare(ax), values, end, picture if overlay else None)
                if scale == "map":
                    _say_end(ax, values, end)
            title = f"{_words(name)}\n{_words(word)}" if name else _words(word[:1].upper() + word[1:])
            columns[0, column].set_title(title, fontsize=10, loc="center")
        share = "\n(share of the end\nunder each map)" if scale == "map" else ""
        _scale(figure, columns[-1, :2], ends[0, 0] if scale == "method" else 1.0, f"relevance{share}")
        _scale(figure, columns[-1, 2:], ends[0, 2] if scale == "method" else 1.0, f"change{share}")
    methods = f" by {', '.join(first)}" if set(first) != {""} else ""
    said = "" if scores is None else f" Rows: {'; '.join(title.replace(chr(10), ' ') for title in titles)}."
    return alt(
        figure,
        f"{count} face{'s' * (count != 1)} in rows; beside each, its attribution map {names[0]} and {names[1]}{methods} on one "
        f"scale, and the difference on its own. Red pixels speak for the class (in differences: more than {names[0]}), "
        f"blue ones against it.{said}",
    )


def by_group(
    images: Tensor | np.ndarray,
    attributions: Mapping[str, Tensor | np.ndarray] | Tensor | np.ndarray,
    group: Tensor | np.ndarray | Sequence,
    groups: Sequence[str] | None = None,
    *,
    difference: Any = None,
    untrusted: Mapping[str, str] | None = None,
    overlay: bool = False,
) -> Figure:
    """Mean maps of methods (rows) × groups (columns) of aligned faces, under the groups' mean faces; one scale a row.

    Parameters
    ----------
    images : float (N, 3, H, W) in [0, 1]
    attributions : name of a method -> maps (N, H, W), signed; or one method's. Maps that are not finite are left out
    group : N codes or names.  groups : names of the codes 0, 1, …
    difference : `helpers.attribution.pixel_differences(attributions, group, …)`: one more column, the difference of two groups;
        pixels beyond noise have an outline
    untrusted : method -> reason, as `GroupResult.untrusted` has it: struck through, and nothing of it has an outline
    overlay : lay the maps over the group's mean face, grey

    Returns
    -------
    Figure. A group of one image is said to be no mean and does not set the scale; one without images is said to have none.

    Raises
    ------
    ValueError : shapes, lengths or codes that do not fit, a difference of other maps or groups than these.
    """
    pictures = _pictures(images)
    maps = _named(attributions, pictures.shape[:3], "attributions")
    names, member = _members(group, groups, len(pictures))
    if difference is not None:
        _check_difference(difference, maps, member)
    doubted = dict(untrusted or {})
    counts = [int((member == name).sum()) for name in names]

    rows, wide = 1 + len(maps), len(names) + 1 + 2 * (difference is not None)
    bar = 0.08
    ratios = [*[1] * len(names), bar] + ([1, bar] if difference is not None else [])
    figure, grid = plt.subplots(
        rows,
        wide,
        figsize=(1.25 * CELL * sum(ratios) + 0.75 * (wide - len(names)) + 0.5, 1.25 * CELL * rows + 0.6 + 0.2 * len(doubted)),
        width_ratios=ratios,
        squeeze=False,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)
    faces = {name: pictures[member == name].mean(0) for name, n in zip(names, counts, strict=True) if n}
    for ax, name, n in zip(grid[0], names, counts, strict=False):
        _bare(ax).imshow(faces.get(name, np.full((*pictures.shape[1:3], 3), 0.85)))
        if not n:
            _say(ax, "no image")
        ax.set_title(f"{_words(name)}\n(n = {n}{': no mean' * (n == 1)})", fontsize=10, loc="center")
    for ax in grid[0, len(names) :]:
        ax.axis("off")
    grid[0, 0].set_ylabel("mean face", rotation=0, ha="right", va="center", fontsize=9)

    found = []
    for cells, (name, values) in zip(grid[1:], maps.items(), strict=True):
        finite = np.isfinite(values).all((1, 2))
        means = [_mean(values[finite & (member == one)]) for one in names]
        end = _end(np.stack([mean for mean, n in zip(means, counts, strict=True) if n > 1 or max(counts) < 2]))
        for ax, mean, one, n in zip(cells, means, names, counts, strict=False):
            _map(_bare(ax), mean, end, faces.get(one) if overlay else None) if n else _nobody(ax, mean)
            if lost := int((~finite & (member == one)).sum()):
                ax.set_xlabel(f"without {lost} that {'has' if lost == 1 else 'have'} no number", fontsize=7, labelpad=1)
        row = _struck(_words(name)) if name in doubted else _words(name)
        cells[0].set_ylabel(row, rotation=0, ha="right", va="center", fontsize=9)
        _upright(figure, cells[len(names)], end, "mean relevance")
        if difference is not None:
            found.append(_difference(figure, cells[-2:], difference, name, name in doubted, _backs(faces, difference, overlay)))
    if difference is not None:
        cell = grid[0, -2]
        title = f"{_words(difference.group)}\n− {_words(difference.other)}"
        cell.text(0.5, 0.02, title, ha="center", va="bottom", fontsize=10, transform=cell.transAxes)
    notes = [f"{_struck(name.replace('_', ' ')) or 'these maps'}: {reason}" for name, reason in doubted.items()]
    if difference is not None:
        level = f"{1 - difference.confidence:.0%}"
        notes.insert(0, f"outlined: beyond noise (largest |t| of permuted pictures; {level} for the whole figure)")
    figure.supxlabel("\n".join(notes), fontsize="small")
    told = ", ".join(f"{name} (n = {n})" for name, n in zip(names, counts, strict=True))
    methods = f" of {', '.join(maps)}" if set(maps) != {""} else ""
    said = f" {' '.join(found)}" if found else ""
    return alt(figure, f"Mean attribution maps{methods} by group, one scale a method: {told}.{said}{_because(doubted)}")


def _difference(figure: Figure, cells: np.ndarray, difference: Any, name: str, doubted: bool, face: np.ndarray | None) -> str:
    """The difference of one method's means with its outline and scale; what it shows, in words."""
    ax, values, p = _bare(cells[0]), difference.difference[name], difference.p[name]
    end = _end(values)
    _map(ax, values, end, face)
    _upright(figure, cells[1], end, "difference")
    beyond = difference.beyond[name]
    who = f"{name}: " if name else ""
    if doubted:
        said = "not trusted"
    elif np.isnan(p).all():
        said = "no test: fewer than two in a group"
    else:
        said = f"{beyond.sum():,} of {beyond.size:,} pixels" if beyond.any() else "nothing beyond noise"
        if beyond.any():  # doubled, so that a line of half-pixels surrounds single pixels as well
            fine = np.pad(np.kron(beyond, np.ones((4, 4))), 4)
            at = [(np.arange(side) - 3.5) / 4 - 0.5 for side in fine.shape]
            ax.contour(at[1], at[0], fine, levels=[0.5], colors="black", linewidths=0.9)
            ax.set(xlim=(-0.5, beyond.shape[1] - 0.5), ylim=(beyond.shape[0] - 0.5, -0.5))
    ax.set_xlabel(said, fontsize=7, labelpad=1)
    return f"{who}{difference.group} minus {difference.other}, {said}{' beyond noise' if said.endswith('pixels') else ''}."


def _backs(faces: Mapping[str, np.ndarray], difference: Any, overlay: bool) -> np.ndarray | None:
    """The mean of both groups' mean faces, to lay a difference over."""
    both = [faces[name] for name in (difference.group, difference.other) if name in faces]
    return np.mean(both, axis=0) if overlay and both else None


def _because(doubted: Mapping[str, str]) -> str:
    return "".join(f" {name or 'These maps'}, not trusted: {reason}." for name, reason in doubted.items())


def _nobody(ax: plt.Axes, mean: np.ndarray) -> None:
    _bare(ax).imshow(np.full((*mean.shape, 3), 0.85))
    _say(ax, "no image")


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(0) if len(values) else np.full(values.shape[1:], np.nan)


def _scale(figure: Figure, cells: Sequence[plt.Axes], end: float, label: str) -> None:
    """One horizontal scale for the pictures above `cells`: in the first of them, or all across them."""
    for ax in cells:
        ax.axis("off")
    spot = cells[0].get_subplotspec()
    if len(cells) > 1:
        spot = spot.get_gridspec()[spot.rowspan.start, spot.colspan.start : spot.colspan.start + len(cells)]
    ax = figure.add_subplot(spot)
    bar = figure.colorbar(_colours(end), cax=ax, orientation="horizontal")
    bar.set_ticks([-end, 0, end], labels=[f"−{end:.2g}", "0", f"{end:.2g}"])
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8)


def _upright(figure: Figure, ax: plt.Axes, end: float, label: str) -> None:
    """The scale of a row, at its right."""
    bar = figure.colorbar(_colours(end), cax=ax)
    bar.set_ticks([-end, 0, end], labels=[f"−{end:.2g}", "0", f"{end:.2g}"])
    bar.ax.tick_params(labelsize=7, length=2)
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=8)


def _named(maps: Any, shape: tuple[int, ...], argument: str) -> dict[str, np.ndarray]:
    """Maps by name, [""] for maps without one."""
    named = {str(name): _array(each) for name, each in maps.items()} if isinstance(maps, Mapping) else {"": _array(maps)}
    if not named:
        raise ValueError(f"{argument}: none given; expected maps (N, H, W), or a name and maps")
    for name, each in named.items():
        _check_shape(each, shape, f"{argument} {name!r}" if name else argument)
    return named


def _with_scores(titles: Sequence[str] | None, scores: Any, count: int) -> list[str] | None:
    """Titles with "before → after" beneath."""
    if scores is None:
        return None if titles is None else list(map(str, titles))
    if len(scores) != 2 or any(np.shape(_array(each)) != (count,) for each in scores):
        raise ValueError(f"scores: expected two sequences of {count} numbers, before and after")
    changes = [f"{old:.2f} → {new:.2f}" for old, new in zip(*map(_array, scores), strict=True)]
    return changes if titles is None else [f"{title}\n{change}" for title, change in zip(titles, changes, strict=True)]


def _members(group: Any, groups: Sequence[str] | None, count: int) -> tuple[list[str], np.ndarray]:
    """Names of the groups, and that of each image's."""
    member = np.asarray(_array(group))
    if member.shape != (count,):
        raise ValueError(f"group: shape {member.shape}; expected ({count},), one an image")
    if groups is None:
        member = member.astype(str)
        return sorted(set(member)), member
    if not np.issubdtype(member.dtype, np.integer) or ((member < 0) | (member >= len(groups))).any():
        raise ValueError(f"group: expected codes from 0 to {len(groups) - 1}, one for each of `groups`")
    names = [str(name) for name in groups]
    return names, np.asarray(names, dtype=object)[member]


def _check_difference(difference: Any, maps: Mapping[str, np.ndarray], member: np.ndarray) -> None:
    """ValueError unless the difference is that of these maps, and not of their sizes, say: the outlines would not be theirs."""
    known = difference.difference
    if set(known) != set(maps):
        raise ValueError(f"difference: of {', '.join(map(repr, known))}; the maps are of {', '.join(map(repr, maps))}")
    finite = np.all([np.isfinite(values).all((1, 2)) for values in maps.values()], axis=0)
    sides = [finite & (member == name) for name in (difference.group, difference.other)]
    for name, values in maps.items():
        _check_shape(known[name], values.shape[1:], f"difference {name!r}")
        expected = _mean(values[sides[0]]) - _mean(values[sides[1]])
        if not np.allclose(known[name], expected, rtol=1e-3, atol=1e-3 * _end(expected), equal_nan=True):
            raise ValueError(f"difference {name!r}: not that of these maps; expected pixel_differences(attributions, group)")


def _struck(name: str) -> str:
    """A name with every letter crossed out (U+0336)."""
    return "".join(f"{letter}\u0336" if letter != "\n" else letter for letter in str(name))
