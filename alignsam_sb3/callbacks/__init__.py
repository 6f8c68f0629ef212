"""Callbacks: Dice and IoU, films of episodes, MLflow."""

from alignsam_sb3.callbacks.checkpoints import CheckpointAfterUpdate
from alignsam_sb3.callbacks.films import EpisodeFilmCallback, encode_film, film_episode
from alignsam_sb3.callbacks.metrics import SegmentationCallback, SegmentationEvalCallback
from alignsam_sb3.callbacks.mlflow import MlflowCallback
from alignsam_sb3.callbacks.recalibration import RecalibrationCallback
from alignsam_sb3.callbacks.stages import StageCallback
from alignsam_sb3.callbacks.warm_start import WarmStartCallback

__all__ = [
    "CheckpointAfterUpdate",
    "EpisodeFilmCallback",
    "MlflowCallback",
    "RecalibrationCallback",
    "SegmentationCallback",
    "SegmentationEvalCallback",
    "StageCallback",
    "WarmStartCallback",
    "encode_film",
    "film_episode",
]
