"""A-ClArC: retrain what follows a layer on features whose group is made to mean nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from helpers.debiasing.method import Batch, method
from helpers.debiasing.pclarc import concept, group_points, reference_point
from helpers.debiasing.tail import Tail
from helpers.models.editing import on_features
from helpers.models.training import task_loss


@method("ACLARC", needs={"features"})
def aclarc(
    model: nn.Module,
    batch: Batch,
    *,
    layer: str = "penultimate",
    cav_type: str = "signal",
    reference: int | str = "random",
    alpha: float = 1.0,
    epochs: int = 30,
    lr: float = 0.05,
    batch_size: int | None = 64,
    balanced: bool = True,
    flatten: bool = False,
) -> nn.Module:
    """Retrain what follows a layer while every image is given the concept of a group that is drawn for it.

    With V an orthonormal basis of the groups' concept vectors, the layer's output x becomes
    h(x) = x + alpha V V^T (z - x) during the training: along V it gets the value of z, the mean of a group
    (augmentive ClArC). What follows learns to do without that value. Afterwards the layer's output is left alone again.
    Everything up to the layer stays as it is, so its output is computed once.

    Parameters
    ----------
    layer : str, "penultimate" or a layer's name; at a map V are directions of the channels
    cav_type : see `pclarc`
    reference : "random" or the code of a group. In the paper z is the mean of the images with the artefact, so that all
        have it; but a value that never changes is not learned to be ignored: its weight only moves into the bias. With
        "random" z is the mean of a group drawn for each image at each step, independent of its class.
    alpha : float, how far the value is moved towards z
    epochs, lr, batch_size : of AdamW with a one-cycle rate, relative to the size of each parameter
    balanced : bool, draw every group x class cell equally often
    flatten : bool, at a map: one direction of the whole map instead of its channels

    Returns
    -------
    A copy of `model` with new weights after the layer.

    Raises
    ------
    ValueError : an option that is not as above, or nothing to train after the layer.

    References
    ----------
    Anders et al., "Finding and removing Clever Hans: using explanation methods to debug and improve deep models",
    Information Fusion 77, 2022.
    """
    name, basis, cells = concept(batch, layer, cav_type, flatten)
    tail = Tail(model, batch, name)
    kind = {"dtype": tail.parameters[0].dtype, "device": tail.device}
    v = torch.tensor(basis, **kind)
    z = group_points(cells) if reference == "random" else reference_point(cells, reference)[None]
    points = torch.tensor(z, **kind) @ v
    draw = torch.Generator().manual_seed(batch.seed)

    def augmented(x: Tensor) -> Tensor:
        wanted = points[torch.randint(0, len(points), (len(x),), generator=draw).to(x.device)]

        def moved(rows):
            value = wanted.reshape(len(x), *[1] * (rows.dim() - 2), -1)
            return rows + alpha * (value - rows @ v) @ v.T

        return on_features(x, len(v), moved)

    tail.between.change = augmented
    for logits, target, _ in tail.steps(epochs=epochs, lr=lr, batch_size=batch_size, balanced=balanced, name="ACLARC"):
        task_loss(logits, target).backward()
    return tail.model
