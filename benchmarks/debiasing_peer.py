"""DetoxAI 0.3.8 on the problems of `debiasing.py`, in an environment of its own; it imports nothing of Candor.

    python3.11 -m venv build/detoxai && build/detoxai/bin/pip install detoxai==0.3.8
    build/detoxai/bin/python benchmarks/debiasing_peer.py build/debiasing/illustrated-0.97-0 [more folders] [methods]

For each problem (images, codes and the trained weights, see `debiasing.export`) and each method with DetoxAI's defaults,
called as its README does: predictions for the test images, seconds and processor seconds of the whole call. The normalisation,
which is the first layer of our models, is applied to the images beforehand, so that DetoxAI gets a plain torchvision ResNet-18.
Methods that have a file already are not run again.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

import detoxai
import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader

METHODS = ("PCLARC", "LEACE", "NT", "SAVANIRP", "FINETUNE", "SAVANIAFT", "ACLARC", "ZHANGM", "RRCLARC", "SAVANILWO")
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def triples(problem, split: str) -> DataLoader:
    """Batches of (image, target, group) of one split."""
    images = torch.from_numpy(problem[f"{split}_images"]).permute(0, 3, 1, 2).float() / 255
    codes = [torch.from_numpy(problem[f"{split}_{name}"]) for name in ("target", "group")]
    return DataLoader(list(zip((images - MEAN) / STD, *codes, strict=True)), batch_size=32)


def run(folder: Path, key: str) -> None:
    """One method on one problem; its predictions and times are written beside the problem."""
    problem = np.load(folder / "problem.npz")
    model = torchvision.models.resnet18(num_classes=2)
    model.load_state_dict(torch.load(folder / "network.pth", weights_only=True))
    fit, test = triples(problem, "fit"), triples(problem, "test")
    torch.manual_seed(0)
    wall, cpu = time.perf_counter(), time.process_time()
    found, error = {}, ""
    try:
        result = detoxai.debias(
            model.eval(), fit, methods=[key], test_dataloader=test, include_vanila_in_results=False,
            methods_config={"global": {"method_timeout": 0}},
        )[key]  # fmt: skip
        if not result.get_all_metrics()["all"]:
            error = "failed (see DetoxAI's log)"
    except Exception as problem_of_theirs:
        error = f"{type(problem_of_theirs).__name__}: {problem_of_theirs}"
        traceback.print_exc()
    found |= {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "threads": torch.get_num_threads()}
    predicted = np.zeros(0, np.int64)
    if not error:
        corrected = result.get_model().eval()
        with torch.no_grad():
            outputs = torch.cat([corrected(images) for images, _, _ in test])
        if outputs.isfinite().all():
            predicted = outputs.argmax(1).numpy()
        else:
            error = "NaN or infinite outputs"
    np.save(folder / f"detoxai-{key}.npy", predicted)
    (folder / f"detoxai-{key}.json").write_text(json.dumps(found | {"error": error}))
    print(folder.name, key, f"{found['seconds']:.0f} s", error, flush=True)


if __name__ == "__main__":
    wanted = [key for key in sys.argv[1:] if key in METHODS] or METHODS
    for name in (name for name in sys.argv[1:] if name not in METHODS):
        for key in wanted:
            if not (Path(name) / f"detoxai-{key}.json").exists():
                run(Path(name), key)
