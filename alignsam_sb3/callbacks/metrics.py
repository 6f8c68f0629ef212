"""Dice and IoU of finished episodes, in training (``rollout/``) and in evaluation (``eval/``)."""

from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Logger

LOGGED = ("dice", "iou", "best_dice")


def record_episode(logger: Logger, room: str, info: dict[str, Any]) -> None:
    """Add a finished episode's numbers to running means, overall and for its category."""
    for key in LOGGED:
        logger.record_mean(f"{room}/{key}", info[key])
    logger.record_mean(f"{room}/dice_{info['category'].replace(' ', '_')}", info["dice"])


class SegmentationCallback(BaseCallback):
    """Logs ``rollout/dice``, ``rollout/iou``, ``rollout/best_dice`` and ``rollout/dice_<category>``."""

    def _on_step(self) -> bool:
        for done, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if done and "dice" in info:
                record_episode(self.logger, "rollout", info)
        return True


class SegmentationEvalCallback(EvalCallback):
    """EvalCallback that logs ``eval/dice``, ``eval/iou``, ``eval/best_dice`` and ``eval/dice_<category>`` too."""

    def _log_success_callback(self, locals_: dict[str, Any], globals_: dict[str, Any]) -> None:
        super()._log_success_callback(locals_, globals_)
        if locals_["done"] and "dice" in locals_["info"]:
            record_episode(self.logger, "eval", locals_["info"])
