"""A network for a few drawn faces, trained in seconds and saved with what it was trained on."""

import numpy as np
import pandas as pd
from PIL import Image

import helpers
from helpers import models

LOADED = {"data": "illustrated", "target": "smiling", "protected": ["glasses"], "image_size": 32, "seed": 0}


def small_model(folder, n=96):
    """Write `small.safetensors` into a folder; opened, it is judged on `n` faces of its own size."""
    train = helpers.load_faces(
        "illustrated", split="train", target="smiling", protected="glasses", image_size=32, n=128, n_jobs=1, progress=False
    )
    model = helpers.train(train, epochs=2, batch_size=32, progress=False)
    return models.save(model, folder / "small.safetensors", loaded=LOADED | {"option": {"n": n, "n_jobs": 1}})


def small_photographs(folder, n=60):
    """Write `faces.csv` and its pictures, which nobody can redraw: smiling by age."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir(exist_ok=True)
    rows = []
    for number in range(n):
        smiling, old = number % 2, number // 2 % 2
        pixels = rng.integers(0, 90, (32, 32, 3)) + 100 * smiling
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / f"{number}.png")
        rows.append((f"photos/{number}.png", bool(smiling), "old" if old else "young"))
    pd.DataFrame(rows, columns=["path", "smiling", "age"]).to_csv(folder / "faces.csv", index=False)
