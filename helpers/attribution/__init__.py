"""Where does a model look, and can the picture be trusted? Attribution maps, and scores that judge them.

    maps = attribute(model, images, method="integrated_gradients")     # (N, H, W), signed
    frame = evaluate(model, images, {"ig": maps, "chance": random_maps(images)}, masks=masks)
    summary(frame)                                                     # mean with interval, method × metric
    evaluate(model, images, maps, explain="integrated_gradients")      # also what has to explain again: stability, sanity
    baseline_dependence(model, images, {"ig": maps, …})                # how far scores hang on what removed pixels become

`methods()` and `metrics()` list what there is, what it needs and what it costs.
"""

# each import registers what it defines
from . import agreement, captum, faithfulness, localisation, region_scores, sanity, stability, xplique  # noqa: F401
from .dependence import baseline_dependence
from .evaluate import evaluate, summary
from .explain import attribute, random_maps
from .faithfulness import curve
from .method import methods
from .metric import metrics
from .sanity import randomisation_curve

__all__ = [
    "attribute",
    "baseline_dependence",
    "curve",
    "evaluate",
    "methods",
    "metrics",
    "random_maps",
    "randomisation_curve",
    "summary",
]
