"""Where does a model look, and can the picture be trusted? Attribution maps, and scores that judge them.

    maps = attribute(model, images, method="integrated_gradients")     # (N, H, W), signed
    frame = evaluate(model, images, {"ig": maps, "chance": random_maps(images)}, masks=masks)
    summary(frame)                                                     # mean with interval, method × metric

`methods()` and `metrics()` list what there is, what it needs and what it costs; `cost()` says it in numbers.
"""

from . import (  # noqa: F401  (each import registers what it defines)
    cam,
    captum,
    faithfulness,
    gradients,
    localisation,
    masking,
    region_scores,
    xplique,
    xplique_masking,
)
from .evaluate import evaluate, summary
from .explain import attribute, random_maps
from .faithfulness import curve
from .method import cost, methods
from .metric import metrics

__all__ = ["attribute", "cost", "curve", "evaluate", "methods", "metrics", "random_maps", "summary"]
