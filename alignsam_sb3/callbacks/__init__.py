"""Callbacks: Dice and IoU, films of episodes, MLflow."""

from alignsam_sb3.callbacks.films import EpisodeFilmCallback, film_episode, save_film
from alignsam_sb3.callbacks.metrics import SegmentationCallback, SegmentationEvalCallback
from alignsam_sb3.callbacks.mlflow import MlflowCallback

__all__ = [
    "EpisodeFilmCallback",
    "MlflowCallback",
    "SegmentationCallback",
    "SegmentationEvalCallback",
    "film_episode",
    "save_film",
]
