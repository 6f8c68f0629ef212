"""Gymnasium environments around frozen segmenters; importing this registers them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register, registry

if TYPE_CHECKING:
    from alignsam_sb3.envs.mask_refine import MaskRefineEnv
    from alignsam_sb3.envs.prompt_select import PromptSelectEnv
    from alignsam_sb3.envs.sam_seg import SamSegEnv
    from alignsam_sb3.envs.vec_env import SamSegVecEnv
    from alignsam_sb3.envs.vector import SamSegVectorEnv

AS_PUBLISHED: dict[str, Any] = {"max_steps": 15, "patches": 10, "labels": "srm", "initial_pair": True, "reward": "paper"}
TASKS: dict[str, dict[str, Any]] = {
    "SamSeg-v0": {"max_steps": 3, "patches": 16},  # explicit: the target is named, and a language prior says where it might be
    "SamSegImplicit-v0": {"dataset": "toy:saliency", "clip": None, "max_steps": 3, "done": True},
    # with a recalibration module, whose map the agent sees
    "SamSegSrm-v0": {"max_steps": 5, "patches": 16, "srm": True},
    "SamSegSrmImplicit-v0": {"dataset": "toy:saliency", "clip": None, "max_steps": 5, "patches": 16, "srm": True},
    # AlignSAM as published
    "SamSegPaper-v0": AS_PUBLISHED,
    "SamSegPaperImplicit-v0": {"dataset": "toy:saliency", "clip": None, **AS_PUBLISHED},
    "SamSegCoco-v0": {"clip": "ViT-B-16-quickgelu:openai@512", "patches": 16},  # give dataset and segmenter
}
"""One environment with other defaults, each with its own entry in ``hyperparams/``.

The stock zoo makes evaluation environments without the file's ``env_kwargs``: what shapes an action must stand here, too.
"""

CLICK_ENV = "alignsam_sb3.envs.sam_seg:SamSegEnv"
CLICK_VECTOR = "alignsam_sb3.envs.vector:SamSegVectorEnv"

for name, defaults in TASKS.items():
    if name not in registry:
        register(
            id=name,
            entry_point=CLICK_ENV,
            vector_entry_point=CLICK_VECTOR,
            kwargs=defaults,
            disable_env_checker=True,  # the checker objects to observations that share arrays within an episode
        )

for name, where in (("PromptSelect-v0", "prompt_select:PromptSelectEnv"), ("MaskRefine-v0", "mask_refine:MaskRefineEnv")):
    if name not in registry:
        register(id=name, entry_point=f"alignsam_sb3.envs.{where}")

_WHERE = {
    "MaskRefineEnv": "mask_refine",
    "PromptSelectEnv": "prompt_select",
    "SamSegEnv": "sam_seg",
    "SamSegVecEnv": "vec_env",
    "SamSegVectorEnv": "vector",
}

__all__ = ["CLICK_ENV", "TASKS", "MaskRefineEnv", "PromptSelectEnv", "SamSegEnv", "SamSegVecEnv", "SamSegVectorEnv"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import an environment when it is asked for: registering them is light."""
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
