import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from helpers.debiasing.result import FRAME
from helpers.plots import debiasing


@pytest.fixture
def frame():
    rows = [
        ("Vanilla", 0.70, 0.68, 0.72, 0.55, 0.50, 0.60, 0.0, False, False, ""),
        ("LEACE", 0.73, 0.71, 0.75, 0.22, 0.16, 0.27, 0.1, False, False, ""),
        ("GT", 0.77, 0.75, 0.79, 0.03, 0.00, 0.08, 0.1, True, False, ""),
        ("ONE", 0.50, 0.50, 0.50, 0.00, 0.00, 0.00, 0.1, False, True, ""),
        ("FAIL", *[np.nan] * 6, 0.1, False, False, "a reason"),
    ]
    yield pd.DataFrame(rows, columns=list(FRAME))
    plt.close("all")


def test_the_front_joins_what_nothing_beats_and_no_constant(frame):
    frame.loc[1, "balanced_accuracy"] = 0.80
    ax = debiasing.pareto(frame)
    line = next(line for line in ax.lines if line.get_label() == "Pareto front")
    assert list(zip(*line.get_data(), strict=True)) == [(0.77, 0.03), (0.80, 0.22)]
    assert "LEACE 0.80 and 0.22" in ax.figure.get_label() and "FAIL" not in ax.figure.get_label()
    assert ax.get_xlabel() and ax.get_ylabel()
    written = {text.get_text() for text in ax.texts}
    assert written == {"Vanilla", "LEACE", "GT", "ONE (one class)"}


def test_before_and_after_share_their_rows(frame):
    figure = debiasing.before_after(frame)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["Vanilla", "LEACE", "GT", "ONE (one class)"]
    assert "GT 0.77 and 0.03" in figure.get_label()


def test_a_frame_without_numbers_is_refused(frame):
    with pytest.raises(ValueError, match="no method has numbers"):
        debiasing.pareto(frame.iloc[4:])
    with pytest.raises(ValueError, match="lacks balanced_accuracy_low"):
        debiasing.before_after(frame.drop(columns="balanced_accuracy_low"))


@pytest.fixture
def runs():
    rows = [
        ("illustrated-0.9-0", "FINETUNE", 0.90, 0.04, 0.84, 0.08),
        ("illustrated-0.9-1", "FINETUNE", 0.88, 0.06, 0.82, 0.10),
        ("illustrated-0.9-0", "GDRO", 0.89, 0.05, np.nan, np.nan),
        ("illustrated-0.97-0", "NT", 0.52, 0.80, 0.51, 0.85),
    ]
    names = ("balanced_accuracy", "equalized_odds")
    return pd.DataFrame(rows, columns=["problem", "method", *names, *(f"detoxai_{name}" for name in names)])


def test_every_run_is_a_point_beside_the_other_library(runs):
    figure = debiasing.repeated(runs)
    assert [figure.axes[i].get_title("left") for i in (0, 2)] == ["illustrated-0.9", "illustrated-0.97"]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert sorted(labels) == ["FINETUNE", "GDRO", "NT"] and labels[-1] == "NT"
    theirs, ours = figure.axes[0].get_lines()[:2]
    np.testing.assert_allclose(ours.get_xdata(), [0.90, 0.88, 0.89])
    np.testing.assert_allclose(theirs.get_xdata(), [0.84, 0.82, np.nan])
    assert [labels[round(y)] for y in ours.get_ydata()] == ["FINETUNE", "FINETUNE", "GDRO"]


def test_runs_without_the_other_librarys_numbers_are_refused(runs):
    with pytest.raises(ValueError, match="frame: lacks detoxai_balanced_accuracy, detoxai_equalized_odds"):
        debiasing.repeated(runs.drop(columns=["detoxai_balanced_accuracy", "detoxai_equalized_odds"]))
    with pytest.raises(ValueError, match="frame: lacks rows"):
        debiasing.repeated(runs[:0])
