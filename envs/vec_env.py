"""DummyVecEnvs that ask a frozen model once per vector step; the first copies per-episode constants once per episode."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import gymnasium as gym
from alignsam_sb3.envs.episode import decode_jobs
from alignsam_sb3.envs.mask_refine import MaskRefineEnv
from alignsam_sb3.envs.sam_seg import SamSegEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from stable_baselines3.common.vec_env.util import dict_to_obs

from alignsam_sb3.features import EPISODE_CONSTANTS

Core = TypeVar("Core", SamSegEnv, MaskRefineEnv)


def _cores(envs: list[gym.Env[Any, Any]], kind: type[Core], batcher: str) -> list[Core]:
    """The environments beneath their wrappers, all of one kind."""
    cores: list[Core] = []
    for env in envs:
        if not isinstance(env.unwrapped, kind):
            raise TypeError(f"{batcher} batches {kind.__name__}, got {type(env.unwrapped).__name__}: use DummyVecEnv")
        cores.append(env.unwrapped)
    return cores


class SamSegVecEnv(DummyVecEnv):
    """Same episodes as DummyVecEnv for the same seeds and actions, with one decoder call for all environments.

    The arrays of episode constants that ``step`` hands out are the same objects until an environment resets; then new
    ones take their place, so nothing handed out is ever written to.

    :param env_fns: makers of ``SamSeg-v0`` environments, wrapped or not, that share one segmenter
    :raises TypeError: another environment came
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self._cores = _cores(self.envs, SamSegEnv, "SamSegVecEnv")
        for core in self._cores:
            core.copy_constants, core.defer_foreground = False, True
        if len({id(core.segmenter) for core in self._cores}) > 1:
            raise ValueError("the environments hold different segmenters: build them with the same segmenter and device")
        self._constants = [key for key in self.keys if key in EPISODE_CONSTANTS]
        self._seen: list[object] = [None] * self.num_envs
        self._handed_out = False

    def step_wait(self) -> VecEnvStepReturn:
        jobs = [core.plan(int(action)) for core, action in zip(self._cores, self.actions, strict=True)]
        asked = [(core, job) for core, job in zip(self._cores, jobs, strict=True) if job is not None]
        if asked:
            answers = decode_jobs(self._cores[0].segmenter, [job for _, job in asked], self._cores[0].scorer)
            for (core, _), answer in zip(asked, answers, strict=True):
                core.supply(answer)
        return super().step_wait()

    def _save_obs(self, env_idx: int, obs: VecEnvObs) -> None:
        episode = self._cores[env_idx].episode
        fresh = self._seen[env_idx] is not episode
        if fresh and self._handed_out:
            for key in self._constants:
                self.buf_obs[key] = self.buf_obs[key].copy()
            self._handed_out = False
        self._seen[env_idx] = episode
        for key in self.keys:
            if fresh or key not in self._constants:
                self.buf_obs[key][env_idx] = obs[key]  # type: ignore[call-overload]

    def _obs_from_buf(self) -> VecEnvObs:
        self._draw_foreground()
        self._handed_out = True
        copied = {key: value if key in self._constants else deepcopy(value) for key, value in self.buf_obs.items()}
        return dict_to_obs(self.observation_space, copied)

    def _draw_foreground(self) -> None:
        """Let the recalibration module look at all environments at once, where they want its map."""
        srm = self._cores[0].srm
        if srm is None:
            return
        maps = srm.foreground({key: self.buf_obs[key] for key in srm.needs})
        for i, (core, drawn) in enumerate(zip(self._cores, maps, strict=True)):
            self.buf_obs["foreground_map"][i] = drawn
            self.buf_obs["action_mask"][i] = core.note_foreground(drawn)


class MaskRefineVecEnv(DummyVecEnv):
    """Same episodes as DummyVecEnv for the same seeds and actions, with one call of the reward network for all environments.

    :param env_fns: makers of ``MaskRefine-v0`` environments, wrapped or not, that share one reward network
    :raises TypeError: another environment came
    """

    def __init__(self, env_fns: list[Callable[[], gym.Env[Any, Any]]]) -> None:
        super().__init__(env_fns)
        self._cores = _cores(self.envs, MaskRefineEnv, "MaskRefineVecEnv")

    def step_wait(self) -> VecEnvStepReturn:
        questions = [core.plan(int(action)) for core, action in zip(self._cores, self.actions, strict=True)]
        asked = [(core, question) for core, question in zip(self._cores, questions, strict=True) if question is not None]
        scorer = self._cores[0].answered.scorer
        if asked and scorer is not None:
            scores = scorer.scores([question for _, question in asked])
            for (core, _), score in zip(asked, scores, strict=True):
                core.supply(score)
        return super().step_wait()
