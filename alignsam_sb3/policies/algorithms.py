"""PPO and MaskablePPO with our buffer, masks taken from the observation, and a small, readable ``.zip``.

No training loop of our own: ``train`` and ``collect_rollouts`` are Stable-Baselines3's.
"""

import io
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self
from zipfile import ZipFile

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from alignsam_sb3.compiling import compiled_for_shapes, in_bfloat16
from alignsam_sb3.datasets.seen import SeenImages
from alignsam_sb3.files import write_bytes
from alignsam_sb3.policies import distributed
from alignsam_sb3.policies.archive import FORMAT, RECIPE, SEEN, PolicyArchive
from alignsam_sb3.policies.buffers import EpisodeMaskableRolloutBuffer, EpisodeRolloutBuffer
from alignsam_sb3.policies.cells import CellExtractor
from alignsam_sb3.policies.loading import has_other_extractor, restore, set_notes
from alignsam_sb3.policies.masked import ExplicitMaskablePolicy, ExplicitPolicy, ImplicitMaskablePolicy, ImplicitPolicy
from alignsam_sb3.policies.plain import describe_arguments, describe_state
from alignsam_sb3.policies.stages import Stage, describe_stages, write_stages

logger = logging.getLogger(__name__)


class _SamAlgorithm(OnPolicyAlgorithm):
    """What our PPO and MaskablePPO share."""

    recipe: dict[str, Any]
    """Plain values in the ``.zip`` that say how to build the policy again, so that it loads without unpickling."""

    stages: dict[str, Stage]
    """What is learned before PPO, and how far it has come."""

    _seen_before = SeenImages()

    def _setup_model(self) -> None:
        self.stages = {}
        if self.rollout_buffer_class is None and isinstance(self.observation_space, spaces.Dict):
            maskable = isinstance(self, MaskablePPO)
            self.rollout_buffer_class = EpisodeMaskableRolloutBuffer if maskable else EpisodeRolloutBuffer
        super()._setup_model()
        if isinstance(self.rollout_buffer, EpisodeRolloutBuffer | EpisodeMaskableRolloutBuffer):
            self.rollout_buffer.wanted = getattr(self.policy, "needs", None)
            self.rollout_buffer.reset()
        extractor = getattr(self.policy, "features_extractor", None)
        if self.device.type == "cuda" and isinstance(extractor, CellExtractor):
            extractor.forward = compiled_for_shapes(in_bfloat16(extractor.forward, "cuda"))
        if self.env is not None:
            attach_recalibration(self, self.env)
        if distributed.world() > 1:
            self._share()
        described = describe_arguments(self.policy_kwargs)
        self.recipe = {
            "algorithm": type(self).__name__,
            "policy": self._policy_name(),
            "policy_kwargs": described,
            "not_plain": [key for key in self.policy_kwargs if key not in described],
            "format": FORMAT,
            "env": self._from_env("env", "config") or {},
            "trained_on": self._from_env("trained_on", "dataset_fingerprint") or "",
            "categories": self._from_env("categories", "categories") or [],
            "models": self._from_env("models", "models"),
        }

    def _share(self) -> None:
        """One of several processes: the same policy, other episodes, averaged gradients."""
        if getattr(self, "target_kl", None) is not None:
            raise ValueError("target_kl would stop some processes before others: leave it out with torchrun")
        distributed.average_gradients(self.policy)
        if getattr(self, "normalize_advantage", False):
            self.normalize_advantage = False  # the buffer does it, over all processes
            self.rollout_buffer.standardise = True  # type: ignore[attr-defined]
        if self.seed is not None and self.env is not None:
            self.env.seed(self.seed + distributed.offset_of(self.n_envs))
            self.action_space.seed(self.seed + distributed.rank())
            th.manual_seed(self.seed + distributed.rank())

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps:
            self.stages = {}
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        """No schedule ends at 0 or below: the last rollout may end after the last step, and is learned from, too."""
        left = max(total_timesteps - num_timesteps, self.n_steps * self.n_envs)
        self._current_progress_remaining = min(left / total_timesteps, 1.0)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        super().set_env(env, force_reset)
        if self.env is not None and hasattr(self, "policy"):
            attach_recalibration(self, self.env)

    def _policy_name(self) -> str:
        """The name by which the algorithm knows its policy."""
        known = {policy: name for name, policy in reversed(self.policy_aliases.items())}
        return known.get(self.policy_class, self.policy_class.__name__)

    def _from_env(self, key: str, attribute: str) -> Any:  # noqa: ANN401
        """Something of the first environment; without one, what an earlier recipe says under its key."""
        if self.env is None or not self.env.has_attr(attribute):
            return getattr(self, "recipe", {}).get(key)
        return self.env.get_attr(attribute)[0]

    @property
    def seen(self) -> SeenImages:
        """The images that the policy was trained on, also in earlier trainings that it went on from."""
        found = self._seen_before
        learned = self.num_timesteps or any(stage.done for stage in self.stages.values())
        if self.env is not None and learned and self.env.has_attr("drawn"):
            for drawn in {array.tobytes(): array for array in self.env.get_attr("drawn")}.values():
                found = found.add(drawn)
        return found

    def save(
        self,
        path: str | Path | io.BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """Save as Stable-Baselines3 does, and in plain values what :meth:`load` needs, atomically: all of it or nothing."""
        saved = io.BytesIO()
        super().save(saved, exclude, include)
        described = {**describe_state(self), "stages": describe_stages(self.stages)}
        with ZipFile(saved, "a") as archive:
            archive.writestr(RECIPE, json.dumps({**self.recipe, **described}, indent=1))
            write_stages(archive, self.stages)
            archive.writestr(SEEN, json.dumps(self.seen.to_json()))
        if not isinstance(path, str | Path):
            path.write(saved.getvalue())
            return
        target = Path(path)
        target = target if target.suffix else target.with_suffix(".zip")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, saved.getvalue())

    @classmethod
    def load(
        cls,
        path: str | Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        trust: bool = False,
        policy: str | type[BasePolicy] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Self:
        """Load what :meth:`save` wrote, from weights and plain values: nothing in the file is run.

        :param env: to go on training in, or to play in; without one the policy can predict
        :param custom_objects: attributes that replace saved ones, as ``kwargs``
        :param trust: unpickle the file, as Stable-Baselines3's ``load`` does, which runs whatever it brings
        :param policy: the policy's class, or the path it is imported by, where it is none of this package's
        :param kwargs: attributes that replace saved ones
        :raises ValueError: the file is no policy of this class, or does not fit the environment
        """
        if trust:
            archive = PolicyArchive(path)  # type: ignore[arg-type]
            if archive.recipe is not None and has_other_extractor(archive.recipe):
                raise ValueError(f"{path} was saved by another version: load it without trust, which knows what can be done")
            logger.warning("unpickling %s: whatever code it brings is run", path)
            model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
            model.recipe = archive.recipe or model.recipe
            set_notes(model, archive)
            return model
        return restore(cls, path, env, device, policy, {**(custom_objects or {}), **kwargs})  # type: ignore[arg-type]

    def _excluded_save_params(self) -> list[str]:
        ours = ("_last_obs", "_last_original_obs", "learn", "recipe", "_seen_before", "stages")
        return [*super()._excluded_save_params(), *ours]


def attach_recalibration(model: BaseAlgorithm, env: VecEnv | gym.Env[Any, Any]) -> None:
    """Let an environment, or those of a VecEnv, draw foreground maps with the policy's own recalibration module, if any.

    The training environment is attached by ``set_env``, and when a model is made. An evaluation environment is made apart, so
    attach it before it is played. (The statistics of a VecNormalize must be synchronised likewise.)
    """
    module = getattr(model.policy, "srm", None)
    if module is None:
        return
    if not isinstance(env, VecEnv):
        if hasattr(env.unwrapped, "use_recalibration"):
            env.unwrapped.use_recalibration(module)
    elif env.has_attr("use_recalibration"):
        env.env_method("use_recalibration", module)


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
