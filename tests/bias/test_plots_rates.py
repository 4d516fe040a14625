"""2 seconds on one thread."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from helpers.bias import rates
from helpers.plots import rates as draw
from helpers.plots.show import alt_text


@pytest.fixture
def counted():
    group = pd.Series(pd.Categorical(np.repeat(["a", "b"], 40), ["a", "b", "nobody"]))
    outcome, people = np.arange(80) % 5 > 0, np.arange(80) // 10
    return {"counting images": rates(outcome, group), "counting people": rates(outcome, group, people)}


def title(ax) -> str:
    return ax.get_title() or ax.get_title(loc="left")  # where the style of the course puts it


def test_points_and_bars_are_the_results(counted):
    ax = draw.by_group(counted, "faces found")
    assert [line.get_label() for line in ax.containers] == list(counted)
    for bars, result in zip(ax.containers, counted.values(), strict=True):
        table = result.by_group.dropna()
        np.testing.assert_allclose(bars.lines[0].get_xdata().astype(float), table["value"].to_numpy(float))
        ends = [np.sort(segment[:, 0]) for segment in bars.lines[2][0].get_segments()]
        np.testing.assert_allclose(np.array(ends, float), table[["low", "high"]].to_numpy(float))
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["a\n40 images, 4 people", "b\n40 images, 4 people"]
    assert "nobody" in [text.get_text() for text in ax.texts]
    assert "counting people, a: 80.0%" in alt_text(ax) and title(ax) == "Faces found by group"
    plt.close("all")


def test_several_samples_keep_their_sizes_to_themselves(counted):
    other = rates([1, 0, 1], pd.Categorical(["a", "b", "b"], ["a", "b", "nobody"]))
    ax = draw.by_group({"one": counted["counting people"], "other": other}, "flips", title="What flips")
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["a", "b"] and title(ax) == "What flips"
    plt.close("all")


def test_bad_input_is_named(counted):
    with pytest.raises(ValueError, match="results: empty"):
        draw.by_group({}, "x")
    with pytest.raises(ValueError, match="results: 'other' is of the groups"):
        draw.by_group(counted | {"other": rates([1, 0], ["a", "b"])}, "x")
