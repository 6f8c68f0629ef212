"""Reinforcement learning that prompts Segment Anything, for Stable-Baselines3.

Annotate photos with a trained policy::

    from alignsam_sb3 import Predictor

    predict = Predictor.load("policy.zip")
    found = predict("photo.jpg", "dog")
    found.mask, found.score, found.clicks

Train one: ``alignsam train``, or ``SamMaskablePPO("ExplicitMaskablePolicy", SamSegVecEnv.of(Task(), 32)).learn(28_000)``.

Importing the package registers its Gymnasium environments (Gymnasium 1.x loads no plugins); what is heavy is imported when it
is first used.
"""

import pathlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignsam_sb3.version import __version__

_here = pathlib.Path(__file__).resolve().parent
if not (_here / "envs").is_dir() and (_here.parent / "envs" / "__init__.py").is_file():
    __path__.append(str(_here.parent))  # a source checkout: envs/ lies beside this folder, and installs inside it

import alignsam_sb3.envs  # noqa: E402, F401 (registers the environments)

if TYPE_CHECKING:
    from alignsam_sb3.annotation import Annotation, AnnotationSet
    from alignsam_sb3.datasets import load_dataset
    from alignsam_sb3.envs.sam_seg import SamSegEnv
    from alignsam_sb3.envs.vec_env import SamSegVecEnv
    from alignsam_sb3.policies import SamMaskablePPO, SamPPO
    from alignsam_sb3.predictor import Predictor
    from alignsam_sb3.segmenters import load_segmenter
    from alignsam_sb3.semantics import load_clip
    from alignsam_sb3.session import ClickSessions, open_sessions
    from alignsam_sb3.task import Task

_WHERE = {
    "Annotation": "annotation",
    "AnnotationSet": "annotation",
    "ClickSessions": "session",
    "Predictor": "predictor",
    "SamMaskablePPO": "policies",
    "SamPPO": "policies",
    "SamSegEnv": "envs.sam_seg",
    "SamSegVecEnv": "envs.vec_env",
    "Task": "task",
    "load_clip": "semantics",
    "load_dataset": "datasets",
    "load_segmenter": "segmenters",
    "open_sessions": "session",
}

__all__ = [
    "Annotation",
    "AnnotationSet",
    "ClickSessions",
    "Predictor",
    "SamMaskablePPO",
    "SamPPO",
    "SamSegEnv",
    "SamSegVecEnv",
    "Task",
    "__version__",
    "load_clip",
    "load_dataset",
    "load_segmenter",
    "open_sessions",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import what is asked for."""
    if name in _WHERE:
        return getattr(import_module(f"alignsam_sb3.{_WHERE[name]}"), name)
    if name.startswith("_"):
        raise AttributeError(name)
    from alignsam_sb3.names import nearest

    raise AttributeError(nearest("name in alignsam_sb3", name, __all__))


def __dir__() -> list[str]:
    return __all__
