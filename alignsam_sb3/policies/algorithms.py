"""PPO and MaskablePPO with our buffer, masks taken from the observation, and a small, readable ``.zip``.

No training loop of our own: ``train`` and ``collect_rollouts`` are Stable-Baselines3's.
"""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from alignsam_sb3.files import removed_on_error
from alignsam_sb3.names import nearest
from alignsam_sb3.policies.buffers import EpisodeMaskableRolloutBuffer, EpisodeRolloutBuffer
from alignsam_sb3.policies.masked import ExplicitMaskablePolicy, ExplicitPolicy, ImplicitMaskablePolicy, ImplicitPolicy

FORMAT = 2
"""Of saved policies; those without one are of version 0.1, whose extractors were wider."""
_WIDER = {
    "ExplicitPolicy": {"width": 64},
    "ExplicitMaskablePolicy": {"width": 64},
    "ImplicitPolicy": {"width": 64, "narrow": None},
    "ImplicitMaskablePolicy": {"width": 64, "narrow": None},
}


def policy_kwargs_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a saved policy, with what was another default when it was saved."""
    given = dict(recipe["policy_kwargs"])
    if "format" not in recipe and "features_extractor_class" not in given:
        given["features_extractor_kwargs"] = _WIDER.get(recipe["policy"], {}) | (given.get("features_extractor_kwargs") or {})
    return given


class _SamAlgorithm(OnPolicyAlgorithm):
    """What our PPO and MaskablePPO share."""

    recipe: dict[str, Any]
    """Plain values in the ``.zip`` that say how to build the policy again, so that it loads without unpickling."""

    def _setup_model(self) -> None:
        if self.rollout_buffer_class is None and isinstance(self.observation_space, spaces.Dict):
            maskable = isinstance(self, MaskablePPO)
            self.rollout_buffer_class = EpisodeMaskableRolloutBuffer if maskable else EpisodeRolloutBuffer
        super()._setup_model()
        if isinstance(self.rollout_buffer, EpisodeRolloutBuffer | EpisodeMaskableRolloutBuffer):
            self.rollout_buffer.wanted = getattr(self.policy, "needs", None)
            self.rollout_buffer.reset()
        if self.env is not None:
            attach_recalibration(self, self.env)
        self.recipe = {
            "algorithm": type(self).__name__,
            "policy": self._policy_name(),
            "policy_kwargs": {key: value for key, value in self.policy_kwargs.items() if _is_plain(value)},
            "not_plain": [key for key, value in self.policy_kwargs.items() if not _is_plain(value)],
            "env": self._from_env("config", lambda config: config, {}),
            "format": FORMAT,
            "trained_on": self._from_env("shared", lambda shared: shared.dataset.fingerprint, ""),
        }

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        super().set_env(env, force_reset)
        if self.env is not None and hasattr(self, "policy"):
            attach_recalibration(self, self.env)

    def _policy_name(self) -> str:
        """The name by which the algorithm knows its policy."""
        known = {policy: name for name, policy in reversed(self.policy_aliases.items())}
        return known.get(self.policy_class, self.policy_class.__name__)

    def _from_env(self, attribute: str, take: Callable[[Any], Any], default: object) -> Any:  # noqa: ANN401
        """Something of the first environment; without one, what an earlier recipe says."""
        if self.env is None or not self.env.has_attr(attribute):
            key = {"config": "env", "shared": "trained_on"}[attribute]
            return getattr(self, "recipe", {}).get(key, default)
        return take(self.env.get_attr(attribute)[0])

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save as Stable-Baselines3 does, atomically: an interrupted save leaves no half-written file."""
        if not isinstance(path, str | Path):
            super().save(path, exclude, include)
            return
        target = Path(path)
        target = target if target.suffix else target.with_suffix(".zip")
        part = target.with_name(target.name + ".part")
        with removed_on_error(part):
            super().save(part, exclude, include)
            part.replace(target)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_last_obs", "_last_original_obs", "learn"]


def attach_recalibration(model: BaseAlgorithm, env: VecEnv | gym.Env[Any, Any]) -> None:
    """Let an environment, or those of a VecEnv, draw foreground maps with the policy's own recalibration module, if any.

    The training environment is attached by ``set_env`` and when a model is made; an evaluation environment that was made
    apart must be attached before it is played, as the statistics of a VecNormalize must be synchronised.
    """
    module = getattr(model.policy, "srm", None)
    if module is None:
        return
    if not isinstance(env, VecEnv):
        if hasattr(env.unwrapped, "recalibration"):
            env.unwrapped.recalibration = module
    elif env.has_attr("recalibration"):
        env.set_attr("recalibration", module)


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


class SamPPO(_SamAlgorithm, PPO):
    """PPO for ``SamSeg-v0``."""

    policy_aliases = {**PPO.policy_aliases, "ExplicitPolicy": ExplicitPolicy, "ImplicitPolicy": ImplicitPolicy}


class SamMaskablePPO(_SamAlgorithm, MaskablePPO):
    """MaskablePPO for ``SamSeg-v0``; ``predict`` takes the mask from the observation unless it is given."""

    policy_aliases = {
        **MaskablePPO.policy_aliases,
        "ExplicitMaskablePolicy": ExplicitMaskablePolicy,
        "ImplicitMaskablePolicy": ImplicitMaskablePolicy,
    }

    def predict(
        self,
        observation: np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]],
        state: tuple[np.ndarray[Any, Any], ...] | None = None,
        episode_start: np.ndarray[Any, Any] | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray[Any, Any] | None = None,
    ) -> tuple[np.ndarray[Any, Any], tuple[np.ndarray[Any, Any], ...] | None]:
        if action_masks is None and isinstance(observation, dict):
            action_masks = observation.get("action_mask")
        return super().predict(observation, state, episode_start, deterministic, action_masks=action_masks)


ALGORITHMS: dict[str, type[SamPPO] | type[SamMaskablePPO]] = {"SamPPO": SamPPO, "SamMaskablePPO": SamMaskablePPO}


def read_recipe(path: Path, trust: bool = False) -> dict[str, Any]:
    """Read how a saved policy was built, without unpickling anything.

    :param trust: accept a policy without a recipe: that of the default environment is returned
    :raises FileNotFoundError: there is no such file
    :raises ValueError: the file is no policy that this package saved
    """
    recipe = _read_data(path).get("recipe")
    if recipe is None and trust:
        return {"env": {}, "trained_on": ""}
    if not isinstance(recipe, dict):
        raise ValueError(
            f"{path} was not saved by scripts/train.py and cannot be read without unpickling it: "
            "if you trust its origin, load it with stable_baselines3 (PPO.load) or pass --trust"
        )
    return recipe


def load_policy(path: str | Path, env: VecEnv, trust: bool = False) -> BaseAlgorithm:
    """Load a saved policy for an environment.

    By default only weights are read: the algorithm is built from the plain recipe in the file, and nothing is unpickled.

    :param env: an environment with the policy's observation and action spaces
    :param trust: unpickle the file, as Stable-Baselines3 does; for a policy saved elsewhere whose origin you trust
    :raises ValueError: the file is no policy, or does not fit the environment
    """
    path = Path(path)
    if trust:
        maskable = "maskable" in json.dumps(_read_data(path).get("policy_class")).lower()
        return (SamMaskablePPO if maskable else SamPPO).load(path, env=env)
    recipe = read_recipe(path)
    if recipe["not_plain"]:
        raise ValueError(
            f"the policy in {path} was built with {', '.join(recipe['not_plain'])}, which cannot be read without unpickling: "
            "if you trust its origin, pass --trust (trust=True)"
        )
    if recipe["algorithm"] not in ALGORITHMS:
        raise ValueError(nearest("algorithm", recipe["algorithm"], ALGORITHMS))
    algorithm = ALGORITHMS[recipe["algorithm"]]
    if recipe["policy"] not in algorithm.policy_aliases:
        raise ValueError(nearest("policy", recipe["policy"], algorithm.policy_aliases))
    model = algorithm(recipe["policy"], env, n_steps=2, batch_size=2, policy_kwargs=policy_kwargs_of(recipe))
    try:
        model.set_parameters(str(path), exact_match=True, device=model.device)
    except (RuntimeError, ValueError) as error:
        stored = {name.removeprefix("srm.") for name in _weights_of(path) if name.startswith("srm.")}
        srm = getattr(model.policy, "srm", None)
        if srm is not None and stored and stored != set(srm.state_dict()):
            raise ValueError(
                f"{path} holds a recalibration module of another version or branch of this package's: train it again"
            ) from error
        raise ValueError(
            f"the weights in {path} do not fit this environment: they belong to {recipe['env']}; "
            f"evaluate with the same segmenter, patches and number of categories ({error})"
        ) from error
    if not all(th.isfinite(value).all() for value in model.policy.state_dict().values()):
        raise ValueError(f"the policy in {path} has NaN or infinite weights: training diverged; take an earlier checkpoint")
    return model


def _weights_of(path: Path) -> list[str]:
    """Names of the policy's weights in a saved model."""
    return list(load_from_zip_file(path, load_data=False)[1]["policy"])


def _read_data(path: Path) -> dict[str, Any]:
    """The algorithm's attributes as plain JSON; what was pickled stays an encoded string."""
    if not path.is_file():
        raise FileNotFoundError(f"no policy at {path}")
    try:
        with ZipFile(path) as archive:
            data: dict[str, Any] = json.loads(archive.read("data"))
    except (BadZipFile, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a saved policy ({type(error).__name__}: {error})") from error
    return data
