"""Variants of a data set: as many rows as there can be with wanted shares of attribute combinations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real

import numpy as np
import pandas as pd

from helpers.data.labels import find_column, level_names, missing
from helpers.names import choose

SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation", "unlearn": "validation"}
"""Names of splits in a wish; DetoxAI calls `unlearn` what we fit mitigation on, the validation split."""
KEYS = ("balancing", "shares", "correlation", "splits", "size", "fraction", "dataset", "variant")
ROUNDING = 1e-9


@dataclass(frozen=True)
class Wish:
    """What a variant should be, however it was written.

    Attributes
    ----------
    shares : pairs of a combination, dict of column -> label, and its wanted share of the images
    correlation : float, phi between target and protected attribute in place of shares; None: shares count
    size : int, wanted number of images; None: as many as there can be
    fraction : float, the share of the *people* that this split takes; None: the split as it is
    splits : dict of split -> Wish, where each split has its own
    """

    shares: tuple[tuple[dict, float], ...] = ()
    correlation: float | None = None
    size: int | None = None
    fraction: float | None = None
    splits: dict[str, Wish] = field(default_factory=dict)

    def of(self, split: str) -> Wish:
        """The wish for one split."""
        if not self.splits:
            return self
        if split not in self.splits:
            raise ValueError(f"variant: it has no wish for the split {split!r}; it has {', '.join(self.splits)}")
        return self.splits[split]

    @property
    def fractions(self) -> dict[str, float] | None:
        """The share of the people in each split; None: the splits stay as they are."""
        given = {split: wish.fraction for split, wish in self.splits.items() if wish.fraction is not None}
        if not given and self.fraction is None:
            return None
        if not given or len(given) < len(self.splits):
            raise ValueError("variant: fraction: a split's share of the people; every entry of splits has one, or none")
        whole = 1.0 if self.fraction is None else self.fraction
        return {split: whole * share for split, share in given.items()}

    def to_dict(self) -> dict:
        """The wish as JSON can hold it; `read` takes it again."""
        said: dict = {}
        if self.shares:
            said["balancing"] = [
                {
                    "attribute_combination": [{"attribute": column, "label": label} for column, label in rule.items()],
                    "percentage": share,
                }
                for rule, share in self.shares
            ]
        for name in ("correlation", "size", "fraction"):
            if getattr(self, name) is not None:
                said[name] = getattr(self, name)
        if self.splits:
            said["splits"] = {split: wish.to_dict() for split, wish in self.splits.items()}
        return said


@dataclass(frozen=True)
class Variant:
    """Chosen rows and what they came to.

    Attributes
    ----------
    rows : int64 (n,), sorted row numbers of the table
    report : DataFrame, a row a combination and one for everything else: `combination`, `wanted` (share; NaN: whatever is
        left), `available` and `images` (counts), `share` (what was achieved), `note` (what sets the size)
    """

    rows: np.ndarray
    report: pd.DataFrame


def read(wanted) -> Wish:
    """A wish in any of its forms.

    Parameters
    ----------
    wanted : one of

        - `{"woman, not smiling": 0.1, ("woman", "age=old"): 0.2}`: a name is a yes/no column, "not name" its opposite, and
          "column=label" a label of any column; several are separated by commas or come as a tuple
        - `[({"Male": 0, "Smiling": 1}, 0.1), …]`: column -> label, for names that hold a comma
        - `{"balancing": [{"attribute_combination": [{"attribute": "Male", "label": 0}, …], "percentage": 0.1}, …]}`: DetoxAI's
        - a dict with `shares` (the first or second form) or `correlation` (phi of target and protected attribute, -1 to 1),
          and if you like `size`
        - `{"splits": {"train": …, "test": …}}`: any of these for each split, with `fraction`, its share of the people;
          DetoxAI's whole configuration is one. Its split `unlearn` is our `validation`

    Raises
    ------
    ValueError : none of these, an unknown key, a share outside [0, 1], a combination named twice.
    """
    if isinstance(wanted, Wish):
        return wanted
    if isinstance(wanted, Mapping) and set(wanted) & {"balancing", "shares", "correlation", "splits"}:
        return _from_dict(wanted)
    if isinstance(wanted, Mapping):
        pairs = [(_words(names), share) for names, share in wanted.items()]
    elif isinstance(wanted, Iterable) and not isinstance(wanted, str):
        try:
            pairs = [(dict(rule) if isinstance(rule, Mapping) else _words(rule), share) for rule, share in wanted]
        except (TypeError, ValueError) as error:
            raise ValueError(f"variant: expected pairs of a combination and its share, got {wanted!r}") from error
    else:
        raise ValueError(f"variant: expected a dict such as {{'woman, smiling': 0.1}}, got {wanted!r}")
    return Wish(shares=_checked(pairs))


def _from_dict(said: Mapping) -> Wish:
    for key in said:
        choose(key, KEYS, "variant")
    kinds = [kind for kind in ("balancing", "shares", "correlation", "splits") if kind in said]
    if len(kinds) > 1:
        raise ValueError(f"variant: {' and '.join(kinds)} came together; give one of them")
    size, fraction = said.get("size"), said.get("fraction")
    if size is not None and (isinstance(size, bool) or not isinstance(size, Integral) or size < 1):
        raise ValueError(f"variant: size: expected a whole number of at least 1, got {size!r}")
    if fraction is not None:
        fraction = _number(fraction, "fraction", 0)
        if fraction == 0:
            raise ValueError("variant: fraction: a split without people came; leave it out of splits")
    wish = Wish(size=None if size is None else int(size), fraction=fraction)
    if "correlation" in said:
        return replace(wish, correlation=_number(said["correlation"], "correlation", -1))
    if "shares" in said:
        return replace(wish, shares=read(said["shares"]).shares)
    if "balancing" in said:
        return replace(wish, shares=_checked([_rule(rule) for rule in said["balancing"]]))
    if not isinstance(said["splits"], Mapping) or not said["splits"]:
        raise ValueError(f"variant: splits: expected a dict of split -> wish, got {said['splits']!r}")
    splits: dict[str, Wish] = {}
    for name, inner in said["splits"].items():
        split = SPLITS[choose(name, SPLITS, "variant: splits")]
        if split in splits:
            raise ValueError(f"variant: splits: {split!r} is named twice among {', '.join(said['splits'])}")
        splits[split] = read(inner)
        if splits[split].splits:
            raise ValueError(f"variant: splits: {name!r} has splits of its own")
    wish = replace(wish, splits=splits)
    total = sum((wish.fractions or {}).values())
    if total > 1 + ROUNDING:
        raise ValueError(f"variant: the fractions of the splits sum to {total:g}; they share the people, so at most to 1")
    return wish


def _rule(rule) -> tuple[dict, float]:
    """One of DetoxAI's rules."""
    try:
        conditions, share = rule["attribute_combination"], rule["percentage"]
        combination = {condition["attribute"]: condition["label"] for condition in conditions}
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            "variant: balancing: expected {'attribute_combination': [{'attribute': …, 'label': …}, …], 'percentage': …}, "
            f"got {rule!r}"
        ) from error
    if len(combination) < len(conditions):
        raise ValueError(f"variant: balancing: an attribute is named twice in {rule!r}")
    return combination, share


def _words(names) -> dict:
    """{"woman": True, "age": "old"} of "woman, age=old" or ("woman", "age=old")."""
    words = names.split(",") if isinstance(names, str) else names
    if not isinstance(words, Iterable) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError(f"variant: expected names such as 'woman, not smiling', got {names!r}")
    combination: dict = {}
    for word in (word.strip() for word in words):
        column, equals, label = (part.strip() for part in word.partition("="))
        if not equals:
            column, label = word.removeprefix("not ").strip(), not word.startswith("not ")
        if column in combination:
            raise ValueError(f"variant: {column!r} is named twice in {names!r}")
        combination[column] = label
    return combination


def _number(value, name: str, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= value <= 1:
        raise ValueError(f"variant: {name}: expected a number from {least} to 1, got {value!r}")
    return float(value)


def _checked(pairs: list[tuple[dict, float]]) -> tuple[tuple[dict, float], ...]:
    if not pairs:
        raise ValueError("variant: no combination of attributes is named")
    for rule, share in pairs:
        if not rule:
            raise ValueError(f"variant: a combination of no attribute came, with the share {share!r}")
        _number(share, f"the share of {rule}", 0)
    return tuple((rule, float(share)) for rule, share in pairs)


def variant(table: pd.DataFrame, wanted, *, size: int | None = None, seed: int = 0) -> Variant:
    """Choose rows so that each combination of attributes has its wanted share, and as many rows as that allows.

    With n_c rows in each cell c (rows that fit the same combinations), the size is the largest whole

        N <= max Σ x_c   subject to   Σ_{c fits r} x_c = p_r Σ x_c  for each combination r,   0 <= x_c <= n_c,

    a linear program. Each combination then gets p_r N images to the nearest whole (down or up, where these exclude each
    other). Combinations may overlap. What no combination settles stays as near to the table's own proportions as it can (in
    the sum of absolute differences), and within a cell rows are drawn by `seed`: by their `path`, if the table has one, so
    that the order of rows does not matter. Rows with a missing label in a column that is named are never chosen.

    Parameters
    ----------
    table : DataFrame (N,), the rows of one split
    wanted : as `read` takes it, except correlations, which `correlation_shares` turns into shares
    size : int, fewer rows than there could be; None: as `wanted` says, else as many as possible
    seed : int, non-negative

    Returns
    -------
    Variant

    Raises
    ------
    ValueError : an unknown column or label; a combination that no row fits; shares that contradict each other (the smallest
        set of them that does is named, with counts); a size that cannot be had (the largest one is told).
    """
    wish = read(wanted)
    if not wish.shares:
        raise ValueError("variant: no shares came; a correlation needs a target and a protected attribute, splits one of them")
    size = wish.size if size is None else size
    rules = [_canonical(table, rule) for rule, _ in wish.shares]
    names = [", ".join(_label(table, column, value) for column, value in rule.items()) for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"variant: the combination {name!r} is named twice")
    shares = np.array([share for _, share in wish.shares])
    fits = np.stack([_fits(table, rule) for rule in rules])  # (R, N)
    known = ~np.any([missing(table[column]) for column in {column for rule in rules for column in rule}], axis=0)

    # Rows that fit the same rules are alike: only how many of each kind there are matters.
    kinds, kind = np.unique(fits[:, known].T, axis=0, return_inverse=True)
    counts = np.bincount(kind.ravel(), minlength=len(kinds))
    cover = kinds.T.astype(float)  # (R, kinds)
    for name, share, n in zip(names, shares, cover @ counts, strict=True):
        if share > 0 and n == 0:
            raise ValueError(f"variant: {share:.4g} of the images should be {name!r}, but none of the {len(table)} rows is")
    most, scarce = _largest(cover, shares, counts)
    if most < 1:
        raise ValueError(_contradiction(names, cover, shares, counts))
    if size is not None and size > most:
        short = [
            f"{name!r} has {int(n)} and would need {share * size:.4g}"
            for name, share, n in zip(names, shares, cover @ counts, strict=True)
            if share * size > n
        ]
        most = f"variant: size: {size} images came, and with these shares there are at most {most}"
        raise ValueError("; ".join([most, *short]))
    taken = _whole(cover, shares, counts, most if size is None else size)
    rows = _draw(table, np.flatnonzero(known), kind.ravel(), kinds, taken, seed)
    if size is not None and size < most:
        scarce = np.zeros(len(counts), bool)
    return Variant(rows, _report(names, shares, cover, counts, taken, scarce, len(table) - int(known.sum())))


def _canonical(table: pd.DataFrame, rule: dict) -> dict:
    """A rule with the table's own names of columns and raw values for labels."""
    found = {}
    for column, label in rule.items():
        try:
            column = find_column(table, column, "variant")
        except ValueError as error:
            homes = [name for name in table.columns if table[name].nunique() <= 50 and column in set(table[name].dropna())]
            raise ValueError(f"{error}{f' Or say {homes[0]}={column}.' if homes else ''}") from None
        values, names = level_names(table[column], column)
        yes_no = names == (f"not {column}", column)
        if yes_no and label in (0, 1, -1):
            found[column] = values[int(label == 1)]
            continue
        matches = [
            value for value, name in zip(values, names, strict=True) if label == value or str(label).strip() in (str(value), name)
        ]
        if isinstance(label, bool) and not yes_no or not matches:
            shown = ", ".join(f"{column}={name}" for name in names[:20]) if not yes_no else f"{column}, not {column}"
            raise ValueError(f"variant: column {column!r} has no label {label!r}; accepted: {shown}")
        found[column] = matches[0]
    return found


def _label(table: pd.DataFrame, column: str, value) -> str:
    values, names = level_names(table[column], column)
    name = names[values.index(value)]
    return name if names == (f"not {column}", column) else f"{column}={name}"


def _fits(table: pd.DataFrame, rule: dict) -> np.ndarray:
    """bool (N,), which rows have all the labels of a rule; a missing label fits nothing."""
    return np.all([((table[column] == value) & ~missing(table[column])).to_numpy(bool) for column, value in rule.items()], axis=0)


def _largest(cover: np.ndarray, shares: np.ndarray, counts: np.ndarray) -> tuple[int, np.ndarray]:
    """The largest size at which the shares can hold exactly, in fractions of images, rounded down; 0 if only nothing fits.

    Beside it bool (kinds,), of which kinds a further row would make room for more (by the dual of the linear program).
    """
    from scipy.optimize import linprog  # a tenth of the time that importing helpers.data takes

    solved = linprog(
        -np.ones(len(counts)),
        A_eq=cover - shares[:, None],  # Σ_{c fits r} x_c - p_r Σ x_c = 0
        b_eq=np.zeros(len(shares)),
        bounds=np.c_[np.zeros(len(counts)), counts],
        method="highs",
    )
    if not solved.success:
        return 0, np.zeros(len(counts), bool)
    return math.floor(-solved.fun + 1e-6), solved.upper.marginals < -ROUNDING


def _whole(cover: np.ndarray, shares: np.ndarray, counts: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers of rows of each kind, int64 (kinds,): `total` of them, or the next smaller number that has a solution.

    Each rule's count is its share to the nearest whole or, where these exclude each other, rounded down or up; the sum of
    |x_c - total n_c / N| is least.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    kinds = len(counts)
    zero, one = np.zeros((len(cover), kinds)), np.eye(kinds)
    while total > 0:
        target = counts * (total / counts.sum())
        for off in (0.5 + ROUNDING, 1 - ROUNDING):
            constraints = [
                LinearConstraint(np.c_[cover, zero], np.ceil(shares * total - off), np.floor(shares * total + off)),
                LinearConstraint(np.r_[np.ones(kinds), np.zeros(kinds)][None], total, total),
                LinearConstraint(np.c_[one, -one], -np.inf, target),  # the second half of the unknowns is |x_c - target_c|
                LinearConstraint(np.c_[one, one], target, np.inf),
            ]
            solved = milp(
                np.r_[np.zeros(kinds), np.ones(kinds)],
                constraints=constraints,
                integrality=np.r_[np.ones(kinds), np.zeros(kinds)],
                bounds=Bounds(np.zeros(2 * kinds), np.r_[counts, np.full(kinds, np.inf)]),
                options={"mip_rel_gap": 0},
            )
            if solved.success:
                return np.rint(solved.x[:kinds]).astype(np.int64)
        total -= 1
    raise ValueError("variant: no whole number of images has these shares; there are too few")


def _contradiction(names: list[str], cover: np.ndarray, shares: np.ndarray, counts: np.ndarray) -> str:
    """The fewest of the rules that exclude each other, in a sentence with their counts."""
    left = list(range(len(names)))
    for rule in range(len(names)):
        fewer = [other for other in left if other != rule]
        if fewer and _largest(cover[fewer], shares[fewer], counts)[0] < 1:
            left = fewer
    said = ", ".join(f"{names[r]!r} {shares[r]:.4g} ({int(cover[r] @ counts)} images)" for r in left)
    several, none = int(counts[cover[left].sum(0) > 1].sum()), int(counts[~cover[left].any(0)].sum())
    return (
        f"variant: these shares cannot hold together: {said}; they sum to {shares[left].sum():.4g}, and {none} images fit none "
        f"of these combinations, {several} more than one"
    )


def _draw(table, where: np.ndarray, kind: np.ndarray, kinds: np.ndarray, taken: np.ndarray, seed: int) -> np.ndarray:
    """Sorted row numbers: of each kind as many as `taken` says, drawn by seed whatever the order of the table's rows."""
    if "path" in table and table["path"].is_unique:
        order = np.argsort(table["path"].to_numpy(str)[where], kind="stable")
        where, kind = where[order], kind[order]
    picks = []
    for number, (n, bits) in enumerate(zip(taken, kinds, strict=True)):
        generator = np.random.default_rng([seed, *np.flatnonzero(bits).tolist()])
        picks.append(generator.permutation(where[kind == number])[:n])
    return np.sort(np.concatenate(picks)).astype(np.int64)


def _report(names, shares, cover, counts, taken, scarce, unlabelled: int) -> pd.DataFrame:
    sets = np.vstack([cover > 0, ~cover.any(0)])  # each combination, then everything else
    notes = []
    for kinds in sets:
        short = scarce[kinds & (counts > 0)]
        part = "" if short.all() else " of some of them"
        notes.append(f"has no more{part}: this sets the size" if short.any() else "")
    images = sets @ taken
    table = pd.DataFrame(
        {
            "combination": [*names, "everything else"],
            "wanted": [*shares, np.nan],
            "available": sets @ counts,
            "images": images,
            "share": images / taken.sum(),
            "note": notes,
        }
    )
    if unlabelled:
        table.loc[len(table)] = ["label missing", 0.0, unlabelled, 0, 0.0, "never taken"]
    return table


def correlation_shares(table: pd.DataFrame, target: str, protected: str, correlation: float) -> tuple[tuple[dict, float], ...]:
    """Shares of the four combinations of two yes/no columns that have the wanted phi coefficient.

    With shares a and b of the second labels, p11 = a b + φ √(a (1-a) b (1-b)), and the rest follows from a and b. These are
    the table's own, where φ is possible with them; else both log-odds move by as much towards each other until it is
    (|logit a - logit b| <= -2 log φ for φ > 0; for φ < 0 the same of a and 1 - b).

    Parameters
    ----------
    table : DataFrame (N,)
    target, protected : columns of two labels each
    correlation : float in [-1, 1]; above 0 the second label of one goes with the second of the other

    Raises
    ------
    ValueError : a column of more or fewer than two labels, or one that occurs only once.
    """
    labels, share = [], []
    for column in (target, protected):
        values, names = level_names(table[column], column)
        if len(values) != 2:
            raise ValueError(
                f"variant: correlation: phi needs two labels, and {column!r} has {len(values)} ({', '.join(names[:9])}); "
                "give shares"
            )
        told = table[column][~missing(table[column])]
        share.append(float((told == values[1]).mean()))
        if share[-1] in (0, 1):
            raise ValueError(f"variant: correlation: every row has the same {column!r}")
        labels.append(values)
    a, b = share if correlation >= 0 else (share[0], 1 - share[1])
    strength = abs(correlation)
    if strength > 0:
        odds = np.log([a / (1 - a), b / (1 - b)])
        excess = max(abs(odds[0] - odds[1]) + 2 * math.log(strength), 0) / 2
        odds += np.sign(odds[1] - odds[0]) * excess * np.array([1, -1])
        a, b = (1 / (1 + np.exp(-odds))).tolist()
    both = a * b + strength * math.sqrt(a * (1 - a) * b * (1 - b))
    cells = np.array([[1 - a - b + both, b - both], [a - both, both]]).clip(0)  # rows: target, columns: protected
    if correlation < 0:
        cells = cells[:, ::-1]
    cells /= cells.sum()
    return tuple(
        ({target: labels[0][i], protected: labels[1][j]}, float(cells[i, j])) for i in range(2) for j in range(2)
    )


def choose_rows(
    table: pd.DataFrame, wish: Wish, *, target: str, protected: str | Sequence[str], split: str, seed: int
) -> Variant:
    """`variant` for the rows of one split, whose target and protected attribute a correlation refers to."""
    wish = wish.of(split)
    if wish.correlation is None:
        return variant(table, wish, seed=seed)
    columns = [protected] if isinstance(protected, str) else list(protected)
    if len(columns) > 1:
        raise ValueError(f"variant: correlation: phi needs one protected attribute, got {', '.join(columns)}")
    target, column = find_column(table, target, "target"), find_column(table, columns[0], "protected")
    return variant(table, correlation_shares(table, target, column, wish.correlation), size=wish.size, seed=seed)
