"""Many experiments: each done once, whatever kills the run and whoever computes it; and what they say together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy import stats

import helpers
from helpers import __main__, experiments
from helpers.plots import experiments as drawings

ROOT = Path(helpers.__file__).parents[1]
METHODS = ["LEACE", "DFR", "FINETUNE"]

pytestmark = pytest.mark.timeout(900)  # runs that are begun again and again, each importing everything


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A plan on 240 pictures of 60 people, whose label and group are stripes; a few seconds of work."""
    folder, draw, rows = tmp_path_factory.mktemp("faces"), np.random.default_rng(0), []
    for i in range(240):
        label, group = i % 2, i // 2 % 2
        image = (draw.random((16, 16, 3)) * 150).astype(np.uint8)
        image[3:7] += np.uint8(45 * label)
        image[9:13] += np.uint8(60 * group)
        Image.fromarray(image).save(folder / f"{i}.png")
        rows.append({"path": f"{i}.png", "label": ("no", "yes")[label], "group": "ab"[group], "person": i // 4})
    pd.DataFrame(rows).to_csv(folder / "faces.csv", index=False)
    own = {"name": "table", "root": str(folder / "faces.csv"), "target": "label", "protected": "group", "image_size": 16}
    return {
        "data": {"stripes": own | {"identity": "person"}},
        "biases": {"strong": {"variant": {"correlation": 0.5}}},
        "model": {"epochs": 1, "batch_size": 32},
        "methods": {"LEACE": None, "DFR": {}, "FINETUNE": {"epochs": 1}},
        "seeds": [0, 1],
    }


@pytest.fixture(scope="module")
def undisturbed(given, tmp_path_factory):
    """The folder of a run by one process, from beginning to end."""
    out = tmp_path_factory.mktemp("undisturbed")
    experiments.run(experiments.read_plan(given), out, jobs=1, progress=False)
    return out


def table(out):
    return (out / "results.parquet").read_bytes()


def test_every_method_meets_every_problem(given, undisturbed):
    results = pd.read_parquet(undisturbed / "results.parquet")
    wanted = [("strong", seed, method) for seed in (0, 1) for method in ("Vanilla", *METHODS)]
    assert list(results[["bias", "seed", "method"]].itertuples(index=False, name=None)) == wanted
    assert results["error"].isna().all() and results["balanced_accuracy"].between(0, 1).all()
    assert results.groupby("method")["balanced_accuracy"].nunique().max() > 1


def test_a_cell_is_what_debias_says(given, undisturbed):
    plan = experiments.read_plan(given)
    problem = plan.problems[1]
    model = helpers.models.load(undisturbed / "networks" / f"{problem.key}.safetensors")
    options = {key: value for key, value in given["data"]["stripes"].items() if key != "name"}
    fit, test = (helpers.load_faces("table", split=split, seed=1, **options) for split in ("validation", "test"))
    found = helpers.debias(model, fit, "DFR", test_dataloader=test, seed=1)["DFR"]
    results = pd.read_parquet(undisturbed / "results.parquet").query("seed == 1 and method == 'DFR'")
    for name in ("balanced_accuracy", "equalized_odds"):
        assert results[name].item() == pytest.approx(found.get_metric(name), abs=1e-9)


@pytest.mark.parametrize(("backend", "jobs"), [("loky", 2), ("dask", 2)])
def test_whoever_computes_it_the_table_has_the_same_bytes(given, undisturbed, tmp_path, backend, jobs):
    if backend == "dask":
        pytest.importorskip("distributed")
    experiments.run(experiments.read_plan(given), tmp_path, jobs=jobs, backend=backend, progress=False)
    assert table(tmp_path) == table(undisturbed)


def test_what_is_there_is_not_done_again_and_a_new_method_is(given, undisturbed, monkeypatch):
    done = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*.json")}
    before = table(undisturbed)
    more = given | {"methods": {**given["methods"], "NT": {}}}
    results = experiments.run(experiments.read_plan(more), undisturbed, jobs=1, progress=False)
    assert len(results) == 10 and results["method"].tolist()[4::5] == ["NT"] * 2
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert len(list((undisturbed / "cells").glob("*.json"))) == 10
    monkeypatch.setattr(helpers, "debias", None)  # nothing is left to compute
    monkeypatch.setattr(helpers, "train", None)
    experiments.run(experiments.read_plan(given), undisturbed, jobs=1, progress=False)
    assert table(undisturbed) == before


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_table(given, undisturbed, tmp_path):
    """Killed as soon as there is a checkpoint, a second network, or some results."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "helpers", "benchmark", str(plan), "--out", str(out), "--jobs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for pattern, least in (("networks/*.part", 1), ("networks/*.safetensors", 2), ("cells/*.json", 3)):
        running = subprocess.Popen(
            command, env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        until = time.monotonic() + 200
        while len(list(out.glob(pattern))) < least and running.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    assert not (out / "results.parquet").exists()
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert table(out) == table(undisturbed)
    assert "Mean rank over 2 problems" in done.stdout and (out / "summary.md").read_text("utf-8").startswith("# Experiments")
    for name in ("ranks.png", "trade_off.png"):
        assert Image.open(out / name).size[0] > 300


def test_a_problem_that_fails_is_named_and_the_others_are_done(given, tmp_path):
    wrong = given["data"]["stripes"] | {"root": str(tmp_path / "nowhere.csv")}
    small = {"data": {"wrong": wrong, **given["data"]}, "methods": ["NT"], "seeds": [0], "biases": {}}
    plan = experiments.read_plan(given | small)
    with pytest.raises(RuntimeError, match=r"1 of 2 problems failed: wrong as it is 0: .*nowhere\.csv"):
        experiments.run(plan, tmp_path / "out", jobs=1, progress=False)
    results = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert results[["data", "method"]].to_numpy().tolist() == [["stripes", "Vanilla"], ["stripes", "NT"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metods": ["NT"]}, "plan: unknown name 'metods'. Did you mean 'methods'"),
        ({"methods": ["LEECE"]}, "methods: unknown name 'LEECE'. Did you mean 'LEACE'"),
        ({"methods": {"FINETUNE": {"epoch": 1}}}, "methods.FINETUNE: unknown name 'epoch'. Did you mean 'epochs'"),
        ({"methods": []}, "methods: none given"),
        ({"seeds": 3}, r"seeds: 3; expected a list"),
        ({"seeds": [0.5]}, r"seeds: \[0.5\]; expected a list"),
        ({"model": {"epoch": 3}}, "model: unknown name 'epoch'"),
        ({"data": {"x": {"root": "a"}}}, "data.x: .* expected `name`"),
        ({"data": {}}, "data: none given"),
        ({"data": ["illustrated"]}, "data: .* expected names with values"),
    ],
)
def test_a_plan_that_cannot_be_is_named(given, change, message):
    with pytest.raises(ValueError, match=message):
        experiments.read_plan(given | change)


def test_files_that_are_no_plan_are_named(tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="plan: no file"):
        experiments.read_plan(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is not YAML"):
        experiments.read_plan(bad)
    bad.write_text("!!python/object/apply:os.system ['touch hacked']\n", encoding="utf-8")
    with pytest.raises(ValueError, match="is not YAML: could not determine a constructor"):
        experiments.read_plan(bad)
    assert __main__.main(["benchmark", str(bad)]) == 2 and "is not YAML" in capsys.readouterr().err
    with pytest.raises(ValueError, match="backend: unknown name 'loki'. Did you mean 'loky'"):
        experiments.run(experiments.Plan((), {}), tmp_path, backend="loki")


def made(values, seeds=3):
    """Results in which method m has accuracy `values[m]` at every seed, and a little more at later ones."""
    rows = [
        {"data": "d", "bias": "b", "seed": s, "method": m, "balanced_accuracy": v + 0.01 * s, "equalized_odds": 0.3 - v / 4}
        for s in range(seeds) for m, v in values.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(degenerate=False, error=None)


def test_intervals_over_seeds_are_students():
    rows = experiments.over_seeds(made({"Vanilla": 0.6, "A": 0.7})).set_index("method")
    values = np.array([0.7, 0.71, 0.72])
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    accuracy = "balanced_accuracy"
    assert rows.loc["A", [accuracy, f"{accuracy}_low", f"{accuracy}_high"]].tolist() == pytest.approx([0.71, low, high])
    assert rows.loc["A", [f"{accuracy}_change", f"{accuracy}_change_low"]].tolist() == pytest.approx([0.1, 0.1])
    assert np.isnan(rows.loc["Vanilla", "balanced_accuracy_change"]) and rows.loc["A", "seeds"] == 3
    page = experiments.to_markdown(made({"Vanilla": 0.6, "A": 0.7}, seeds=1))
    assert "over 1 problems" in page and "nan" not in page
    one = experiments.over_seeds(made({"Vanilla": 0.6}, seeds=1))
    assert one["balanced_accuracy"].item() == 0.6 and np.isnan(one["balanced_accuracy_low"].item())


def test_ranks_have_demsars_critical_difference_and_friedmans_test():
    """Four classifiers on fourteen data sets at 0.05: q = 2.569 and a difference of 1.25 (Demsar 2006, section 3.2.2)."""
    draw = np.random.default_rng(0)
    scores = draw.random((14, 4)) + [0, 0.2, 0.4, 0.6]
    rows = [
        {"data": f"d{i}", "bias": "", "seed": 0, "method": m, "balanced_accuracy": scores[i, j] / 2, "equalized_odds": 0.0}
        for i in range(14) for j, m in enumerate("abcd")
    ]  # fmt: skip
    results = pd.DataFrame(rows).assign(degenerate=False, error=None)
    found = experiments.ranks(results, by="balanced_accuracy")
    assert found.critical_difference == pytest.approx(1.25, abs=0.005) and found.problems == 14
    assert found.p_value == pytest.approx(stats.friedmanchisquare(*scores.T).pvalue)
    expected = dict(zip("abcd", stats.rankdata(-scores, axis=1).mean(0), strict=True))
    assert dict(zip(found.table["method"], found.table["rank"], strict=True)) == pytest.approx(expected)
    assert found.table["rank"].is_monotonic_increasing
    assert (found.table["high"] - found.table["low"]).tolist() == pytest.approx([found.critical_difference] * 4)
    ax = drawings.ranks(found)
    assert [label.get_text() for label in ax.get_yticklabels()] == found.table["method"].tolist()
    assert "d " in ax.figure.get_label() and "less than 1.25 are not told apart" in ax.figure.get_label()


def test_a_model_that_says_one_thing_is_last_and_one_without_numbers_is_left_out():
    results = made({"Vanilla": 0.6, "A": 0.9, "B": 0.8, "C": 0.7})
    results.loc[results["method"] == "A", "degenerate"] = True
    results.loc[(results["method"] == "C") & (results["seed"] == 1), ["balanced_accuracy", "equalized_odds"]] = np.nan
    found = experiments.ranks(results)
    assert found.table["method"].tolist() == ["B", "Vanilla", "A"]
    assert found.notes == ("C is left out: no value on 1 of 3 problems",)
    with pytest.raises(ValueError, match="by: unknown name 'acuracy'"):
        experiments.ranks(results, by="acuracy")
    with pytest.raises(ValueError, match="fewer than two methods"):
        experiments.ranks(results[results["method"] == "A"])
    page = experiments.to_markdown(results.assign(error=np.where(results["method"] == "C", "<b>broke</b>", None)))
    assert "&lt;b&gt;broke" in page and "C is left out" in page


def test_the_trade_off_has_a_panel_a_problem_and_says_its_points():
    results = pd.concat([made({"Vanilla": 0.6, "A": 0.7}), made({"Vanilla": 0.5, "A": 0.65}).assign(bias="c")])
    figure = drawings.trade_off(experiments.over_seeds(results))
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == ["d, b", "d, c"]
    assert "d, c, A 0.66" in figure.get_label() and len(figure.legends[0].get_texts()) == 2
