"""Rollout buffers that store what does not change within an episode once per episode."""

from collections.abc import Generator
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3.common.buffers import DictRolloutBuffer

from alignsam_sb3.features import EPISODE_CONSTANTS


class _EpisodeConstants(DictRolloutBuffer):
    """Each step stores the number of a slot; a slot holds one episode's constants.

    The slots are stacked and moved to the device once per rollout. Minibatches are bit-equal to the stock buffer's.
    """

    def reset(self) -> None:
        shapes = self.obs_shape
        self.obs_shape = {k: v for k, v in shapes.items() if k not in EPISODE_CONSTANTS}
        super().reset()
        self.obs_shape = shapes
        self._kept: dict[str, list[NDArray[Any]]] = {k: [] for k in shapes if k in EPISODE_CONSTANTS}
        self._slots = np.zeros((self.buffer_size, self.n_envs), np.int64)
        self._current = np.zeros(self.n_envs, np.int64)
        self._count = 0
        self._on_device: dict[str, th.Tensor] = {}

    def add(self, obs: dict[str, NDArray[Any]], *args: Any, **kwargs: Any) -> None:  # type: ignore[override] # noqa: ANN401
        """Store one step; ``args`` are action, reward, episode_start, value and log_prob as in the stock buffer."""
        episode_start = kwargs.get("episode_start", args[2] if len(args) > 2 else None)
        for env in range(self.n_envs):
            if self.pos == 0 or episode_start is None or episode_start[env]:
                for key, kept in self._kept.items():
                    kept.append(np.array(obs[key][env]).reshape(self.obs_shape[key]))
                self._current[env] = self._count
                self._count += 1
        self._slots[self.pos] = self._current
        super().add(obs, *args, **kwargs)

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        if not self._on_device:
            self._on_device = {key: self.to_torch(np.stack(kept)) for key, kept in self._kept.items() if kept}
            self._kept = {key: [] for key in self._kept}
            self._flat_slots = th.as_tensor(self.swap_and_flatten(self._slots).ravel(), device=self.device)
        return super().get(batch_size)

    def _get_samples(self, batch_inds: NDArray[Any], env: Any = None) -> Any:  # noqa: ANN401
        samples = super()._get_samples(batch_inds, env)
        slots = self._flat_slots[th.as_tensor(batch_inds, device=self.device)]
        samples.observations.update({key: values[slots] for key, values in self._on_device.items()})
        return samples

    @property
    def nbytes(self) -> int:
        """Bytes that the stored observations take now."""
        stored = sum(values.nbytes for values in self.observations.values())
        waiting = sum(array.nbytes for kept in self._kept.values() for array in kept)
        return stored + waiting + sum(values.nbytes for values in self._on_device.values())


class EpisodeRolloutBuffer(_EpisodeConstants):
    """For PPO; bit-equal to ``DictRolloutBuffer``."""


class EpisodeMaskableRolloutBuffer(_EpisodeConstants, MaskableDictRolloutBuffer):  # type: ignore[misc]
    """For MaskablePPO; bit-equal to ``MaskableDictRolloutBuffer``."""
