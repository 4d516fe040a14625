import importlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from helpers.debiasing.finetune import finetune
from helpers.debiasing.jtt import error_weights, jtt
from helpers.debiasing.method import collect
from helpers.models import predict

module = importlib.import_module("helpers.debiasing.jtt")


def test_the_errors_together_count_as_much_as_the_rest_or_as_asked():
    wrong = np.arange(50) % 10 == 0
    weights = error_weights(wrong, None)
    assert weights[wrong].sum() == pytest.approx(weights[~wrong].sum()) and (weights[~wrong] == 1).all()
    assert set(error_weights(wrong, 20.0)[wrong]) == {20.0}
    for none in (np.zeros(5, bool), np.ones(5, bool)):
        assert (error_weights(none, None) == 1).all()


def test_no_group_is_looked_at(planted, batch_of):
    problem = planted(n=300)
    batch = batch_of(problem)
    one, two = jtt(problem.model, batch), jtt(problem.model, replace(batch, group=1 - batch.group[::-1]))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_what_the_model_gets_wrong_gains_where_groups_are_rare_and_unknown(planted):
    problem = planted(bias=0.97)
    rng = np.random.default_rng(0)
    rare = (problem.y != problem.group) & (rng.random(600) > 0.15)  # most of two cells are thrown away
    kept = DataLoader(Subset(problem.dataset, np.flatnonzero(~rare)), batch_size=64)
    batch = collect(problem.model, kept, problem.images[:4])
    fresh = planted(bias=0.97, seed=5)
    aside = fresh.y != fresh.group
    found = [predict(f(problem.model, batch, **o), fresh.loader()) for f, o in ((jtt, {}), (finetune, {"balanced": False}))]
    twice, once = ((each.y_pred == fresh.y)[aside].mean() for each in found)
    assert twice > once + 0.05


@pytest.mark.parametrize("epochs", [0, 2])
def test_the_errors_are_those_of_the_model_or_of_a_copy_trained_on(planted, batch_of, monkeypatch, epochs):
    problem = planted(bias=0.97)
    batch, tune, calls = batch_of(problem), module.tune, []

    def record(*args, **options):
        calls.append((options, tune(*args, **options)))
        return calls[-1][1]

    monkeypatch.setattr(module, "tune", record)
    jtt(problem.model, batch, identify_epochs=epochs, lr=0.02)
    assert len(calls) == 1 + (epochs > 0)
    first = calls[0][1] if epochs else problem.model
    if epochs:
        assert calls[0][0]["epochs"] == epochs and calls[0][0].get("weights") is None
    wrong = predict(first, problem.loader()).y_pred != problem.y
    assert 0 < wrong.sum() < len(wrong)
    np.testing.assert_array_equal(calls[-1][0]["weights"] != 1, wrong)


def test_without_an_error_all_images_count_equally_and_it_is_said(planted, batch_of):
    problem = planted(n=300)
    batch = batch_of(problem)
    right = batch.logits.numpy().argmax(1)
    for y, word in ((right, "no"), (1 - right, "every")):
        own = replace(batch, y=y, notes=[])
        jtt(problem.model, own, epochs=1)
        assert own.notes[0] == f"{word} image is an error: all count equally, as in fine-tuning"
        assert all("as few as" in other for other in own.notes[1:])
    assert batch.notes == []
