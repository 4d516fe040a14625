"""Does the decision depend on the protected attribute? Testing with concept activation vectors (TCAV), layer by layer.

At a layer with output f, a group's concept vector v is the direction in which its members differ from everybody else. It is found
by `helpers.debiasing.cav` within classes: each class is first centred between members and others, so that what tells the classes
apart is no part of the concept where groups and classes go together. With z the log-odds of class k, z = logit_k -
logsumexp(other logits), and S(x) = ∇_f z(x) · v its slope along v at image x of class k,

    TCAV    share of the images of class k with S(x) > 0 (Kim et al. 2018, Eq. 1 and 2)
    effect  mean S(x) times the distance between members and others along v: by how much the log-odds change, to first order, as
            features move from the others to the members

Maps (N, C, H, W) and tokens (N, T, d) are averaged over positions for v, and S moves all positions alike.

Significance is judged by the effect: groups are dealt out anew within classes, every random split gives a vector and an effect
of its own, and p is the share of splits whose effect is at least as large. The paper's t-test, of TCAV scores of concept vectors
from many subsamples against those of random splits, is not used: subsamples of one data set share its images, so that their
scores agree with one another even where there is no concept; and where the rest of the model is linear S is the same for all
images, so that every TCAV score is 0 or 1, of random directions too. `scores` has all it takes to do that test nevertheless.

A significant effect says that the decision is sensitive to what the groups differ in at this layer, on these images. That may be
the attribute, or something that goes with it in the data but for the class; redrawn faces (`helpers.bias.counterfactual`) tell.

References
----------
Kim et al., "Interpretability beyond feature attribution: quantitative testing with concept activation vectors", ICML 2018.
Politis & Romano, "Large sample confidence regions based on subsamples under minimal assumptions", Annals of Statistics 1994.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.bias.inputs import read_people
from helpers.bias.permutation import holm
from helpers.bias.settings import share, whole
from helpers.debiasing.cav import DIRECTIONS, OF_MEANS, compared, kind_of
from helpers.debiasing.debias import group_names
from helpers.models.data_in import batches, check_logits, check_targets, classes_of, loader_of
from helpers.models.layers import find, flow
from helpers.models.running import call

DEPENDS, NOISE, UNDEFINED = "depends", "within noise", "undefined"


@dataclass(frozen=True)
class Slopes:
    """What one pass showed at one layer: `features` (N, d), and `gradients` (N, d) of the log-odds of each image's own class."""

    features: np.ndarray
    gradients: np.ndarray


@dataclass(frozen=True, repr=False, eq=False)
class Concepts:
    """Whether the decision depends on the groups' concept vectors.

    Attributes
    ----------
    table : DataFrame, one row a layer × class × group: `layer, target, group`, `tcav` with the interval `tcav_low, tcav_high`,
        `random_low, random_high` (where the middle share `confidence` of random splits' TCAV scores lies), `effect, low, high`
        (change of the class's log-odds), `p, p_holm`, `separation` (how often the vector from one half of the images ranks a
        member of the other half above a non-member of the same class; 0.5: there is no such concept at this layer), `n` (images
        of the class), `verdict` ("depends", "within noise" or "undefined")
    scores : DataFrame, `layer, target, group, kind, tcav, effect` of each half of the images ("concept") and split ("random")
    confidence : level of intervals and verdicts
    """

    table: pd.DataFrame
    scores: pd.DataFrame
    confidence: float

    def __repr__(self) -> str:
        """How many rows depend, and the largest effect."""
        found = self.table[self.table["verdict"] == DEPENDS]
        told = ""
        if len(found):
            row = found.loc[found["effect"].abs().idxmax()]
            told = f", most: {row['target']} on {row['group']} at {row['layer']}, {row['effect']:+.2f} in log-odds"
        return f"Concepts({len(found)} of {len(self.table)} layer × class × group depend{told})"


def concepts(
    model: nn.Module,
    data: Any,
    layers: str | Sequence[str] = "penultimate",
    *,
    cav_type: str = "signal",
    identity: Any = None,
    halves: int = 40,
    n_random: int = 500,
    confidence: float = 0.95,
    seed: int = 0,
    device: str | torch.device | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> Concepts:
    """TCAV of every group at every layer, with intervals and a test against random splits.

    Parameters
    ----------
    model : torch.nn.Module, images to logits; left as it was
    data : FaceDataset, or a loader of (image, target, group) that does not shuffle; two groups or more
    layers : names, "penultimate" or "last", one or several; `helpers.models.layers.flow(model, images)` lists them
    cav_type : as `helpers.debiasing.cav.directions`; "signal" is the difference of means
    identity : (N,), who is shown: halves and random splits are then of people
    halves : random halves of the images, whose spread is that of the estimates (Politis & Romano 1994).  n_random : random splits
    confidence : level of intervals and verdicts.  seed : of a local generator
    device : where to compute; by default where the model is.  batch_size : images a pass.  progress : show bars

    Returns
    -------
    Concepts. Two groups give one vector (the second against the first), several one each (a group against the rest). Holm's
    correction is over all rows of the table.

    Raises
    ------
    ValueError : fewer than two groups, no class with two images of each side, a layer that does not run or that no gradient
        reaches, identities that do not fit, an unknown cav_type or layer (the nearest is named).
    """
    kind, names = kind_of(cav_type), [layers] if layers is None or isinstance(layers, str) else list(layers)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError("model: the layers of TorchScript cannot be watched; pass the module it was made from")
    model = getattr(model, "_orig_mod", model)  # of torch.compile, whose code need not see a hook
    whole(seed, "seed", least=0)
    share(confidence, "confidence")
    whole(halves, "halves", least=2)
    whole(n_random, "n_random")
    if not names:
        raise ValueError("layers: none given; expected the names of one or more")
    seen, y, group = slopes(model, data, names, device=device, batch_size=batch_size, progress=progress)
    person = np.arange(len(y)) if identity is None else read_people(identity)[0]
    if len(person) != len(y):
        raise ValueError(f"identity: {len(person)} rows given for {len(y)} images")
    groups = group_names(data, int(group.max()) + 1) or tuple(map(str, range(int(group.max()) + 1)))
    classes = classes_of(data) or tuple(map(str, range(int(y.max()) + 1)))

    rng = np.random.default_rng(seed)
    drawn = np.stack([_half(y, group, person, rng) for _ in range(halves)])
    dealt = np.stack([_dealt(y, group, person, rng) for _ in range(n_random)])
    everything = np.ones((1, len(y)), dtype=bool)
    work = [(layer, code) for layer in seen for code in compared(np.unique(group))]
    lines, scores = [], []
    for layer, code in tqdm(work, "concepts", disable=not progress):
        at, member = seen[layer], group == code
        if not both_sides(member, y).any():
            raise ValueError(f"group: no class has two images of {groups[code]} and two of others, so nothing can be compared")
        whole_set, concept, random = (
            scored(at, y, members, inside, kind, seed)
            for members, inside in ((member, everything), (member, drawn), (dealt == code, everything))
        )
        apart = [_separation(at, y, member, half, DIRECTIONS[kind], seed) for half in drawn]
        for k in np.unique(y):
            value, halved, chance = whole_set[k][0], concept[k], random[k]
            lines.append(
                {"layer": layer, "target": classes[k], "group": groups[code], **_row(value, halved, chance, confidence),
                 "separation": np.nanmean(apart) if np.isfinite(apart).any() else np.nan, "n": int((y == k).sum())}
            )  # fmt: skip
            for source, found in (("concept", halved), ("random", chance)):
                labels = {"layer": layer, "target": classes[k], "group": groups[code], "kind": source}
                scores.append(pd.DataFrame({**labels, "tcav": found[:, 0], "effect": found[:, 1]}))
    table = pd.DataFrame(lines)
    adjusted = pd.Series(holm(table["p"].to_dict()), dtype=float)
    table.insert(table.columns.get_loc("p") + 1, "p_holm", adjusted)
    verdict = np.where(table["p_holm"] <= 1 - confidence, DEPENDS, NOISE)
    table["verdict"] = np.where(table["p"].isna(), UNDEFINED, verdict)
    return Concepts(table, pd.concat(scores, ignore_index=True), confidence)


def slopes(
    model: nn.Module, data: Any, layers: Sequence[str], *, device: Any = None, batch_size: int = 64, progress: bool = False
) -> tuple[dict[str, Slopes], np.ndarray, np.ndarray]:
    """Features and gradients at several layers, in one pass forward and backward.

    Parameters
    ----------
    model, data, layers, device, batch_size, progress : as `concepts`

    Returns
    -------
    layer -> Slopes (named as in the model), targets int64 (N,), groups int64 (N,)

    Raises
    ------
    ValueError : a layer that puts out no tensor, or that no gradient connects to the logits.
    """
    names, parts, targets, groups = None, [], [], []
    with batches(model, data, device=device, batch_size=batch_size) as (running, loop), torch.inference_mode(False):
        for images, y, group in tqdm(loop, "slopes", len(loader_of(data, batch_size)), disable=not progress):
            names = names or list(dict.fromkeys(find(running, layer, images[:1]) for layer in layers))
            with torch.enable_grad(), _kept(running, names) as kept:
                logits = call(running, images.clone().requires_grad_(), group)
                outputs = check_logits(logits, images)
                check_targets(y.cpu(), outputs)
                if lacking := [name for name in names if not isinstance(kept.get(name), Tensor)]:
                    raise ValueError(
                        f"layers: {lacking[0]!r} puts out no tensor; layers that run: {', '.join(flow(running, images[:1]))}"
                    )
                wanted = [kept[name] for name in names]
                found = [None] * len(names)
                if logits.requires_grad and all(each.requires_grad for each in wanted):
                    found = torch.autograd.grad(own_log_odds(logits, y).sum(), wanted, allow_unused=True)
            if lost := [name for name, each in zip(names, found, strict=True) if each is None]:
                raise ValueError(f"layers: no gradient connects {lost[0]!r} to the logits; choose another layer")
            parts.append([(_over_positions(each, "mean"), _over_positions(slope, "sum"))
                          for each, slope in zip(wanted, found, strict=True)])  # fmt: skip
            targets.append(y.cpu().numpy())
            groups.append(group.cpu().numpy())
    seen = {}
    for at, name in enumerate(names or []):
        features, gradients = (np.concatenate([part[at][side] for part in parts]) for side in (0, 1))
        seen[name] = Slopes(features, gradients)
    return seen, np.concatenate(targets), np.concatenate(groups)


def own_log_odds(logits: Tensor, y: Tensor) -> Tensor:
    """log p / (1 - p) of each image's class (N,), of logits (N, K); with one logit z it is z for class 1 and -z for class 0."""
    if logits.shape[1] == 1:
        return torch.where(y == 1, logits[:, 0], -logits[:, 0])
    own = torch.nn.functional.one_hot(y, logits.shape[1]).bool()
    return logits[own] - logits.masked_fill(own, -torch.inf).logsumexp(1)


def scored(
    at: Slopes, y: np.ndarray, member: np.ndarray, inside: np.ndarray, kind: str, seed: int
) -> dict[int, np.ndarray]:
    """TCAV scores and effects of several concept vectors.

    Parameters
    ----------
    at : of N images.  y : int64 (N,)
    member : bool (R, N) or (N,), who is in the group
    inside : bool (R, N) or (1, N), the images that are looked at
    kind : a name in `DIRECTIONS`.  seed : for directions that draw

    Returns
    -------
    class -> float64 (R, 2), TCAV score and effect; NaN where there is no vector.
    """
    member, inside = np.broadcast_arrays(np.atleast_2d(member), inside)
    if kind in OF_MEANS:
        vectors, lengths = vectors_of_means(at.features, y, member, inside), 1.0
    else:
        found = [
            concept_vector(at.features[rows], y[rows], of[rows], DIRECTIONS[kind], seed)
            for of, rows in zip(member, inside, strict=True)
        ]
        vectors, lengths = np.stack([vector for vector, _ in found]), np.array([length for _, length in found])
    vectors = np.where(vectors.any(1, keepdims=True), vectors, np.nan)
    scores = {}
    for k in np.unique(y):
        mine = y == k
        slope, weight = vectors @ at.gradients[mine].T, inside[:, mine]
        with np.errstate(invalid="ignore", divide="ignore"):
            tcav, effect = (((each * weight).sum(1) / weight.sum(1)) for each in (slope > 0, slope))
        effect = effect * lengths
        scores[int(k)] = np.stack([np.where(np.isnan(effect), np.nan, tcav), effect], axis=1)
    return scores


def vectors_of_means(features: np.ndarray, y: np.ndarray, member: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What `concept_vector` finds by a difference of means, as vector times distance (R, d), for all splits (R, N) at once."""
    classes = [y == k for k in np.unique(y)]
    sides = [(member & inside).astype(float), (~member & inside).astype(float)]
    counts = [np.stack([side[:, mine].sum(1) for mine in classes], axis=1) for side in sides]  # (R, classes)
    both = (counts[0] > 0) & (counts[1] > 0)
    # Members spread over the classes in one way, others in another: a class has the mean of both shares as its weight.
    shares = [count * both / np.maximum((count * both).sum(1, keepdims=True), 1) for count in counts]
    found = np.zeros((len(member), features.shape[1]))
    for k, mine in enumerate(classes):
        means = [side[:, mine] @ features[mine] / np.maximum(n[:, k], 1)[:, None] for side, n in zip(sides, counts, strict=True)]
        found += (shares[0] + shares[1])[:, k, None] / 2 * (means[0] - means[1])
    return found


def concept_vector(
    features: np.ndarray, y: np.ndarray, member: np.ndarray, find_vector: Callable, seed: int
) -> tuple[np.ndarray, float]:
    """The unit vector (d,) that points from the others to the members within classes, and how far they are apart along it.

    Zeros, and a distance of zero, where no class has both, or all have the same features.
    """
    kept = both_sides(member, y, least=1)
    if not kept.any():
        return np.zeros(features.shape[1]), 0.0
    centred, member = between_sides(features[kept], y[kept], member[kept]), member[kept]
    scale = np.sqrt((centred**2).mean())
    if scale == 0:
        return np.zeros(features.shape[1]), 0.0
    vector = np.asarray(find_vector(centred / scale, member.astype(float), seed), dtype=np.float64)
    length = np.linalg.norm(vector)
    if not length > 0:
        return np.zeros(features.shape[1]), 0.0
    vector = vector / length
    along = centred @ vector
    return vector, float(along[member].mean() - along[~member].mean())


def between_sides(features: np.ndarray, y: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Features minus, in each class, the middle between the mean of the members and that of the others."""
    features = features.astype(np.float64)
    for k in np.unique(y):
        mine = y == k
        features[mine] -= (features[mine & member].mean(0) + features[mine & ~member].mean(0)) / 2
    return features


def both_sides(member: np.ndarray, y: np.ndarray, least: int = 2) -> np.ndarray:
    """Bool (N,): images of classes that have `least` members and as many others."""
    usable = [k for k in np.unique(y) if min((member & (y == k)).sum(), (~member & (y == k)).sum()) >= least]
    return np.isin(y, usable)


def _row(value: tuple[float, float], halved: np.ndarray, chance: np.ndarray, confidence: float) -> dict[str, float]:
    (tcav, effect), tail = value, (1 - confidence) / 2
    spread = np.nanstd(halved, 0, ddof=1) if np.isfinite(halved).all(1).sum() > 1 else np.full(2, np.nan)
    reach = stats.t.isf(tail, len(halved) - 1) * spread
    middle = np.nanquantile(chance[:, 0], [tail, 1 - tail]) if np.isfinite(chance[:, 0]).any() else (np.nan, np.nan)
    # Equal effects may differ in their last bits; a split without an effect says nothing against the null hypothesis.
    as_large = ~(np.abs(chance[:, 1]) < abs(effect) * (1 - 1e-9))
    return {
        "tcav": tcav, "tcav_low": max(tcav - reach[0], 0.0), "tcav_high": min(tcav + reach[0], 1.0),
        "random_low": middle[0], "random_high": middle[1], "effect": effect, "low": effect - reach[1], "high": effect + reach[1],
        "p": np.nan if np.isnan(effect) else float((1 + as_large.sum()) / (1 + len(chance))),
    }  # fmt: skip


def _separation(
    at: Slopes, y: np.ndarray, member: np.ndarray, half: np.ndarray, find_vector: Callable, seed: int
) -> float:
    """Area under the ROC curve of the images outside `half` along the vector of those inside, mean over classes with both."""
    vector, _ = concept_vector(at.features[half], y[half], member[half], find_vector, seed)
    outside = np.flatnonzero(~half)
    found = []
    for k in np.unique(y[outside]):
        mine = outside[y[outside] == k]
        along, of_group = at.features[mine] @ vector, member[mine]
        if of_group.any() and not of_group.all() and vector.any():
            ranks = stats.rankdata(along)[of_group]
            inside, others = of_group.sum(), (~of_group).sum()
            found.append((ranks.sum() - inside * (inside + 1) / 2) / (inside * others))
    return float(np.mean(found)) if found else np.nan


def _half(y: np.ndarray, group: np.ndarray, person: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bool (N,), a random half of the images of each class and group, or of the people where some have several images."""
    # Odd numbers are rounded up or down by chance: always up, the halves would be too alike.
    middle = lambda count: max((count + int(rng.integers(2))) // 2, 1)
    people = np.unique(person)
    if len(people) < len(person):
        return np.isin(person, rng.permutation(people)[: middle(len(people))])
    half = np.zeros(len(y), dtype=bool)
    for cell in np.unique(np.stack([y, group]), axis=1).T:
        rows = rng.permutation(np.flatnonzero((y == cell[0]) & (group == cell[1])))
        half[rows[: middle(len(rows))]] = True
    return half


def _dealt(y: np.ndarray, group: np.ndarray, person: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Groups dealt out anew within classes, people (0 … P - 1) being kept together.

    Where everybody is in one group, people swap groups with people who have images of the same classes. Where some are in
    several, people with equally many images of each class swap the groups of these, and then each person's images in a class do.
    """
    images = np.zeros((person.max() + 1, y.max() + 1), dtype=np.int64)
    np.add.at(images, (person, y), 1)
    pairs = np.unique(np.stack([person, group]), axis=1)
    if pairs.shape[1] == len(images):
        of_person = np.zeros(len(images), dtype=group.dtype)
        of_person[person] = group
        return _within(of_person, np.unique(images > 0, axis=0, return_inverse=True)[1].ravel(), rng)[person]
    partner = _within(np.arange(len(images)), np.unique(images, axis=0, return_inverse=True)[1].ravel(), rng)
    into, out = (np.lexsort((key, y, person)) for key in (np.arange(len(y)), rng.random(len(y))))
    count = images.sum(1)
    start = np.cumsum(count) - count
    mine = person[into]
    turned = np.empty_like(group)
    turned[into] = group[out[start[partner[mine]] + np.arange(len(y)) - start[mine]]]
    return turned


def _within(labels: np.ndarray, strata: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The labels permuted inside each stratum."""
    turned = np.empty_like(labels)
    turned[np.argsort(strata, kind="stable")] = labels[np.lexsort((rng.random(len(labels)), strata))]
    return turned


def _over_positions(output: Tensor, how: str) -> np.ndarray:
    """(N, d) of an output (N, d), (N, T, d) or (N, C, H, W), positions averaged or added up."""
    positions = {2: (), 3: (1,), 4: (2, 3)}.get(output.dim())
    if positions is None:
        raise ValueError(f"layers: an output of shape {tuple(output.shape)}; expected (N, d), (N, T, d) or (N, C, H, W)")
    output = output.detach().double()
    return (getattr(output, how)(positions) if positions else output).cpu().numpy()


@contextmanager
def _kept(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Inside the block the dict yielded fills with the layers' outputs, still connected to the logits."""
    kept, layers = {}, dict(model.named_modules())

    def keep(name: str, output: Any) -> Any:
        kept[name] = output
        # A copy goes on, so that an in-place ReLU after the layer leaves what was kept as it is.
        return output.clone() if isinstance(output, Tensor) else output

    with ExitStack() as stack:
        for name in names:
            hook = layers[name].register_forward_hook(lambda module, args, output, name=name: keep(name, output))
            stack.callback(hook.remove)
        yield kept
