"""Callbacks: Dice and IoU, films of episodes, MLflow."""

from alignsam_sb3.callbacks.films import EpisodeFilmCallback, encode_film, film_episode
from alignsam_sb3.callbacks.metrics import SegmentationCallback, SegmentationEvalCallback
from alignsam_sb3.callbacks.mlflow import MlflowCallback

__all__ = [
    "EpisodeFilmCallback",
    "MlflowCallback",
    "SegmentationCallback",
    "SegmentationEvalCallback",
    "encode_film",
    "film_episode",
]
