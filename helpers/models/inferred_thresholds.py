"""An edit of the features before the classifier: a decision threshold by the group that a probe reads from them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers.models.affine import filled
from helpers.models.editing import edit, on_features


@edit
class InferredThresholds(nn.Module):
    """x -> x - t_g r with g = argmax_g (p_g x + q_g), the group that a linear probe reads from the features.

    With r such that the classifier's score w x + b falls by 1 when r is taken from x (r = w / |w|^2), the image becomes
    positive where its score was above t_g: a threshold for each group, without the group being given.

    Parameters
    ----------
    features : int, d
    groups : int, G
    probe : float (G, d), p
    bias : float (G,), q
    thresholds : float (G,), t
    direction : float (d,), r

    Its input is (N, d), (N, T, d) or a map (N, C, H, W); see `editing.on_features`.

    Raises
    ------
    ValueError : a value has another shape.
    """

    enabled = True

    def __init__(self, features: int, groups: int, probe=None, bias=None, thresholds=None, direction=None):
        super().__init__()
        self.features, self.groups = int(features), int(groups)
        for name, value, shape in (
            ("probe", probe, (groups, features)),
            ("bias", bias, (groups,)),
            ("thresholds", thresholds, (groups,)),
            ("direction", direction, (features,)),
        ):
            self.register_buffer(name, filled(value, shape, name, torch.zeros(shape)))

    def config(self) -> dict:
        return {"features": self.features, "groups": self.groups}

    def infer(self, rows: Tensor) -> Tensor:
        """The group that the probe reads from features (…, d), int64 (…,)."""
        return (rows @ self.probe.to(rows.dtype).T + self.bias.to(rows.dtype)).argmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        def moved(rows):
            return rows - self.thresholds.to(rows.dtype)[self.infer(rows)][..., None] * self.direction.to(rows.dtype)

        return on_features(x, self.features, moved)
