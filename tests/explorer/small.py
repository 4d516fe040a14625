"""A network for a few drawn faces, trained in seconds and saved with what it was trained on."""

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
