"""Teaching the recalibration module: before PPO, and beside it after every step."""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from tqdm import tqdm

from alignsam_sb3.callbacks.stages import StageCallback
from alignsam_sb3.features import EPISODE_CONSTANTS
from alignsam_sb3.policies.stages import Stage
from alignsam_sb3.recalibration import Recalibration, dice_and_cross_entropy

_REMEMBERED = 64  # vector steps


class _Remembered:
    """What the module needs of a vector step, in main memory; what a bank holds is gathered from it again."""

    def __init__(self, srm: Recalibration, observations: Mapping[str, Any], truth: th.Tensor) -> None:
        self.truth, self._bank = truth, getattr(observations, "bank", None)
        self._rows = getattr(observations, "rows", None)
        self._gathered = {} if self._bank is None else {k: EPISODE_CONSTANTS[k] for k in srm.needs if k in EPISODE_CONSTANTS}
        kept = [key for key in srm.needs if key not in self._gathered]
        self._kept = {key: th.as_tensor(observations[key]).cpu().clone() for key in kept}

    def observations(self) -> dict[str, th.Tensor]:
        """(N, ...) what the module needs."""
        if self._bank is None:
            return self._kept
        found = self._bank.gather(self._rows, list(self._gathered.values()))
        return self._kept | {key: found[name] for key, name in self._gathered.items()}


class RecalibrationCallback(StageCallback):
    """Dice + BCE on the training images (AlignSAM, section 3.3), for policies that hold a recalibration module.

    First the training environments are played, half of the steps at random and half by the oracle, so that the module sees
    beliefs of every quality. Then it learns on from what the policy does. Only training images are used, each time turned and
    mirrored anew. The steps before are not counted as steps of the training, and a resumed training goes on with them where
    its checkpoint was taken, or does not repeat them. Its optimizer is saved with the policy. Put it before
    ``WarmStartCallback``.

    The last 64 vector steps are remembered in main memory. Of SamSegVecEnv these are the current masks and the rows of the
    bank: 0.3 MB for each environment and step with a full-size SAM.

    :param steps: environment steps before the first rollout, over all environments
    :param updates: of the module after each vector step, on one of the last 64 vector steps
    :param beside: go on during PPO, after every vector step
    :param learning_rate: highest of AdamW's, which rises and falls once before PPO; beside PPO it is a tenth of it
    :param weight_decay: of AdamW
    """

    stage = "recalibration"

    def __init__(
        self,
        steps: int = 10_000,
        updates: int = 4,
        beside: bool = True,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(steps)
        self.updates, self.beside = updates, beside
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self._seen: deque[_Remembered] = deque(maxlen=_REMEMBERED)
        self._srm: Recalibration | None = None

    def _on_training_start(self) -> None:
        assert isinstance(self.model, OnPolicyAlgorithm)
        venv, srm = self.training_env, getattr(self.model.policy, "srm", None)
        if srm is None:
            raise ValueError(
                "RecalibrationCallback teaches the policy's recalibration module, and this policy has none: make the "
                "environment with srm=True (or labels='srm') and take a policy of this package, or leave the callback out"
            )
        if not (venv.get_attr("labelled")[0] and venv.get_attr("uses_ground_truth")[0]):
            print(
                "The recalibration module stays as it is: it learns from ground truth, at which the reward does not look. "
                "If it was never taught, do not let it label clicks: labels='agent'"
            )
            return
        self._srm = srm
        stage = self._open()
        rounds = self._rounds(stage)
        if rounds:
            self._before(stage, rounds)
        self._make_optimizer(self.learning_rate / 10)
        stage.resume(self._optimizer)

    def _make_optimizer(self, learning_rate: float) -> None:
        assert self._srm is not None
        self._optimizer = th.optim.AdamW(self._srm.parameters(), learning_rate, weight_decay=self.weight_decay)

    def _before(self, stage: Stage, rounds: range) -> None:
        venv: Any = self.training_env
        observations = venv.reset()
        self._make_optimizer(self.learning_rate)
        total = max(rounds.stop, 2)
        rise = max(0.1, 1.5 / total)  # of a whole step or none, OneCycleLR would divide by zero
        cycle = th.optim.lr_scheduler.OneCycleLR(self._optimizer, self.learning_rate, total, pct_start=rise)
        self._begin(stage, self._optimizer, cycle, rounds.start)
        bar = tqdm(rounds, desc=self.stage, initial=rounds.start, total=rounds.stop, mininterval=5)
        for done in bar:
            loss = self._learn(observations)
            cycle.step()
            self._did(stage, done + 1)
            bar.set_postfix(loss=f"{loss:.2f}", refresh=False)
            drawn = [self._rng.choice(np.flatnonzero(mask)) for mask in venv.env_method("action_masks")]
            best = venv.env_method("oracle_action")
            observations, *_ = venv.step(np.where(self._rng.random(venv.num_envs) < 0.5, drawn, best))
        self._end()

    def _on_step(self) -> bool:
        if self._srm is not None and self.beside:
            self.logger.record_mean("recalibration/loss", self._learn(self.locals["new_obs"]))
        return True

    def _learn(self, observations: dict[str, Any]) -> float:
        """Remember a vector step and take some updates; the last loss."""
        srm = self._srm
        assert srm is not None
        truth = th.as_tensor(np.stack(self.training_env.env_method("truth_on_grid")))
        self._seen.append(_Remembered(srm, observations, truth))
        srm.train()
        loss = th.zeros(())
        for k in range(self.updates):
            place = len(self._seen) - 1 if k == 0 else int(self._rng.integers(len(self._seen)))
            remembered = self._seen[place]
            view = int(self._rng.integers(4)), bool(self._rng.integers(2))
            seen = remembered.observations()
            inputs = {key: turned(x, *view) for key, x in srm.inputs(seen).items()}
            covered, known = turned(remembered.truth.to(self.model.device), *view).chunk(2, 1)
            loss = dice_and_cross_entropy(srm(inputs), covered, known)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            th.nn.utils.clip_grad_norm_(srm.parameters(), 1.0)
            self._optimizer.step()
        self._optimizer.zero_grad()  # PPO clips by the norm of all gradients of the policy, and these are none of its own
        srm.eval()
        return float(loss.detach())


def turned(x: th.Tensor, quarters: int, mirrored: bool) -> th.Tensor:
    """A batch of maps (B, ..., h, w) turned by quarters and then mirrored; what is no map (B, N) stays as it is."""
    if x.ndim < 3:
        return x
    x = x.rot90(quarters, (-2, -1))
    return x.flip(-1) if mirrored else x
