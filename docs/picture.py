"""Draws the picture of the README, docs/candor.png, from the course's default problem: python docs/picture.py

Two to three minutes on two cores once lesson 2 has trained the model. Every number in it is computed here.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import attribute, audit, debias, evaluate, models
from helpers.plots import bias, debiasing, use
from helpers.plots.style import DIVERGING, PALETTE
from helpers.problem import load_problem

METHODS = {"integrated_gradients": "integrated\ngradients", "guided_backprop": "guided\nbackprop", "edges": "edge\ndetector"}


def edges(model, images, target):
    """A map that never asks the model."""
    return torch.hypot(*torch.gradient(images.mean(1), dim=(1, 2)))


def looks(figure, images, maps, names, chance):
    """Faces above, their maps over the grey face below."""
    axes = figure.subplots(2, len(images))
    figure.suptitle("Where does it look?", x=0.02, ha="left", fontsize=13)
    for column, (face, relevance) in enumerate(zip(images.permute(0, 2, 3, 1).numpy(), maps.numpy(), strict=True)):
        end = np.percentile(np.abs(relevance), 99)
        axes[0, column].imshow(face)
        axes[1, column].imshow(face.mean(2), cmap="gray", alpha=0.35)
        axes[1, column].imshow(relevance, cmap=DIVERGING, vmin=-end, vmax=end, alpha=0.75)
        axes[0, column].set_title(names[column], fontsize=9, loc="center")
        axes[1, column].set_xlabel(f"P(smiling) {chance[column]:.2f}", fontsize=9)
    figure.supxlabel("integrated gradients: red speaks for smiling, blue against it", fontsize=10)
    for each in axes.flat:
        each.set(xticks=[], yticks=[])
        each.grid(False)


def trust(ax, images, model):
    """How alike each method's maps are to those of a model whose last quarter of layers is random."""
    how = {"integrated_gradients": "integrated_gradients", "guided_backprop": "guided_backprop", "edges": edges}
    maps = {name: edges(model, images, 1) if name == "edges" else attribute(model, images, 1, name) for name in how}
    found = evaluate(model, images, maps, 1, ["model_randomisation"], explain=how, part=0.25, draws=10)
    values = [np.abs(found[found["method"] == name]["value"].mean()) for name in METHODS]
    colours = [PALETTE[3] if value > 0.5 else PALETTE[2] for value in values]
    ax.barh(list(METHODS.values())[::-1], values[::-1], color=colours[::-1])
    ax.axvline(0.5, color="0.3", linestyle="--")
    for place, value in enumerate(values[::-1]):
        ax.text(min(value, 0.84) + 0.02, place, f"{value:.2f}", va="center")
    ax.set(xlim=(0, 1.02), title="Can we trust that picture?")
    ax.set_xlabel("rank correlation with the maps of a model\nwhose answers are random (above 0.5: not to be trusted)")


def main():
    use()
    plt.rcParams["axes.titlesize"] = 13
    problem = load_problem("illustrated", None, "smiling", "glasses", "quick")
    test, model = problem.test, problem.model
    seen = models.predict(model, test)
    figure = plt.figure(figsize=(12, 8), layout="constrained", dpi=100)
    grid = figure.add_gridspec(2, 2, wspace=0.04, hspace=0.04)

    result = audit(seen.y_true, seen.y_pred, seen.group, groups=test.groups, classes=test.classes)
    ax = bias.by_group(result, "true_positive_rate", label=test.classes[1], ax=figure.add_subplot(grid[0, 0]))
    low, high = result.gap_interval("equal_opportunity")
    gap = result.gap("equal_opportunity")
    ax.set_title(f"Is it biased? (gap {gap:.2f} [{low:.2f}, {high:.2f}])")

    smiling = np.asarray(test.targets) == 1
    first = ~test.table["identity"].duplicated().to_numpy()  # four people
    rows = [row for code in range(2) for row in np.flatnonzero(first & smiling & (test.group == code))[:2]]
    images = test[rows][0]
    with torch.inference_mode():
        chance = model(images).softmax(1)[:, 1].numpy()
    maps = attribute(model, images, 1, "integrated_gradients")
    looks(figure.add_subfigure(grid[0, 1]), images, maps, [test.groups[code] for code in test.group[rows]], chance)

    trust(figure.add_subplot(grid[1, 0]), test[range(24)][0], model)

    fixes = debias(model, problem.validation, methods=["LEACE", "PCLARC", "DFR", "GT"], test_dataloader=test)
    ax = debiasing.pareto(fixes.to_frame(), ax=figure.add_subplot(grid[1, 1]))
    ax.set_title("What makes it fairer, at what price?")
    figure.savefig(Path(__file__).parent / "candor.png")


if __name__ == "__main__":
    main()
