"""Where does a model look, and can the picture be trusted? Attribution maps, and scores that judge them.

    maps = attribute(model, images, method="integrated_gradients")     # (N, H, W), signed
    frame = evaluate(model, images, {"ig": maps, "chance": random_maps(images)}, masks=masks)
    summary(frame)                                                     # mean with interval, method × metric

    regions(maps, masks, group)                                        # does it look elsewhere for some groups?
    shift(before, after, masks, group)                                 # where did a fix move it?
    quality(frame, group)                                              # are the maps equally good for all?
    concepts(model, faces, layers)                                     # does the decision depend on the group, layer by layer?

`methods()` and `metrics()` list what there is, what it needs and what it costs.
"""

from . import captum, faithfulness, localisation, region_scores, xplique  # noqa: F401  (each import registers what it defines)
from .concepts import concepts
from .evaluate import evaluate, summary
from .explain import attribute, random_maps
from .faithfulness import curve
from .method import methods
from .metric import metrics
from .quality import quality
from .regions import regions
from .shift import shift

__all__ = [
    "attribute", "concepts", "curve", "evaluate", "methods", "metrics", "quality", "random_maps", "regions", "shift", "summary",
]  # fmt: skip
