"""FAIRTORCH: train the network on with a constraint loss called as FairTorch's are."""

from __future__ import annotations

from torch import nn

from helpers.debiasing.fairret import with_fairness
from helpers.debiasing.method import Batch, method
from helpers.debiasing.tuning import cell_weights, passes, tune
from helpers.losses import ConstraintLoss, DemographicParityLoss, EqualizedOddsLoss
from helpers.names import choose

CONSTRAINTS = {"equalized_odds": EqualizedOddsLoss, "demographic_parity": DemographicParityLoss}


@method("FAIRTORCH", needs={"weights"}, passes=passes)
def fairtorch(
    model: nn.Module,
    batch: Batch,
    *,
    loss: str | ConstraintLoss = "equalized_odds",
    alpha: float = 1.0,
    p_norm: int = 2,
    tolerance: float = 0.0,
    epochs: int = 6,
    lr: float = 1e-3,
    batch_size: int | None = 32,
    augment: str | None = "flip",
) -> nn.Module:
    """Fine-tune with cross-entropy plus a penalty on broken parity constraints.

    Minimises mean cross-entropy + alpha sum_i relu(|mu_i - mu_i*| - tolerance)^p_norm, where mu_i is the mean predicted
    probability of a group (for equalized odds: among images of one label) and mu_i* everybody's: the constraints of the
    reductions approach (Examples 1 and 2) as a penalty. Batches are drawn so that every group x class cell comes equally
    often.

    Parameters
    ----------
    loss : "equalized_odds", "demographic_parity", or a `helpers.losses.ConstraintLoss`, of which a copy is used
    alpha, p_norm, tolerance : see `helpers.losses.EqualizedOddsLoss`; not used with a loss of your own, which brings its
        own (and whose `sensitive_classes` stand in the order of the group codes)
    epochs, lr, batch_size, augment : see `tuning.steps`. Rates of small batches are noisy: not below 32 or so

    Returns
    -------
    A copy of `model` with new weights. Frozen parameters stay as they are.

    Raises
    ------
    ValueError : an unknown loss, a loss of another number of groups, an option outside its range, or a model all of whose
        parameters are frozen.

    References
    ----------
    Agarwal, Beygelzimer, Dudik, Langford & Wallach, "A reductions approach to fair classification", ICML 2018,
    arXiv 1803.02453. The penalty form and its options are those of the FairTorch library.
    """
    if isinstance(loss, str):
        made = CONSTRAINTS[choose(loss, CONSTRAINTS, "loss")]
        loss = made(range(batch.groups), alpha, p_norm, tolerance=tolerance)
    elif not isinstance(loss, ConstraintLoss):
        raise ValueError(f"loss: got {loss!r}; one of {', '.join(CONSTRAINTS)} or a ConstraintLoss is accepted")
    task = with_fairness(loss, 1.0, model, batch)
    how = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "augment": augment}
    return tune(model, batch, task, weights=cell_weights(batch), name="FAIRTORCH", **how)
