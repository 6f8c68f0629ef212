"""Rewards of clicks, and the reward network for where there is no ground truth."""

from alignsam_sb3.rewards.clicks import REWARDS, Reward, RewardContext, make_reward, no_ground_truth, uses_ground_truth

__all__ = ["REWARDS", "Reward", "RewardContext", "make_reward", "no_ground_truth", "uses_ground_truth"]
