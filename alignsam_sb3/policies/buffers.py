"""Rollout buffers that store what does not change within an episode once, as a row of a bank or once per episode."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch as th
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableDictRolloutBuffer
from stable_baselines3.common.buffers import DictRolloutBuffer

from alignsam_sb3.arrays import on_device
from alignsam_sb3.features import EPISODE_CONSTANTS
from alignsam_sb3.policies.distributed import standardised


class Bank(Protocol):
    """Gathers arrays by row on a device."""

    def gather(self, rows: NDArray[np.int64], names: list[str], widen: bool) -> dict[str, th.Tensor]: ...


class _EpisodeConstants(DictRolloutBuffer):
    """Each step stores the number of a row; the row holds an episode's constants.

    Where observations say so (``rows`` and ``bank``, as SamSegVecEnv's do) the rows are those of the environment's bank, and
    nothing is copied. Else each episode's constants are kept once, stacked and moved to the device once per rollout.
    Minibatches are bit-equal to the stock buffer's.
    """

    wanted: frozenset[str] | None = None
    """The observations that minibatches hold, None for all: a policy that looks at no picture need not be given any."""
    standardise = False
    """Standardise advantages over the minibatches of all processes."""

    def reset(self) -> None:
        super().reset()
        self._constants = [k for k in self.obs_shape if k in EPISODE_CONSTANTS and (self.wanted is None or k in self.wanted)]
        self.observations: dict[str, Any] = {
            key: th.zeros((self.buffer_size, self.n_envs, *shape), dtype=_TYPES[self._kind(key)], device=self.device)
            for key, shape in self.obs_shape.items()
            if key not in EPISODE_CONSTANTS
        }
        self._kept: dict[str, list[th.Tensor]] = {k: [] for k in self._constants}
        self._rows = np.zeros((self.buffer_size, self.n_envs), np.int64)
        self._current = np.zeros(self.n_envs, np.int64)
        self._count = 0
        self._bank: Bank | None = None
        self._on_device: dict[str, th.Tensor] = {}

    def _kind(self, key: str) -> str:
        return np.dtype(self.observation_space[key].dtype).name

    def add(self, obs: dict[str, Any], *args: Any, **kwargs: Any) -> None:  # type: ignore[override] # noqa: ANN401
        """Store one step; ``args`` are action, reward, episode_start, value and log_prob as in the stock buffer."""
        self._bank = getattr(obs, "bank", None)
        if self._bank is None:
            self._keep(obs, kwargs.get("episode_start", args[2] if len(args) > 2 else None))
        else:
            self._current = obs.rows  # type: ignore[attr-defined]
        self._rows[self.pos] = self._current
        for key, stored in self.observations.items():
            stored[self.pos] = th.as_tensor(obs[key]).to(self.device).reshape(stored[self.pos].shape)
        with self._without_observations():
            super().add({}, *args, **kwargs)

    @contextmanager
    def _without_observations(self) -> Iterator[None]:
        """Let the stock buffer do the rest."""
        observations, self.observations = self.observations, {}
        try:
            yield
        finally:
            self.observations = observations

    def _keep(self, obs: dict[str, Any], episode_start: NDArray[np.bool_] | None) -> None:
        for env in range(self.n_envs):
            if self.pos == 0 or episode_start is None or episode_start[env]:
                for key, kept in self._kept.items():
                    kept.append(th.as_tensor(obs[key][env]).reshape(self.obs_shape[key]).clone())
                self._current[env] = self._count
                self._count += 1

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        if not self.generator_ready:
            self._flat_rows = self.swap_and_flatten(self._rows).ravel()
            self._on_device = {key: th.stack(kept).to(self.device) for key, kept in self._kept.items() if kept}
            self._kept = {key: [] for key in self._kept}
        return super().get(batch_size)

    def to_torch(self, array: NDArray[Any], copy: bool = True) -> th.Tensor:
        return on_device(array, self.device)  # of parts of the buffer, which are copies

    def _get_samples(self, batch_inds: NDArray[Any], env: Any = None) -> Any:  # noqa: ANN401
        with self._without_observations():
            samples = super()._get_samples(batch_inds, env)
        at, rows = self.to_torch(batch_inds), self._flat_rows[batch_inds]
        samples.observations.update({key: values[at] for key, values in self.observations.items()})
        if self._bank is not None:
            widen = self.device.type != "cuda"  # where a policy computes in half precision, as on a card
            found = self._bank.gather(rows, [EPISODE_CONSTANTS[key] for key in self._constants], widen)
            constants = {key: found[EPISODE_CONSTANTS[key]].to(self.device) for key in self._constants}
        else:
            slots = self.to_torch(rows)
            constants = {key: values[slots] for key, values in self._on_device.items()}
        samples.observations.update(constants)
        return samples._replace(advantages=standardised(samples.advantages)) if self.standardise else samples

    @property
    def nbytes(self) -> int:
        """Bytes that the stored observations take now; rows of a bank take nothing but their number."""
        stored = sum(values.nbytes for values in self.observations.values()) + self._rows.nbytes
        waiting = sum(tensor.nbytes for kept in self._kept.values() for tensor in kept)
        return int(stored + waiting + sum(values.nbytes for values in self._on_device.values()))


_TYPES = {"float32": th.float32, "uint8": th.uint8, "int64": th.int64, "int8": th.int8, "bool": th.bool}


class EpisodeRolloutBuffer(_EpisodeConstants):
    """For PPO; bit-equal to ``DictRolloutBuffer``."""


class EpisodeMaskableRolloutBuffer(_EpisodeConstants, MaskableDictRolloutBuffer):  # type: ignore[misc]
    """For MaskablePPO; bit-equal to ``MaskableDictRolloutBuffer``, but that masks are bool and take a quarter."""

    def reset(self) -> None:
        super().reset()
        self.action_masks = self.action_masks.astype(bool)
