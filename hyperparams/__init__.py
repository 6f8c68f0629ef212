"""Hyperparameters for RL Zoo, one file for each algorithm."""
