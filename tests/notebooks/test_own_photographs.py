"""The lesson on a model that you did not train runs on a reader's own folder of photographs. 40 seconds on one thread."""

import importlib.util
import sys
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from helpers.data.sources.orl import _packaged_photographs

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
specification = importlib.util.spec_from_file_location("own_photographs_runner", NOTEBOOKS / "run.py")
run = importlib.util.module_from_spec(specification)
sys.modules["own_photographs_runner"] = run
specification.loader.exec_module(run)


@pytest.mark.timeout(600)
def test_the_audit_runs_on_a_folder(tmp_path):
    photos, orl = tmp_path / "my photos", _packaged_photographs()
    people = {"woman": ("s8", "s10", "s32"), "man": ("s1", "s4", "s12", "s25"), "somebody": ("s5",)}
    for word, names in people.items():
        for k, name in enumerate(names):
            for photo in range(1, 5):
                folder = photos / word / ("indoors" if k % 2 else "outdoors") / name
                folder.mkdir(parents=True, exist_ok=True)
                picture = Image.open(orl / name / f"{photo}.pgm")
                picture.resize((3 * picture.width, 3 * picture.height)).save(folder / f"{photo}.png")
    Image.new("RGB", (300, 300), (90, 120, 90)).save(photos / "man" / "indoors" / "s4" / "a wall.png")
    (lesson,) = NOTEBOOKS.glob("10_*.ipynb")
    parameters = {"profile": "quick", "dataset": "folder", "data_root": str(photos), "target": "class", "protected": "group"}
    (done,) = run.course([lesson], tmp_path / "out", parameters, with_report=False, jobs=1)
    assert done.error == ""
    cells = nbformat.read(tmp_path / "out" / "notebooks" / lesson.name, 4).cells
    said = "\n".join(
        "".join(output.get("text", "") or output.get("data", {}).get("text/plain", ""))
        for cell in cells if cell.cell_type == "code" for output in cell.outputs
    )  # fmt: skip
    assert "Prepared(32 faces, 1 photographs missed" in said and "a wall.png" in said
    assert "4 of 32 faces are annotated with a word that the classifier does not have" in said
