"""Scenes that are drawn from a seed: what is learned and measured where no photographs are at hand."""

from alignsam_sb3.datasets.toy.scenes import CATEGORIES, TASKS, ToyScenes

__all__ = ["CATEGORIES", "TASKS", "ToyScenes"]
