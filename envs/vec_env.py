"""Stable-Baselines3's views of batched environments: one call of a frozen model for each vector step."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.batch import ClickBatch, Observation
from alignsam_sb3.envs.mask_refine import MaskRefineEnv
from alignsam_sb3.envs.sam_seg import SamSegEnv
from gymnasium.utils import seeding
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from alignsam_sb3.pictures import triptych
from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.task import Task

TRANSPARENT = (OrderEnforcing, PassiveEnvChecker)
EnvFn = Callable[[], gym.Env[Any, Any]]


class SamSegVecEnv(VecEnv):
    """The same episodes as DummyVecEnv for the same seeds and actions, as one batch of tensors.

    Observations are dicts of arrays (N, ...). Where the segmenter is on a card they are tensors there, which
    Stable-Baselines3 passes through; on the CPU they are numpy's, as its tools expect, and views of tensors. None of them is
    written to after it was handed out. Rewards and dones are numpy. ``infos`` of steps that end no episode are empty, but
    for ``invalid_action``. ``terminal_observation`` holds views of the last observations.

    :param env_fns: makers of ``SamSeg-v0`` environments of one task, as they are or in a Monitor
    :raises TypeError: another environment or wrapper came
    :raises ValueError: the environments have different tasks
    """

    @classmethod
    def of(cls, task: Task, n_envs: int) -> "SamSegVecEnv":
        """A batch of ``n_envs`` episodes of a task."""
        return cls([lambda: SamSegEnv(task)] * n_envs)

    def __init__(self, env_fns: Sequence[EnvFn]) -> None:
        made = [_unwrap(fn()) for fn in env_fns]
        cores, self._monitors = [core for core, _ in made], [monitor for _, monitor in made]
        first = cores[0]
        if any(core.config != first.config or core.task.split != first.task.split for core in cores):
            raise ValueError("the environments have different tasks: one batch has one segmenter, one data set and one grid")
        self.batch = ClickBatch(first.task, len(cores))
        self.metadata = first.metadata
        self._shown = first
        super().__init__(len(cores), first.observation_space, first.action_space)
        self._actions = np.zeros(self.num_envs, np.int64)
        self._returns, self._began = np.zeros(self.num_envs), time.time()

    def reset(self) -> Observation:
        for i, seed in enumerate(self._seeds):
            if seed is not None:
                self.batch.rngs[i], _ = seeding.np_random(seed)
        wanted = [(int(o["image_index"]), int(o["category_id"])) if "image_index" in o else None for o in self._options]
        self.batch.reset(np.arange(self.num_envs), wanted)
        self._returns[:] = 0
        self.reset_infos = [self.batch.info(i) for i in range(self.num_envs)]
        self._reset_seeds()
        self._reset_options()
        return self._observe()

    def _observe(self) -> Observation:
        seen = self.batch.observe()
        if self.batch.segmenter.device.type == "cpu":
            seen.update({name: values.numpy() for name, values in seen.items()})
        return seen

    def step_async(self, actions: np.ndarray[Any, Any]) -> None:
        self._actions = np.asarray(actions, np.int64).reshape(-1)

    def step_wait(self) -> VecEnvStepReturn:
        step = self.batch.step(self._actions)
        self._returns += step.rewards
        nothing: dict[str, Any] = {}
        infos: list[dict[str, Any]] = [{"invalid_action": True} if invalid else nothing for invalid in step.invalid]
        ended = np.flatnonzero(step.over)
        observation = self._observe()
        for i in ended:
            infos[i] = self.batch.ended(int(i)) | {"invalid_action": bool(step.invalid[i])}
            infos[i]["terminal_observation"] = {name: values[i] for name, values in observation.items()}
            self._monitor(int(i), infos[i])
        if len(ended):
            self.batch.reset(ended)
            for i in ended:
                self.reset_infos[i] = self.batch.info(int(i))
            self._returns[ended] = 0
            observation = self._observe()
        return observation, step.rewards.astype(np.float32), step.over.copy(), infos

    def _monitor(self, i: int, info: dict[str, Any]) -> None:
        """Report an episode as the environment's own Monitor would."""
        monitor = self._monitors[i]
        if monitor is None:
            return
        length = int(self.batch.num_steps[i])
        episode = {"r": round(float(self._returns[i]), 6), "l": length, "t": round(time.time() - monitor.t_start, 6)}
        episode |= {key: info[key] for key in monitor.info_keywords}
        monitor.episode_returns.append(episode["r"])
        monitor.episode_lengths.append(length)
        monitor.episode_times.append(episode["t"])
        monitor.total_steps += length
        if monitor.results_writer:
            monitor.results_writer.write_row(episode)
        info["episode"] = episode

    def close(self) -> None:
        for monitor in self._monitors:
            if monitor is not None and monitor.results_writer is not None:
                monitor.results_writer.close()

    # What Stable-Baselines3 asks of its environments, answered by the batch

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        value = self._look_up(attr_name)
        return [value for _ in self._get_indices(indices)]

    def has_attr(self, attr_name: str) -> bool:
        try:
            self._look_up(attr_name)
        except AttributeError:
            return attr_name in _BATCHED
        return True

    def _look_up(self, name: str) -> Any:  # noqa: ANN401
        if name == "render_mode":
            return self._shown.render_mode
        if name == "recalibration":
            return self.batch.recalibration
        return getattr(self._shown, name)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:  # noqa: ANN401
        raise AttributeError(f"{attr_name!r} of the environments of a batch cannot be set: make them anew")

    def env_method(
        self,
        method_name: str,
        *method_args: Any,  # noqa: ANN401
        indices: VecEnvIndices = None,
        **method_kwargs: Any,  # noqa: ANN401
    ) -> list[Any]:
        if method_name not in _BATCHED:
            raise AttributeError(f"the environments of a batch answer {', '.join(sorted(_BATCHED))}, not {method_name!r}")
        answers = _BATCHED[method_name](self.batch, *method_args, **method_kwargs)
        return [answers[i] for i in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        return [wrapper_class is Monitor and self._monitors[i] is not None for i in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray[Any, Any] | None]:
        masks = self.batch.sessions.masks()
        pictures = []
        for i, mask in enumerate(masks):
            sample, category = self.batch.sample(i), int(self.batch.categories[i])
            pictures.append(triptych(sample.image, sample.target(category), mask, self.batch.sessions.clicks(i)))
        return pictures


def _use_recalibration(batch: ClickBatch, module: Recalibration | None) -> list[None]:
    batch.recalibration = module
    return [None] * batch.n


_BATCHED: dict[str, Callable[..., Sequence[Any]]] = {
    "fill": lambda batch: [batch.shared.fill()] * batch.n,
    "action_masks": lambda batch: list(batch.action_mask.astype(bool)),
    "oracle_action": lambda batch: [batch.oracle_action(i) for i in range(batch.n)],
    "oracle_preference": lambda batch, enough=1.0: [batch.oracle_preference(i, enough) for i in range(batch.n)],
    "truth_on_grid": ClickBatch.truth_on_grid,
    "use_recalibration": _use_recalibration,
}


def _unwrap(env: gym.Env[Any, Any]) -> tuple[SamSegEnv, Monitor | None]:
    """A ``SamSeg-v0`` environment and its Monitor, if it has one."""
    monitor: Monitor | None = None
    inner: gym.Env[Any, Any] = env
    while isinstance(inner, gym.Wrapper):
        if isinstance(inner, Monitor):
            monitor = inner
        elif not isinstance(inner, TRANSPARENT):
            raise TypeError(f"SamSegVecEnv cannot batch environments in a {type(inner).__name__}: use DummyVecEnv")
        inner = inner.env
    if not isinstance(inner, SamSegEnv):
        raise TypeError(f"SamSegVecEnv batches SamSegEnv, got {type(inner).__name__}: use DummyVecEnv")
    return inner, monitor


class MaskRefineVecEnv(DummyVecEnv):
    """Same episodes as DummyVecEnv for the same seeds and actions, with one call of the reward network for all environments.

    :param env_fns: makers of ``MaskRefine-v0`` environments, wrapped or not, that share one reward network
    :raises TypeError: another environment came
    """

    def __init__(self, env_fns: list[EnvFn]) -> None:
        super().__init__(env_fns)
        self._cores: list[MaskRefineEnv] = []
        for env in self.envs:
            if not isinstance(env.unwrapped, MaskRefineEnv):
                raise TypeError(f"MaskRefineVecEnv batches MaskRefineEnv, got {type(env.unwrapped).__name__}: use DummyVecEnv")
            self._cores.append(env.unwrapped)

    def step_wait(self) -> VecEnvStepReturn:
        queries = [core.plan(int(action)) for core, action in zip(self._cores, self.actions, strict=True)]
        asked = [(core, query) for core, query in zip(self._cores, queries, strict=True) if query is not None]
        scorer = self._cores[0].prompt_bank.scorer
        if asked and scorer is not None:
            scores = scorer.score([query for _, query in asked])
            for (core, _), score in zip(asked, scores, strict=True):
                core.supply(score)
        return super().step_wait()
