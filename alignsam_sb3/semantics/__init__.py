"""Language guidance: where in an image a frozen CLIP sees what a text says."""

from alignsam_sb3.semantics.clip_surgery import similarity_map_to_points, top_point
from alignsam_sb3.semantics.language import ClipSurgery, LanguagePrior, SimilarityMaps
from alignsam_sb3.semantics.loading import load_clip

__all__ = [
    "ClipSurgery",
    "LanguagePrior",
    "SimilarityMaps",
    "load_clip",
    "similarity_map_to_points",
    "top_point",
]
