"""What callbacks share that learn something before PPO: where they are, checkpoints on the way, going on from one."""

from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from alignsam_sb3.policies.stages import Stage

_CHECKPOINTS = 10  # of a stage, unless it is said how often


class StageCallback(BaseCallback):
    """Something learned before the first rollout.

    How far it has come is saved with the policy. A training that is resumed from such a file goes on with the stage, with its
    optimizer and the rest of its schedule, in other episodes. The stage is not played again where PPO has begun, or where
    the file has counted steps and says nothing of stages.

    :param steps: environment steps, over all environments
    """

    stage: str
    """By which word it is saved, and spoken of."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self._checkpoint: Path | None = None
        self._freq = max(steps // _CHECKPOINTS, 1)

    def save_to(self, checkpoint: Path, freq: int | None = None) -> None:
        """Save the policy on the way, to a file that each time is replaced.

        :param freq: environment steps between two checkpoints; by default a tenth of the stage
        """
        self._checkpoint, self._freq = checkpoint, freq or self._freq

    def _open(self) -> Stage:
        """The stage, as far as an earlier run has come."""
        stages: dict[str, Stage] = getattr(self.model, "stages", {})  # Stable-Baselines3's own has none
        stage = stages.setdefault(self.stage, Stage(0, self.steps))
        stage.of = self.steps - self.steps % self.training_env.num_envs
        self._rng = np.random.default_rng([self.model.seed or 0, stage.done] if stage.done else self.model.seed)
        if 0 < stage.done < stage.of:
            print(f"Going on with the {self.stage} after {stage.done:,} of {stage.of:,} steps")
        return stage

    def _rounds(self, stage: Stage) -> range:
        """Vector steps that are still to be done."""
        each = self.training_env.num_envs
        return range(min(stage.done, stage.of) // each, 0 if self.model.num_timesteps else stage.of // each)

    def _begin(self, stage: Stage, optimizer: th.optim.Optimizer, schedule: Any, first: int) -> None:  # noqa: ANN401
        """Put optimizer and schedule where an earlier run left them."""
        stage.resume(optimizer)
        schedule.last_epoch = first

    def _did(self, stage: Stage, rounds: int) -> None:
        """Note that so many vector steps are done, and save the policy if that is due."""
        before, stage.done = stage.done, rounds * self.training_env.num_envs
        complete = stage.done >= stage.of
        if complete:
            stage.optimizer = None  # it is not needed any more
        if self._checkpoint is not None and (complete or stage.done // self._freq > before // self._freq):
            self.model.save(self._checkpoint)

    def _end(self) -> None:
        """What comes next begins with new episodes."""
        model: Any = self.model
        model._last_obs = self.training_env.reset()
        model._last_episode_starts = np.ones(self.training_env.num_envs, dtype=bool)

    def _on_step(self) -> bool:
        return True
