"""Gymnasium's vector view: ``gym.make_vec("SamSeg-v0", num_envs=8)``."""

from typing import Any

import numpy as np
from alignsam_sb3.envs.batch import ClickBatch
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from alignsam_sb3.task import Task

Arrays = dict[str, Any]


class SamSegVectorEnv(VectorEnv[Arrays, Any, Any]):
    """N environments of ``SamSeg-v0`` as one batch; numpy in, numpy out.

    An episode that ends begins anew in the same step: its last observation is ``infos["final_obs"][i]``, and what is known of
    it ``infos["final_info"]``, as with Gymnasium's ``AutoresetMode.SAME_STEP``.

    :param num_envs: number of environments
    :param task: all options at once; or give them one by one
    :param options: of :class:`~alignsam_sb3.task.Task`
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, num_envs: int = 1, task: Task | None = None, **options: Any) -> None:  # noqa: ANN401
        options.pop("render_mode", None)
        self.batch = ClickBatch(task or Task.from_kwargs(**options), num_envs)
        self.num_envs = num_envs
        self.single_observation_space = self.batch.observation_space
        self.single_action_space = spaces.Discrete(self.batch.actions.n)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """Start all episodes.

        :param seed: of the first environment, the others following it by ones, or one for each
        """
        seeds = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in range(self.num_envs)]
        for i, one in enumerate(seeds):
            if one is not None:
                self.batch.rngs[i], _ = seeding.np_random(one)
        self.batch.reset(np.arange(self.num_envs))
        return self._observe(), self._infos([self.batch.info(i) for i in range(self.num_envs)])

    def step(self, actions: Any) -> tuple[Arrays, Any, Any, Any, dict[str, Any]]:  # noqa: ANN401
        step = self.batch.step(np.asarray(actions))
        ended = np.flatnonzero(step.over)
        infos: dict[str, Any] = {}
        if len(ended):
            final = self._observe()
            shown = np.empty(self.num_envs, object)
            shown[ended] = [{name: values[i] for name, values in final.items()} for i in ended]
            infos = {"final_obs": shown, "_final_obs": step.over.copy(), "_final_info": step.over.copy()}
            known = [self.batch.ended(i) if step.over[i] else {} for i in range(self.num_envs)]
            infos["final_info"] = self._infos(known)
            self.batch.reset(ended)
        infos |= self._infos([self.batch.info(i) for i in range(self.num_envs)])
        return self._observe(), step.rewards, step.over.copy(), np.zeros(self.num_envs, bool), infos

    def _observe(self) -> Arrays:
        return {name: values.cpu().numpy() for name, values in self.batch.observe().items()}

    def _infos(self, known: list[dict[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for i, info in enumerate(known):
            out = self._add_info(out, info, i)
        return out
