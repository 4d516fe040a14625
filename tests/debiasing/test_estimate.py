"""How long a run will take is told before it begins, from what each method really costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.debiasing import METHODS, debias, tuning
from helpers.debiasing.debias import about, expected_seconds

TRAINS = {
    "FINETUNE": {"epochs": 2},
    "GDRO": {"epochs": 1},
    "JTT": {"epochs": 1, "identify_epochs": 2},
    "FAIRRET": {"epochs": 1},
    "FAIRTORCH": {"epochs": 1},
    "SAVANIAFT": {"iterations": 2, "model_iterations": 3, "critic_iterations": 2},
    "ZHANGM": {"iterations": 5, "model_iterations": 2},
}
GRADIENTS = {"ZHANGM": 0.6 + 0.4 * 5 / 3}  # two of them a step instead of one, after the warm-up


def trained_on(key, model, batch, options):
    """Images that go through the network in training mode while a method fits."""
    seen = []

    def count(module, args, output):
        if module.training:
            seen.append(len(output))

    hook = model.register_forward_hook(count)  # copies of the model count in the same list
    METHODS[key].function(model, batch, **options)
    hook.remove()
    return sum(seen)


@pytest.mark.parametrize("key", TRAINS)
@pytest.mark.parametrize("own", [True, False])
def test_the_cost_that_is_told_is_that_of_the_images_trained_on(key, own, planted, batch_of):
    problem = planted(n=320, seed=3)
    batch = batch_of(problem)
    options = METHODS[key].defaults | (TRAINS[key] if own else {})
    told = METHODS[key].passes(batch, **options) / tuning.STEP / GRADIENTS.get(key, 1)
    assert told == pytest.approx(trained_on(key, problem.model, batch, options) / len(batch), rel=0.02)


def test_what_never_runs_the_network_is_told_to_cost_next_to_nothing(planted, batch_of):
    problem = planted(n=320, seed=3)
    batch = batch_of(problem)
    short = {"SAVANIRP": {"T_iters": 2}, "SAVANILWO": {"evaluations": 20}, "RRCLARC": {"epochs": 2}, "ACLARC": {"epochs": 2}}
    for key in METHODS.keys() - TRAINS.keys():
        assert METHODS[key].passes(batch, **METHODS[key].defaults) == 0, key
        assert trained_on(key, problem.model, batch, METHODS[key].defaults | short.get(key, {})) == 0, key


def test_a_search_of_more_than_the_classifier_is_told_by_its_evaluations(planted, batch_of):
    batch = batch_of(planted(n=320, seed=3))
    for key, options, passes in (
        ("SAVANIRP", {"n_layers": 2, "T_iters": 7}, 7),
        ("SAVANIRP", {"n_layers": 2}, 15),
        ("SAVANILWO", {"n_layers": 2, "evaluations": 50}, 100),
    ):
        assert METHODS[key].passes(batch, **METHODS[key].defaults | options) == passes


def test_the_seconds_are_those_of_the_first_pass_and_of_the_pass_to_judge(planted, batch_of):
    batch = replace(batch_of(planted(n=320, seed=3)), seconds=8.0)
    fit = batch.take(np.arange(240))
    options = METHODS["FINETUNE"].defaults | {"epochs": 2}
    training = 2 * tuning.STEP * 8.0 * 240 / 320
    assert expected_seconds(METHODS["FINETUNE"], options, fit, 480) == pytest.approx(1 + training + 8 * 480 / 320)
    assert expected_seconds(METHODS["FINETUNE"], options, fit, 0) == pytest.approx(1 + training)
    assert expected_seconds(METHODS["LEACE"], METHODS["LEACE"].defaults, fit, 480) == 1


@pytest.mark.parametrize("key, again", [("FINETUNE", 0), ("ZHANGM", 240)])  # whose threshold is read off the rows to fit on
def test_a_trained_model_is_run_on_what_it_is_judged_on_and_no_more(key, again, planted):
    problem, fresh, seen = planted(n=320, seed=3), planted(n=64, seed=4), []
    hook = problem.model.register_forward_hook(lambda module, args, out: seen.append(0 if module.training else len(out)))
    few = {"FINETUNE": {"epochs": 1}, "ZHANGM": {"iterations": 2}}
    for test, judged in ((None, 80), (fresh.loader(), 80 + 64)):
        runs = []
        for methods in (["LEACE"], ["LEACE", key]):  # what the first passes and the checks of layers take, and that method's
            seen.clear()
            debias(problem.model, problem.loader(), methods, methods_config=few, test_dataloader=test)
            runs.append(sum(seen))
        small = 3 * 16 * (1 + (again > 0))  # images on which layers are found and short cuts are checked
        assert 0 <= runs[1] - runs[0] - judged - again <= small
    hook.remove()


def test_times_are_told_as_people_say_them():
    assert [about(s) for s in (0.2, 44, 89, 91, 380, 5000, 9000)] == [
        "about 10 s", "about 40 s", "about 90 s", "about 2 min", "about 6 min", "about 83 min", "about 2.5 h",
    ]  # fmt: skip


def test_the_bar_says_it_before_the_first_method_and_an_option_that_is_refused_does_not_stop_it(planted, capsys):
    problem = planted(n=320, seed=3)
    found = debias(problem.model, problem.loader(), methods=["FINETUNE", "LEACE"], methods_config={"FINETUNE": {"epochs": "two"}})
    assert "epochs: got 'two'" in found["FINETUNE"].error and found["LEACE"].error is None
    first = capsys.readouterr().err.partition("about ")[2]
    assert first.startswith("10 s")
