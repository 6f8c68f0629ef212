"""Features extractors, policies and the algorithms that carry them."""

from alignsam_sb3.policies.algorithms import SamMaskablePPO, SamPPO, attach_recalibration
from alignsam_sb3.policies.buffers import EpisodeMaskableRolloutBuffer, EpisodeRolloutBuffer
from alignsam_sb3.policies.explicit import ExplicitExtractor
from alignsam_sb3.policies.implicit import ImplicitExtractor
from alignsam_sb3.policies.loading import load_policy, read_recipe
from alignsam_sb3.policies.masked import ExplicitMaskablePolicy, ExplicitPolicy, ImplicitMaskablePolicy, ImplicitPolicy

__all__ = [
    "EpisodeMaskableRolloutBuffer",
    "EpisodeRolloutBuffer",
    "ExplicitExtractor",
    "ExplicitMaskablePolicy",
    "ExplicitPolicy",
    "ImplicitExtractor",
    "ImplicitMaskablePolicy",
    "ImplicitPolicy",
    "SamMaskablePPO",
    "SamPPO",
    "attach_recalibration",
    "load_policy",
    "read_recipe",
]
