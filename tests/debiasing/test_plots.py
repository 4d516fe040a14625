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
