"""A model with thresholds by group is loaded where nothing but the models package was imported."""

import subprocess
import sys

import numpy as np
import torch

from helpers import models


def test_a_fresh_process_loads_it_and_gives_the_same_logits(tmp_path):
    base = models.build("resnet18", classes=2, seed=0).eval()
    edited = models.append_after(base, "", models.GroupThresholds(2, np.array([0.5, -1.0]), pooled=0.1)).eval()
    images, group = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 1, 0])
    models.save(edited, tmp_path / "model")
    torch.save({"images": images, "group": group}, tmp_path / "batch.pt")
    code = (
        "import torch\nfrom helpers.models import load\n"
        f"model, batch = load(r'{tmp_path / 'model'}'), torch.load(r'{tmp_path / 'batch.pt'}', weights_only=True)\n"
        f"torch.save(model(batch['images'], group=batch['group']).detach(), r'{tmp_path / 'logits.pt'}')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    there = torch.load(tmp_path / "logits.pt", weights_only=True)
    here = edited(images, group=group)
    torch.testing.assert_close(there, here, atol=1e-5, rtol=0)
    shift = (here - base(images)).diff(dim=1)[:, 0]  # the score of class 1 falls by the group's threshold
    torch.testing.assert_close(shift, -torch.tensor([0.5, -1.0, -1.0, 0.5]), atol=1e-4, rtol=0)
