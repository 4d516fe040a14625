"""An edit of the logits: for every group a threshold drawn among a few, the same for the same image every time."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from helpers.models.editing import edit


@edit
class RandomisedThresholds(nn.Module):
    """Logits shifted by a threshold that is drawn for each image among those of its group.

    A row of group g with score s (the logit, or the difference of two) becomes positive where s > t_gk, with k drawn
    with the probabilities of group g: 1 above all of the group's thresholds, 0 below all, and at random between.

    The draw is a function of the score, so the same image is treated alike every time, alone or in any batch, and
    nothing of a generator's state is needed to repeat it: u = frac(f s + c) in [0, 1), the place of the score within steps of
    1 / f. The steps are a thousandth of the spread of scores, far finer than anything that a score tells of class or group;
    f and c come from the seed.

    Parameters
    ----------
    logits : int, 1 or 2, width of the model's output
    thresholds : float (G, K), on the scale of s; or the pair [G, K], for zeros to be filled in
    share : float (G, K), probability of each threshold; rows sum to 1
    pooled : float, the threshold of rows whose group is not given or unknown
    spread : float > 0, the spread (standard deviation) of the scores
    seed : int

    Notes
    -----
    Called without `group`, every row gets the pooled threshold and a `UserWarning` says so (not while the model is
    being compiled or exported). A code outside 0 … G - 1 gets the pooled threshold too.
    """

    needs_group = True
    enabled = True

    def __init__(
        self, logits: int, thresholds: list[int] | np.ndarray, share=None, pooled: float = 0.0, spread: float = 1.0, seed: int = 0
    ):
        super().__init__()
        if logits not in (1, 2):
            raise ValueError(f"logits: {logits} outputs; thresholds by group are defined for 1 or 2")
        values = np.asarray(thresholds, float)
        if values.ndim == 1:
            values = np.zeros(tuple(map(int, values)))
        share = np.full(values.shape, 1 / values.shape[1]) if share is None else np.asarray(share, float)
        rng = np.random.default_rng(seed)
        self.logits = logits
        last = np.full((1, values.shape[1]), pooled)
        # The last row serves all images without a known group, so that the forward pass has no branch on data.
        self.register_buffer("thresholds", torch.tensor(np.concatenate([values, last]), dtype=torch.float32))
        until = np.concatenate([share.cumsum(1)[:, :-1], np.ones((1, values.shape[1] - 1))])
        self.register_buffer("until", torch.tensor(until, dtype=torch.float32))
        draw = [1000 * (1 + rng.random()) / spread, rng.random()]
        self.register_buffer("draw", torch.tensor(draw, dtype=torch.float32))
        self.register_buffer("sides", torch.tensor([1.0] if logits == 1 else [-0.5, 0.5]))

    def config(self) -> dict:
        return {"logits": self.logits, "thresholds": [len(self.thresholds) - 1, self.thresholds.shape[1]]}

    def forward(self, logits: Tensor, group: Tensor | None = None) -> Tensor:
        """`logits` (N, K), `group` (N,) of whole-number codes or None -> shifted logits (N, K)."""
        pooled = len(self.thresholds) - 1
        score = (logits[:, 0] if self.logits == 1 else logits[:, 1] - logits[:, 0]).to(self.draw.dtype)
        if group is None:
            if not torch.compiler.is_compiling():
                warnings.warn(
                    "group: not given, so every image gets the pooled threshold and the correction by group is lost; "
                    "call model(images, group=codes)",
                    UserWarning,
                    stacklevel=2,
                )
            row = torch.full_like(score, pooled, dtype=torch.int64)
        else:
            group = torch.as_tensor(group, device=logits.device)  # a data set's codes are a NumPy array
            row = torch.where((group >= 0) & (group < pooled), group, pooled)
        place = score * self.draw[0] + self.draw[1]
        place = place - place.floor()
        number = (place[:, None] >= self.until[row]).sum(1)
        shift = self.thresholds[row].gather(1, number[:, None])
        return logits - (shift * self.sides).to(logits.dtype)
