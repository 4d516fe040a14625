"""What uses processes works from a notebook where they are spawned, as on Windows and macOS: no guard, and nothing forked.

A kernel of its own runs the cells; half a minute of one processor.
"""

import importlib.util
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CELLS = [
    """
import multiprocessing
multiprocessing.set_start_method("spawn")
import numpy as np, torch
from pathlib import Path
from torch.utils.data import DataLoader
from helpers import attribution, debias, load_faces
from helpers.data.sources import illustrated
from helpers.models import build, predict
""",
    # Drawn by processes, in more than one piece.
    """
illustrated.CHUNK = 20
faces = load_faces("illustrated", target="smiling", protected="glasses", split="test", n=48, image_size=32, n_jobs=2)
assert len(faces) == 48 and np.asarray(faces.images).std(axis=(1, 2, 3)).min() > 0
model = build(classes=2).eval()
""",
    # Read by the workers of a loader: for predictions, for maps and for a method that goes over them again and again.
    """
loader = DataLoader(faces, batch_size=16, num_workers=1)
there, here = predict(model, loader), predict(model, faces)
assert np.array_equal(there.y_pred, here.y_pred) and np.array_equal(there.group, here.group)
assert len(attribution.stream(model, loader, "maps.npy", method="saliency")) == 48
result = debias(model, loader, methods="LEACE")
assert result["LEACE"].error is None
""",
    # Decoded into a file, and read from there.
    """
from PIL import Image
for i in range(16):
    folder = Path("photos") / ("no", "yes")[i % 2] / ("old", "young")[i // 2 % 2]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(faces.images[i])).save(folder / f"{i}.png")
stored = load_faces("folder", root="photos", target="class", image_size=32, cache="kept")
(images, _, _), = DataLoader(stored, batch_size=len(stored), num_workers=1)
assert torch.equal(images, stored[list(range(len(stored)))][0])
""",
]


@pytest.mark.timeout(600)
def test_spawned_processes_from_a_notebook(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    specification = importlib.util.spec_from_file_location("spawn_runner", NOTEBOOKS / "run.py")
    run = importlib.util.module_from_spec(specification)
    sys.modules["spawn_runner"] = run
    specification.loader.exec_module(run)
    monkeypatch.setenv("CANDOR_CACHE", str(tmp_path / "cache"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in CELLS])
    with run.this_python_as_kernel():
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
