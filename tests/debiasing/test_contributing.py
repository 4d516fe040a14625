"""The worked example of CONTRIBUTING.md is a method like the others."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import __main__ as cli
from helpers.debiasing import METHODS, debias
from helpers.models import build, features, load, save

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def example(tmp_path):
    """The key of the method that the guide's block registers, as a module of its own, for one test."""
    section = GUIDE.read_text(encoding="utf-8").partition("## One file, one line")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```$", section, flags=re.DOTALL | re.MULTILINE)
    assert len(block.splitlines()) <= 25
    path = tmp_path / "example_of_the_guide.py"
    path.write_text(block, encoding="utf-8")
    before = set(METHODS)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
        (key,) = set(METHODS) - before
        yield key
    finally:
        for key in set(METHODS) - before:
            del METHODS[key]
        del sys.modules[path.stem]


def distance(model, problem, layer):
    """Between the groups' mean features, the largest over pairs, in standard deviations of a feature."""
    seen = features(model, problem.loader(), layer)
    means = np.stack([seen.features[problem.group == g].mean(0) for g in range(problem.groups)])
    return np.abs(means[:, None] - means[None]).max() / seen.features.std(0).mean()


@pytest.mark.parametrize("groups", [2, 3])
def test_the_guides_method_takes_the_difference_of_the_groups_out(planted, example, groups):
    problem, fresh = planted(groups=groups, n=1200), planted(groups=groups, n=1200, seed=5)
    result = debias(problem.model, problem.loader(), example, test_dataloader=fresh.loader(), include_vanilla=False)[example]
    assert result.error is None and not result.needs_group and not result.degenerate
    assert [name for name, _ in result.edits] == ["3"]
    assert distance(problem.model, fresh, "3") > 0.5
    assert distance(result.model, fresh, "3.edit") < 0.2 * distance(problem.model, fresh, "3")
    assert not hasattr(problem.model[3], "edit")


def test_the_guides_method_narrows_the_gap_and_folds(planted, example):
    problem, fresh = planted(bias=0.97), planted(bias=0.97, seed=5)
    results = debias(problem.model, problem.loader(), example, test_dataloader=fresh.loader())
    before, after = (results[key].get_metric("equalized_odds") for key in ("Vanilla", example))
    assert before > 0.25 and after < 0.6 * before
    model = results[example].get_model()
    torch.testing.assert_close(model.fold()(fresh.images), model(fresh.images), atol=1e-4, rtol=0)


def test_the_guides_method_is_saved_loaded_and_exported(planted, example, tmp_path):
    problem, model = planted(n=300), build("resnet18", classes=("no", "yes"), seed=0)
    result = debias(model, problem.loader(), example)[example]
    save(result.get_model(), tmp_path / "model")
    again, images = load(tmp_path / "model"), problem.images[:8]
    with torch.no_grad():
        assert not torch.allclose(result.model(images), model(images), atol=1e-4)
        torch.testing.assert_close(again(images), result.model(images), atol=1e-5, rtol=0)
        program = torch.export.export(again, (images,)).module()
        torch.testing.assert_close(program(images), result.model(images), atol=1e-5, rtol=0)


def test_the_command_line_lists_the_guides_method(example, capsys):
    answers = []
    for name in ("NOSUCHMETHOD", example.lower()):
        code = cli.main(["debias", "--model", "absent.safetensors", "--method", name])
        answers.append(capsys.readouterr().err)
        assert code != 0
    assert f", {example}" in answers[0] and "LEACE" in answers[0]
    assert "unknown name" not in answers[1] and "absent" in answers[1]  # known, so that the model is looked for
