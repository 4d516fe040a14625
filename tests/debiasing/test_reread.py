"""A classifier fitted anew is put into the edit: the same logits, one module, and what was erased stays erased."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.debiasing import METHODS, debias
from helpers.debiasing.dfr import as_logits
from helpers.debiasing.leace import fit_eraser
from helpers.debiasing.reread import reread


@pytest.mark.parametrize("outputs, bias", [(1, True), (2, True), (2, False), (3, True), (5, True)])
def test_the_head_gives_the_other_classifiers_logits_on_the_edited_features(outputs, bias):
    rng = np.random.default_rng(outputs)
    group = torch.tensor(rng.integers(0, 3, 400))
    x = torch.tensor(rng.normal(size=(400, 8)) + rng.normal(size=(3, 8))[group]).double()
    edit = fit_eraser([(x, group)], 3)
    head = nn.Linear(8, outputs, bias=bias).double()
    rows = 1 if outputs <= 2 else outputs
    weight, shift = rng.normal(size=(rows, 8)), rng.normal(size=rows)
    found = reread(edit, head, weight, shift).double()
    assert found.rank <= edit.rank + outputs
    full, constant = as_logits(weight, shift, outputs)
    expected = edit.double()(x).numpy() @ full.T + constant
    logits = head(found(x)).detach().numpy()
    if outputs > 1:  # what all logits have in common decides nothing, and stays as it was
        expected, logits = (part - part.mean(1, keepdims=True) for part in (expected, logits))
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    means = torch.stack([found(x)[group == g].mean(0) for g in range(3)])
    torch.testing.assert_close(means, means[:1].expand(3, -1), atol=1e-4, rtol=0)


@pytest.mark.parametrize("key", ["LEACE", "INLP"])
@pytest.mark.parametrize("groups, classes, outputs", [(2, 2, 1), (3, 2, 2), (2, 3, 3)])
def test_an_eraser_is_one_edit_that_switches_off_and_folds(planted, key, groups, classes, outputs):
    problem = planted(groups=groups, classes=classes, outputs=outputs, n=600)
    found = debias(problem.model, problem.loader(), key)[key]
    ((place, edit),) = found.edits
    model, images = found.get_model(), problem.images[:20]
    with torch.no_grad():
        corrected = model(images)
        assert place == "3" and not torch.allclose(corrected, problem.model(images), atol=1e-2)
        torch.testing.assert_close(model.fold()(images), corrected, atol=1e-4, rtol=1e-4)
        edit.enabled = False
        torch.testing.assert_close(model(images), problem.model(images), atol=0, rtol=0)


def test_without_it_the_classifier_is_left_with_what_it_learned(planted):
    problem = planted(n=600)
    plain = debias(problem.model, problem.loader(), "LEACE", methods_config={"LEACE": {"retrain": False}})["LEACE"]
    fitted = debias(problem.model, problem.loader(), "LEACE")["LEACE"]
    assert plain.edits[0][1].rank == 1 and fitted.edits[0][1].rank == 2
    assert METHODS["LEACE"].defaults["retrain"] is None
    assert fitted.get_metric("balanced_accuracy") > plain.get_metric("balanced_accuracy") - 0.02


@pytest.mark.parametrize("key", ["LEACE", "INLP"])
def test_of_few_images_the_classifier_is_left_as_it_is_unless_one_asks(planted, key):
    problem = planted(n=160)
    results = {
        retrain: debias(problem.model, problem.loader(), key, methods_config={key: {"retrain": retrain}})[key]
        for retrain in (None, False, True)
    }
    ranks = {retrain: result.edits[0][1].rank for retrain, result in results.items()}
    assert ranks[None] == ranks[False] == ranks[True] - 1
    assert "left as it is: a group has" in results[None].note and "left as it is" not in results[False].note
