"""Dice and IoU of finished episodes, in training (``rollout/``) and in evaluation (``eval/``)."""

import hashlib
import math
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Logger

from alignsam_sb3.policies import attach_recalibration

LOGGED = ("dice", "iou", "best_dice")


_LONGEST = 28  # with "dice_" and an indent the 36 characters of SB3's table, which refuses two keys that it cuts to the same


def category_key(name: str) -> str:
    """A category's name as part of a key: short names as they are, long ones cut and told apart by a hash."""
    plain = "_".join(name.split())
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 7]}~{hashlib.blake2b(plain.encode(), digest_size=3).hexdigest()}"


def record_episode(logger: Logger, room: str, info: dict[str, Any]) -> None:
    """Add a finished episode's numbers to running means, overall and for its category."""
    numbers = {key: info[key] for key in LOGGED if key in info}
    numbers[f"dice_{category_key(info['category'])}"] = info["dice"]
    for key, value in numbers.items():
        if not math.isnan(value):  # there is no truth
            logger.record_mean(f"{room}/{key}", value)


class SegmentationCallback(BaseCallback):
    """Logs ``rollout/dice``, ``rollout/iou``, ``rollout/best_dice`` and ``rollout/dice_<category>``.

    Where a reward network scores the episodes also ``custom/reward_net_score``, ``custom/gt_dice`` (where the truth is known)
    and ``custom/best_reward``, the largest sum of rewards that an episode has had so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.best_reward = -math.inf

    def _on_step(self) -> bool:
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done and "dice" in info:
                record_episode(self.logger, "rollout", info)
            if done and "reward_net_score" in info:
                self._record_score(info)
        return True

    def _record_score(self, info: dict[str, Any]) -> None:
        self.logger.record_mean("custom/reward_net_score", info["reward_net_score"])
        if not math.isnan(info.get("dice", math.nan)):
            self.logger.record_mean("custom/gt_dice", info["dice"])
        if "episode" in info:  # a Monitor counts rewards
            self.best_reward = max(self.best_reward, info["episode"]["r"])
            self.logger.record("custom/best_reward", self.best_reward)


class SegmentationEvalCallback(EvalCallback):
    """EvalCallback that logs ``eval/dice``, ``eval/iou``, ``eval/best_dice`` and ``eval/dice_<category>`` too.

    Its environment draws foreground maps with the policy's recalibration module.
    """

    def _init_callback(self) -> None:
        super()._init_callback()
        attach_recalibration(self.model, self.eval_env)

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        super()._log_success_callback(locals_, globals_)
        if locals_["done"] and "dice" in locals_["info"]:
            record_episode(self.logger, "eval", locals_["info"])
