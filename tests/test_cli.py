"""The command line: exit codes and messages a person can use, and the same numbers as in Python."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import helpers
from helpers import __main__ as cli
from helpers import models
from helpers.bias import compare
from helpers.data import recipe


@pytest.fixture
def predictions(tmp_path):
    """A CSV of 200 predictions whose true positive rate differs between two genders."""
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2
    gender = np.where(np.arange(200) % 4 < 2, "f", "m")
    pred = np.where((gender == "m") & (rng.random(200) < 0.4), 0, label)
    age = np.where(rng.random(200) < 0.5, "old", "young")
    path = tmp_path / "predictions.csv"
    pd.DataFrame({"label": label, "pred": pred, "gender": gender, "age": age}).to_csv(path, index=False)
    return path


AUDIT = ["--y-true", "label", "--y-pred", "pred", "--group", "gender"]


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of the command line in this process."""
    code = cli.main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


def test_a_csv_is_audited_without_a_model_as_in_python(capsys, predictions, tmp_path):
    code, out, _ = run(capsys, "audit", predictions, *AUDIT, "--out", tmp_path / "audit.json")
    table = pd.read_csv(predictions)
    audit = helpers.audit(table["label"], table["pred"], table["gender"])
    assert code == 0 and out.strip() == audit.to_markdown().strip()
    written = {row["statistic"]: row for row in json.loads((tmp_path / "audit.json").read_text())["gaps"]}
    assert written["equalized_odds"]["difference"] == audit.gap("equalized_odds") > 0.2

    code, out, _ = run(
        capsys, "audit", predictions, *AUDIT, "--group", "age", "--out", tmp_path / "audit.csv"
    )
    assert code == 0 and "f, old" in out
    assert set(pd.read_csv(tmp_path / "audit.csv")["group"]) == {"f, old", "f, young", "m, old", "m, young"}


@pytest.mark.parametrize("name, form", [("a.csv", {"sep": ";"}), ("a.tsv", {"sep": "\t"}), ("a.csv", {"encoding": "utf-8-sig"})])
def test_a_table_of_predictions_may_have_any_usual_separator(capsys, predictions, tmp_path, name, form):
    pd.read_csv(predictions).to_csv(tmp_path / name, index=False, **form)
    code, out, _ = run(capsys, "audit", tmp_path / name, *AUDIT)
    assert code == 0 and out == run(capsys, "audit", predictions, *AUDIT)[1]


def test_labels_may_be_words_and_the_positive_one_is_asked_for(capsys, predictions, tmp_path):
    table = pd.read_csv(predictions).replace(
        {"label": {0: "calm", 1: "happy"}, "pred": {0: "calm", 1: "happy"}}
    )
    table.to_csv(tmp_path / "words.csv", index=False)
    code, _, err = run(capsys, "audit", tmp_path / "words.csv", *AUDIT)
    assert code == 2 and "--positive: name the label that counts as positive; there are calm, happy" in err
    code, out, _ = run(capsys, "audit", tmp_path / "words.csv", *AUDIT, "--positive", "happy")
    assert code == 0 and out == run(capsys, "audit", predictions, *AUDIT)[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit"], "Give either a file of predictions or --model"),
        (["audit", "absent.csv", *AUDIT], "absent.csv does not exist"),
        (["audit", "{csv}", *AUDIT[:-1], "gendr"], "--group: unknown name 'gendr'. Did you mean 'gender'?"),
        (["audit", "{csv}", "--group", "gender"], "--y-true: unknown name 'y_true'"),
        (["audit", "{csv}", *AUDIT, "--out", "table.txt"], "--out: unknown name '.txt'"),
        (["audit", "{csv}", *AUDIT, "--statistic", "true_positve_rate"], "mean 'true_positive_rate'?"),
        (["audit", "{csv}", *AUDIT, "--target", "label"], "--target: only with --model"),
        (["audit", "{csv}", *AUDIT, "--confidence", "95"], "confidence: 95.0 is outside"),
        (["audit", "{csv}", *AUDIT, "--compare", "pred2"], "--compare: unknown name 'pred2'. Did you mean 'pred'?"),
        (["audit", "--model", "absent", "--compare", "pred"], "--compare: only with a file of predictions"),
        (["train", "--data", "ilustrated"], "Did you mean 'illustrated'?"),
        (["train", "--data", "no/such/folder"], "--data: no/such/folder does not exist"),
        (["train", "--target", "smilng"], "Did you mean 'smiling'?"),
        (["train", "--option", "correlaton=0.5"], "--option: unknown name 'correlaton'. Did you mean 'correlation'?"),
        (["train", "--option", "correlation=strong"], "correlation: expected a number in [-1, 1], got 'strong'"),
        (["train", "--data", "nothing"], "--data (there is no such file or folder): unknown name 'nothing'"),
        (["train", "--option", "correlation"], "--option: expected NAME=VALUE"),
        (["attribute", "--model", "absent.safetensors"], "absent.safetensors is missing"),
        (["attribute", "--model", "absent", "--method", "saliencey"], "Did you mean 'saliency'?"),
        (["attribute", "--model", "absent", "--out", "map.gif"], "--out: unknown name '.gif'"),
        (["debias", "--model", "absent", "--split", "test"], "are both 'test'"),
        (["report", "--model", "absent", "--out", "."], "--out: '.' is a folder"),
    ],
)  # fmt: skip
def test_wrong_input_gives_one_message_no_traceback_and_no_file(
    arguments, message, capsys, predictions, monkeypatch
):
    monkeypatch.chdir(predictions.parent)
    code, _, err = run(capsys, *[argument.format(csv=predictions) for argument in arguments])
    assert code == 2 and message in err and "Traceback" not in err
    assert [path.name for path in predictions.parent.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize(
    "arguments", [["adit"], ["train", "--epochs", "0"], ["audit", "--nonsense"], ["debias"]]
)
def test_wrong_usage_is_code_2(arguments, capsys):
    code, _, err = run(capsys, *arguments)
    assert code == 2 and "Traceback" not in err and err


def test_two_models_in_one_file_are_compared(capsys, predictions):
    table = pd.read_csv(predictions)
    table["better"] = table["label"]
    table.to_csv(predictions, index=False)
    options = ["--compare", "better", "--statistic", "accuracy", "--small", "1000"]
    code, out, _ = run(capsys, "audit", predictions, *AUDIT, *options)
    assert code == 0 and "fewer than 1000 images" in out
    columns = table["label"], table["pred"], table["better"], table[["gender"]]
    wanted = compare(*columns, names=("pred", "better"), statistics=["accuracy"])
    assert out.rstrip().endswith(wanted.to_markdown().rstrip())


def test_missing_values_are_counted_not_dropped(capsys, predictions):
    table = pd.read_csv(predictions)
    table.loc[3:7, "gender"] = np.nan
    table.to_csv(predictions, index=False)
    code, _, err = run(capsys, "audit", predictions, *AUDIT)
    assert code == 2 and "column 'gender'" in err and "5 of 200" in err


def test_a_file_that_is_no_table_is_named(capsys, tmp_path):
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "image.csv").write_bytes(b"\x89PNG\r\n\xff\xfe")
    (tmp_path / "bad.parquet").write_bytes(b"PAR0")
    for name in ("empty.csv", "image.csv", "bad.parquet"):
        code, _, err = run(capsys, "audit", tmp_path / name)
        assert code == 2 and name in err and "Traceback" not in err


def test_interruption_is_130_and_a_fault_is_1_with_its_traceback(capsys, predictions, monkeypatch):
    def raises(error):
        def audit(*args, **kwargs):
            raise error

        return audit

    monkeypatch.setattr(helpers, "audit", raises(KeyboardInterrupt()), raising=False)
    code, _, err = run(capsys, "audit", predictions, *AUDIT)
    assert code == 130 and "Interrupted." in err and "Traceback" not in err
    monkeypatch.setattr(helpers, "audit", raises(ZeroDivisionError("x")), raising=False)
    code, _, err = run(capsys, "audit", predictions, *AUDIT)
    assert code == 1 and "Traceback" in err and "Unexpected error (ZeroDivisionError)" in err
    monkeypatch.setattr(helpers, "audit", raises(ValueError("seen")), raising=False)
    code, _, err = run(capsys, "--debug", "audit", predictions, *AUDIT)
    assert code == 2 and "Traceback" in err and "Error: seen" in err


def test_help_names_every_verb_and_brackets_are_kept(capsys):
    code, out, _ = run(capsys, "--help")
    verbs = ("train", "audit", "attribute", "debias", "report", "leaderboard", "fetch")
    assert code == 0 and all(verb in out for verb in verbs)
    for verb in ("train", "audit", "attribute", "debias", "report"):
        code, out, _ = run(capsys, verb, "--help")
        assert code == 0 and "--seed" in out and "--data" in out
    code, out, _ = run(capsys, "leaderboard", "--help")  # its faces are drawn, whatever data there is
    assert code == 0 and "--seed" in out and "--method" in out
    assert "[all]" in run(capsys, "debias", "--help")[1]


def test_as_a_process_with_its_exit_code_and_version():
    ran = [sys.executable, "-m", "helpers"]
    version = subprocess.run([*ran, "--version"], capture_output=True, text=True, timeout=60)
    assert (version.returncode, version.stdout.strip()) == (0, helpers.__version__)
    wrong = subprocess.run([*ran, "report"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2 and "--model" in wrong.stderr


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A user's own table and pictures: 120 faces of 16 px, 40 people, bright ones are "happy"."""
    folder = tmp_path_factory.mktemp("my photos")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(120):
        happy, group = i % 2, "ab"[i % 3 == 0]
        pixels = rng.integers(0, 90, (16, 16, 3)) + 110 * happy
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        rows.append(
            {"path": f"{i}.png", "mood": "happy" if happy else "calm", "site": group, "identity": i // 3}
        )
    pd.DataFrame(rows).to_csv(folder / "faces.csv", index=False)
    return folder


def test_the_five_verbs_in_a_row_on_a_table_of_ones_own(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = [
        "--data",
        photos / "faces.csv",
        "--target",
        "mood",
        "--protected",
        "site",
        "--image-size",
        "16",
        "--seed",
        "5",
    ]
    code, out, err = run(
        capsys, "train", *data, "--epochs", "1", "--batch-size", "16", "--out", "models/m.safetensors"
    )
    assert code == 0, err
    assert "Saved models/m.safetensors" in out
    model = models.load("models/m.safetensors")
    assert model.info["loaded"]["seed"] == 5 and model.classes == ("calm", "happy")

    # the seed of the training is remembered: another one would put training people into the test
    code, out, err = run(capsys, "audit", "--model", "models/m.safetensors", "--n-boot", "20")
    assert code == 0, err
    test = helpers.load_faces(
        "table",
        root=photos / "faces.csv",
        target="mood",
        protected="site",
        split="test",
        image_size=16,
        seed=5,
    )
    assert f"(n = {(test.group == 0).sum()})" in out

    code, out, err = run(
        capsys,
        "attribute",
        "--model",
        "models/m",
        "--method",
        "saliency",
        "--examples",
        "2",
        "--out",
        "a.png",
    )
    assert code == 0, err
    assert Image.open("a.png").width > 200

    code, out, err = run(capsys, "debias", "--model", "models/m", "--method", "LEACE", "--out", "edited")
    assert code == 0, err
    assert out.startswith("| method | balanced accuracy | equalized odds |") and "| LEACE |" in out
    assert "| balanced accuracy change | equalized odds change |" in out
    assert pd.read_csv("edited/table.csv")["method"].tolist() == ["Vanilla", "LEACE"]
    assert models.edits(models.load("edited/LEACE"))

    code, out, err = run(
        capsys,
        "report",
        "--model",
        "edited/LEACE",
        "--attribution",
        "saliency",
        "--debias",
        "DFR",
        "--out",
        "r.html",
    )
    assert code == 0, err
    page = (tmp_path / "r.html").read_text()
    assert "Mood by site" in page and "DFR" in page
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"models", "a.png", "edited", "r.html", "r.card.md", "r.data.json"}


def test_options_that_decide_the_splits_are_remembered_and_skipped_files_told(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pd.read_csv(photos / "faces.csv")
    table["path"] = [str(photos / path) for path in table["path"]]
    (tmp_path / "broken.png").write_bytes(b"no image")
    table.loc[len(table)] = ["broken.png", "calm", "a", 999]
    # two labels of people: whoever splits by `identity` instead of `person` shares people between the splits
    table["person"] = np.random.default_rng(3).permutation(np.arange(len(table)) // 3)
    table.to_csv("faces.csv", index=False)
    data = ["--data", "faces.csv", "--target", "mood", "--protected", "site", "--image-size", "16"]
    options = ["-o", "identity=person", "-o", "on_error=skip"]
    code, _, err = run(capsys, "train", *data, *options, "--epochs", "1", "--out", "m")
    assert code == 0, err
    splits = {
        split: helpers.load_faces("table", root="faces.csv", target="mood", protected="site", split=split, image_size=16,
                                  identity="person", on_error="skip")
        for split in ("train", "validation", "test")
    }  # fmt: skip
    told = [faces for split, faces in splits.items() if faces.skipped and split != "test"]
    assert ("Skipped 1 files of table, such as broken.png" in err) == bool(told)
    code, out, err = run(capsys, "audit", "--model", "m", "--n-boot", "20")
    assert code == 0, err
    assert f"(n = {(splits['test'].group == 0).sum()})" in out
    assert ("Skipped" in err) == bool(splits["test"].skipped)
    assert sum(bool(faces.skipped) for faces in splits.values()) == 1

    # the same faces under another question: it is said, since the number of classes fits
    code, _, err = run(capsys, "audit", "--model", "m", "--target", "site", "--protected", "mood", "--n-boot", "20")
    assert code == 0 and "The model learned calm | happy; here it is judged on a | b" in err


def test_a_recipe_takes_the_place_of_a_data_set(photos, tmp_path, capsys, monkeypatch):
    """What a verb wrote beside its result is `--data` of the next: the same rows, so the same bytes and numbers."""
    monkeypatch.chdir(tmp_path)
    data = ["--data", photos / "faces.csv", "--target", "mood", "--protected", "site", "--image-size", "16", "--seed", "5"]
    variant = ["-o", 'variant={"site=a, mood=happy": 0.3}']
    small = ["--epochs", "1", "--batch-size", "16"]
    code, _, err = run(capsys, "train", *data, *variant, *small, "--balance", "class", "--out", "m")
    assert code == 0, err
    assert "(train), a variant of" in err and "| site=a, mood=happy | 0.3 |" in err
    code, _, err = run(capsys, "train", "--data", "m.json", *small, "--balance", "class", "--out", "again")
    assert code == 0, err
    first, second = models.load("m"), models.load("again")
    assert first.info["rows"] == second.info["rows"] and set(first.info["rows"]) == {"train", "validation"}
    assert first.info["loaded"] == second.info["loaded"] and "variant" not in first.info["loaded"]["option"]
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

    report = ["report", "--model", "m", "--attribution", "saliency"]
    code, _, err = run(capsys, *report, "--debias", "DFR", "--out", "r.html")
    assert code == 0, err
    assert set(recipe.read("r.data.json")) == {"train", "validation", "mitigation", "test"}
    code, out, err = run(capsys, "audit", "--model", "m", "--n-boot", "20")
    assert code == 0 and run(capsys, "audit", "--model", "m", "--n-boot", "20", "--data", "r.data.json")[1] == out
    code, out, err = run(capsys, "debias", "--model", "m", "--method", "LEACE", "--out", "edited")
    assert code == 0, err
    assert run(capsys, "debias", "--model", "m", "--method", "LEACE", "--data", "r.data.json")[1].count("LEACE") == 1
    assert set(models.load("edited/LEACE").info["rows"]) == {"train", "validation", "mitigation", "test"}

    lone = helpers.load_faces(
        "table", root=photos / "faces.csv", target="mood", protected="site", image_size=16, seed=5, split="test"
    ).subset(range(8))
    Path("lone.json").write_text(json.dumps(lone.recipe))
    code, out, err = run(capsys, "audit", "--model", "m", "--n-boot", "20", "--data", "lone.json")
    assert code == 0 and f"(n = {(lone.group == 0).sum()})" in out
    for arguments, message in [
        (["audit", "--model", "m", "--data", "m.json"], "m.json holds rows for train, validation, and none for test"),
        (["audit", "--model", "m", "--data", "lone.json", "--seed", "0"], "--seed: the recipe lone.json says that already"),
        (["debias", "--model", "m", "--data", "lone.json"], "holds one set of rows, and none for mitigation"),
        (["audit", "--model", "m", "--data", "absent.json"], "absent.json does not exist"),
    ]:
        code, _, err = run(capsys, *arguments)
        assert code == 2 and message in err


def test_a_warning_is_one_sentence_without_a_line_of_code(capsys, predictions, monkeypatch):
    def warned(*arguments, **options):
        warnings.warn("few faces", UserWarning, stacklevel=2)
        raise ValueError("enough")

    monkeypatch.setattr(helpers, "audit", warned)
    code, _, err = run(capsys, "audit", predictions, *AUDIT)
    assert code == 2 and err == "Warning: few faces\nError: enough\n"


def test_a_folder_that_takes_no_file_is_found_before_the_model_is_loaded(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "debias", "--model", tmp_path / "absent", "--out", tmp_path / "file" / "models")
    assert code == 2 and err.startswith("Error: --out: cannot write")


def test_a_model_of_another_library_is_audited_and_looked_into(photos, tmp_path, capsys, monkeypatch):
    from torch import nn

    monkeypatch.chdir(tmp_path)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    models.export(network, "net.onnx", torch.rand(2, 3, 16, 16))
    (tmp_path / "net.json").write_text(json.dumps({"mean": [0.4, 0.5, 0.6], "std": 0.5, "classes": {"calm": 1, "happy": 0}}))
    data = ["--data", photos / "faces.csv", "--target", "mood", "--protected", "site", "--image-size", "16"]
    theirs = ["--model", "net.onnx", "--preprocessing", "net.json"]
    code, out, err = run(capsys, "audit", *theirs, *data, "--n-boot", "20")
    assert code == 0 and not err
    model = models.foreign.load("net.onnx", mean=(0.4, 0.5, 0.6), std=0.5, classes={"calm": 1, "happy": 0})
    test = helpers.load_faces(
        "table", root=photos / "faces.csv", target="mood", protected="site", split="test", image_size=16
    )
    seen = models.predict(model, test)
    judged = helpers.audit(seen.y_true, seen.y_pred, seen.group, groups=test.groups, classes=test.classes, n_boot=20)
    assert out.strip() == judged.to_markdown().strip()

    code, _, err = run(capsys, "attribute", *theirs, *data, "--method", "occlusion", "--examples", "2", "--out", "a.png")
    assert code == 0 and Image.open("a.png").width > 200, err
    code, _, err = run(capsys, "attribute", *theirs, *data, "--out", "b.png")
    assert code == 2 and "integrated_gradients needs it; without one work feature_ablation" in err

    (tmp_path / "wrong.json").write_text(json.dumps({"sdt": 1}))
    (tmp_path / "no.json").write_text("scale = 255")
    (tmp_path / "list.json").write_text("[255]")
    for given, message in (
        (["net.onnx", "wrong.json"], "--preprocessing: unknown name 'sdt'. Did you mean 'std'?"),
        (["net.onnx", "no.json"], "--preprocessing: no.json is not readable JSON"),
        (["net.onnx", "list.json"], "--preprocessing: list.json holds no object; accepted are the names size, mean"),
        (["net.onnx", "absent.json"], "absent.json"),
        (["absent.onnx", "net.json"], "source: there is no file 'absent.onnx'"),
        (["model.pkl", "net.json"], "model.pkl is a pickle, and loading one runs code"),
        (["net.safetensors", "net.json"], "--preprocessing: only for a model of another library"),
    ):
        code, _, err = run(capsys, "audit", "--model", given[0], "--preprocessing", given[1], *data)
        assert code == 2 and message in err


def test_a_card_is_written_in_each_form_and_printed(capsys, tmp_path):
    asked = ["card", "--data", "orl", "--protected", "woman", "--image-size", "16"]
    code, out, _ = run(capsys, *asked, "--about", "purpose=to teach")
    assert code == 0 and out.startswith("# Data card: orl") and "Purpose: to teach" in out and "0 people are in both" in out
    for name in ("card.md", "card.html", "card.json"):
        code, out, _ = run(capsys, *asked, "--split", "all", "--out", tmp_path / name)
        assert code == 0 and "Wrote" in out and (tmp_path / name).stat().st_size > 1000
    assert "<img" in (tmp_path / "card.html").read_text()
    assert json.loads((tmp_path / "card.json").read_text())["leaks"] is None
    for wrong, message in (
        (["--out", tmp_path / "card.pdf"], "--out"),
        (["--about", "purpos=x"], "purpose"),
        (["--about", "purpose"], "--about: expected NAME=VALUE"),
        (["--split", "test"], "shares everybody with itself"),
    ):
        code, _, error = run(capsys, *asked, *wrong)
        assert code == 2 and message in error


def test_a_table_with_missing_labels_has_a_card(capsys, tmp_path):
    rows = [(f"{k}.png", "" if k == 4 else "yes" if k % 2 else "no", "fm"[k // 6]) for k in range(12)]
    for name, *_ in rows:
        Image.new("RGB", (12, 12)).save(tmp_path / name)
    pd.DataFrame(rows, columns=["path", "y", "g"]).to_csv(tmp_path / "faces.csv", index=False)
    code, out, error = run(capsys, "card", "--data", tmp_path / "faces.csv", "--target", "y", "--protected", "g")
    assert code == 0 and "Labels are missing" in error and "1 of 12 rows lack the target or a group" in out
    code, _, error = run(capsys, "card", "--data", tmp_path / "faces.csv", "--target", "nothing", "--protected", "g")
    assert code == 2 and "no column 'nothing'" in error
