"""Rewards: click rewards that look at the truth while training."""

from alignsam_sb3.rewards.clicks import REWARDS, Reward, Turn, make_reward

__all__ = ["REWARDS", "Reward", "Turn", "make_reward"]
