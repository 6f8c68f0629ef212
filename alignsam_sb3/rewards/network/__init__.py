"""A learned scorer of masks, for where there is no ground truth."""

from alignsam_sb3.rewards.network.model import METRICS, RewardNetwork, RewardNetworkConfig, score_of
from alignsam_sb3.rewards.network.scorer import ScoreQuery, RewardScorer, embedded_for, load_scorer

__all__ = [
    "METRICS",
    "ScoreQuery",
    "RewardNetwork",
    "RewardNetworkConfig",
    "RewardScorer",
    "embedded_for",
    "load_scorer",
    "score_of",
]
