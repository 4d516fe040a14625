"""Face classifiers: building, training, predicting, saving, and looking at or changing their layers."""

from helpers.models import foreign
from helpers.models.affine import Affine, LowRank
from helpers.models.checkpoint import load, save
from helpers.models.exporting import export
from helpers.models.group_thresholds import GroupThresholds
from helpers.models.inferred_thresholds import InferredThresholds
from helpers.models.layers import (
    EDITS,
    Edited,
    Features,
    append_after,
    capture,
    edit,
    edits,
    features,
    find,
    flow,
    unedited,
)
from helpers.models.prediction import Predictions, predict
from helpers.models.randomised_thresholds import RandomisedThresholds
from helpers.models.resnet import FaceClassifier, Normalise, architectures, build
from helpers.models.training import train

__all__ = [
    "Affine",
    "EDITS",
    "Edited",
    "FaceClassifier",
    "Features",
    "GroupThresholds",
    "InferredThresholds",
    "LowRank",
    "Normalise",
    "Predictions",
    "RandomisedThresholds",
    "append_after",
    "architectures",
    "build",
    "capture",
    "edit",
    "edits",
    "export",
    "features",
    "find",
    "flow",
    "foreign",
    "load",
    "predict",
    "save",
    "train",
    "unedited",
]
