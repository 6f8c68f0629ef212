"""Reinforcement learning that prompts Segment Anything, for Stable-Baselines3.

Importing the package registers its Gymnasium environments (Gymnasium 1.x loads no plugins).
"""

import pathlib

from alignsam_sb3.version import __version__

_here = pathlib.Path(__file__).resolve().parent
if not (_here / "envs").is_dir() and (_here.parent / "envs" / "__init__.py").is_file():
    __path__.append(str(_here.parent))  # a source checkout: envs/ lies beside this folder, and installs inside it

import alignsam_sb3.envs  # noqa: E402, F401 (registers the environments)

__all__ = ["__version__"]
