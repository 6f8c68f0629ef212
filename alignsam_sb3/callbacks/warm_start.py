"""Before PPO: imitate the greedy oracle on training images."""

from typing import Any

import numpy as np
import torch as th
from sb3_contrib import MaskablePPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from tqdm import tqdm

from alignsam_sb3.callbacks.stages import StageCallback


class WarmStartCallback(StageCallback):
    """Behaviour cloning before the first rollout (DAgger, arXiv 1011.0686): hundreds of actions are many to find by chance.

    The training environments are played, half of the steps by the policy and half by the oracle. At every step the policy
    learns how the oracle rates each action. Many clicks on an object are nearly as good as the best one, so the ratings of all
    teach more than the best one alone. Only training images are used, whose truth the reward knows anyway.

    The steps are not counted as steps of the training. A training that is resumed (``reset_num_timesteps=False``) is not
    warmed again. One that died in its warm start goes on with it from its last checkpoint, in other episodes.

    :param steps: environment steps, over all environments
    :param learning_rate: of AdamW, falling to a tenth
    :param weight_decay: of AdamW; without it the policy learns the training images by heart
    :param own: share of the steps that the policy itself takes
    :param enough: Dice from which on the oracle is done, where the task offers that; with 1 it goes on to the last click
    :raises ValueError: ``enough`` is no Dice
    """

    stage = "warm start"

    def __init__(
        self,
        steps: int = 10_000,
        learning_rate: float = 1.5e-3,
        weight_decay: float = 0.3,
        own: float = 0.5,
        enough: float = 1.0,
    ) -> None:
        super().__init__(steps)
        if not 0 <= enough <= 1:
            raise ValueError(f"enough is a Dice, from 0 to 1 (1: go on to the last click), got {enough}")
        self.learning_rate, self.weight_decay, self.own, self.enough = learning_rate, weight_decay, own, enough

    def _on_training_start(self) -> None:
        if self.model.num_timesteps:
            return
        assert isinstance(self.model, OnPolicyAlgorithm)
        policy, venv = self.model.policy, self.training_env
        if not (venv.get_attr("labelled")[0] and venv.get_attr("uses_ground_truth")[0]):
            print("No warm start: the oracle that it imitates would look at ground truth, which the reward does not")
            return
        stage = self._open()
        rounds = self._rounds(stage)
        if not rounds:
            return
        optimizer = th.optim.AdamW(policy.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        schedule = th.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 - 0.9 * k / rounds.stop)
        self._begin(stage, optimizer, schedule, rounds.start)
        policy.set_training_mode(True)
        observations: Any = venv.reset()
        bar = tqdm(rounds, desc=self.stage, initial=rounds.start, total=rounds.stop, mininterval=5)
        agreed = 0.0
        for done in bar:
            ratings = np.array(venv.env_method("oracle_preference", self.enough))
            wanted = ratings.argmax(1)
            loss, own = self._imitate(observations, ratings)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            th.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
            optimizer.step()
            schedule.step()
            self._did(stage, done + 1)
            agreed = 0.98 * agreed + 0.02 * float((own == wanted).mean())
            of_late = agreed / (1 - 0.98 ** (done + 1 - rounds.start))
            bar.set_postfix(loss=f"{loss.detach():.2f}", agreed=f"{of_late:.2f}", refresh=False)
            observations, *_ = venv.step(np.where(self._rng.random(len(own)) < self.own, own, wanted))
        policy.set_training_mode(False)
        self._end()
        self.logger.record("warm_start/steps", rounds.stop * venv.num_envs)
        self.logger.record("warm_start/agreed", of_late)

    def _imitate(self, observations: dict[str, Any], ratings: np.ndarray[Any, Any]) -> tuple[th.Tensor, np.ndarray[Any, Any]]:
        """Cross entropy of the policy with what the oracle likes, and actions that the policy itself draws."""
        policy: Any = self.model.policy
        seen, _ = policy.obs_to_tensor(observations)
        if isinstance(self.model, MaskablePPO):
            distribution = policy.get_distribution(seen, action_masks=seen["action_mask"])
        else:
            distribution = policy.get_distribution(seen)
        loss = -(th.as_tensor(ratings, device=policy.device) * distribution.distribution.logits).sum(1).mean()
        with th.no_grad():
            own = distribution.sample().cpu().numpy()
        return loss, own
