"""Where does a model look, and can the picture be trusted? Attribution maps, and scores that judge them.

    maps = attribute(model, images, method="integrated_gradients")     # (N, H, W), signed
    frame = evaluate(model, images, {"ig": maps, "chance": random_maps(images)}, masks=masks)
    summary(frame)                                                     # mean with interval, method × metric
    evaluate(model, images, maps, explain="integrated_gradients")      # also what has to explain again: stability, sanity
    baseline_dependence(model, images, {"ig": maps, …})                # how far scores hang on what removed pixels become

    regions(maps, masks, group)                                        # does it look elsewhere for some groups?
    pixel_differences(maps, group)                                     # the same pixel by pixel, for aligned faces
    shift(before, after, masks, group)                                 # where did a fix move it?
    quality(frame, group)                                              # are the maps equally good for all?
    concepts(model, faces, layers)                                     # does the decision depend on the group, layer by layer?

    stream(model, faces, "maps.npy", method="saliency")                # of any number of images, to disk; goes on after a kill
    estimate(model, images, method="rise")                             # beforehand: how long, how much memory, how many passes

`methods()` and `metrics()` list what there is, what it needs and what it costs; `cost()` says it in numbers.
"""

# each import registers what it defines
from . import (  # noqa: F401
    agreement,
    cam,
    captum,
    captum_deeplift,
    captum_guided,
    captum_layers,
    captum_perturbation,
    faithfulness,
    gradients,
    localisation,
    lrp,
    masking,
    region_scores,
    sanity,
    stability,
    xplique,
    xplique_masking,
)
from .concepts import concepts
from .dependence import baseline_dependence
from .estimate import Estimate, estimate
from .evaluate import evaluate, summary
from .explain import attribute, random_maps
from .faithfulness import curve
from .method import cost, methods
from .metric import metrics
from .pixels import pixel_differences
from .quality import quality
from .regions import regions
from .sanity import randomisation_curve
from .shift import shift
from .similarity import rank_agreement
from .stream import Maps, open_maps, stream

__all__ = [
    "Estimate",
    "Maps",
    "attribute",
    "baseline_dependence",
    "concepts",
    "cost",
    "curve",
    "estimate",
    "evaluate",
    "methods",
    "metrics",
    "open_maps",
    "pixel_differences",
    "quality",
    "random_maps",
    "randomisation_curve",
    "rank_agreement",
    "regions",
    "shift",
    "stream",
    "summary",
]
