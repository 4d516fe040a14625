"""Every result beside the model as it was, on the same images."""

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import helpers
from helpers.bias import compare
from helpers.debiasing import METHODS, debias, to_frame
from helpers.debiasing.result import CHANGES, FRAME
from helpers.models import predict
from tests.debiasing.conftest import QUICK


@pytest.mark.parametrize("groups, classes", [(2, 2), (3, 2), (3, 3)])
def test_the_comparison_is_that_of_the_two_models_predictions(planted, groups, classes):
    problem, fresh = planted(groups=groups, classes=classes), planted(groups=groups, classes=classes, seed=5)
    results = debias(problem.model, problem.loader(), ["LEACE", "DFR", "GT"][: 5 - classes], test_dataloader=fresh.loader())
    before = predict(problem.model, fresh.loader())
    names = [str(code) for code in range(classes)]
    for key, result in list(results.items())[1:]:
        after = predict(result.model, fresh.loader())
        by_hand = compare(
            fresh.y, before.y_pred, after.y_pred, fresh.group, classes=names, names=("Vanilla", key)
        )
        for table in ("by_group", "gaps", "overall"):
            assert_frame_equal(getattr(result.comparison, table), getattr(by_hand, table))
        assert result.comparison is result.comparison  # made once
        change, low, high = result.get_change("EO_GAP")
        assert change == pytest.approx(result.get_metric("EO_GAP") - results["Vanilla"].get_metric("EO_GAP"))
        assert low <= change <= high
        gap = result.get_change("accuracy_gap")[0]
        assert gap == pytest.approx(result.get_metric("accuracy_gap") - results["Vanilla"].get_metric("accuracy_gap"))


def test_without_test_data_the_held_out_rows_are_compared(planted):
    result = debias(planted().model, planted().loader(), "DFR", include_vanilla=False)["DFR"]
    assert result.comparison.n == pytest.approx(len(planted().y) / 4, abs=3)
    overall = result.comparison.overall.set_index("statistic")["second"]
    assert overall["accuracy"] == result.validation["accuracy"]


def test_the_frame_has_the_promised_columns_then_the_changes(planted):
    results = debias(planted().model, planted().loader(), "LEACE")
    frame = to_frame(results).set_index("method")
    assert list(to_frame(results)) == [*FRAME, *CHANGES]
    assert frame.loc["Vanilla", list(CHANGES)].isna().all()
    given = results["LEACE"].get_change("balanced_accuracy") + results["LEACE"].get_change("equalized_odds")
    np.testing.assert_allclose(frame.loc["LEACE", list(CHANGES)].to_numpy(float), given)
    assert f"{given[0]:+.3f} [{given[1]:+.3f}, {given[2]:+.3f}]" in repr(results)


def test_the_model_as_it_was_and_a_failure_have_no_comparison(planted):
    results = debias(planted(classes=3).model, planted(classes=3).loader(), ["GT"])
    assert results["Vanilla"].comparison is None and results["GT"].comparison is None
    with pytest.raises(RuntimeError, match="Vanilla has no changes: nothing was changed"):
        results["Vanilla"].get_change("accuracy")
    with pytest.raises(RuntimeError, match="GT has no changes: target: 3 classes"):
        results["GT"].get_change("accuracy")
    assert isinstance(results.to_frame(), pd.DataFrame)
    done = debias(planted().model, planted().loader(), "DFR")["DFR"]
    with pytest.raises(ValueError, match="Did you mean 'balanced_accuracy'"):
        done.get_change("balanced_acuracy")


@pytest.mark.parametrize("groups, classes, methods", [(2, 2, "all"), (3, 3, ["LEACE", "DFR", "FINETUNE", "GT"])])
def test_what_every_method_gives_can_be_examined(planted, groups, classes, methods):
    problem, fresh = planted(groups=groups, classes=classes), planted(groups=groups, classes=classes, seed=5)
    results = debias(problem.model, problem.loader(), methods, methods_config=QUICK, test_dataloader=fresh.loader())
    found = helpers.examine(results, fresh.loader(), progress=False)
    working = [key for key, result in results.items() if result.error is None]
    assert len(working) == (len(METHODS) + 1 if classes == 2 else 4)
    probed = found.probe.set_index("method")
    assert list(probed.index) == working and (probed["layer"] == "3").all() and (probed["chance"] == 1 / groups).all()
    assert probed.loc["Vanilla", "low"] > 1 / groups + 0.2 and abs(probed.loc["LEACE", "accuracy"] - 1 / groups) < 0.12
    for key in working:
        gaps = [each[key].get_metric("equalized_odds") for each in (found.results, results)]
        assert gaps[0] == pytest.approx(gaps[1], abs=1e-6)
    assert set(found.groups["method"]) == set(working) - {"Vanilla"}
