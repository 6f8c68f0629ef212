"""A learned scorer of masks, for where there is no ground truth."""

from alignsam_sb3.rewards.network.model import METRICS, RewardNetwork, RewardNetworkConfig, score_of
from alignsam_sb3.rewards.network.scorer import RewardScorer, ScoreQuery, embedded_for, load_scorer

__all__ = [
    "METRICS",
    "RewardNetwork",
    "RewardNetworkConfig",
    "RewardScorer",
    "ScoreQuery",
    "embedded_for",
    "load_scorer",
    "score_of",
]
