"""PPO's hyperparameters: those of MaskablePPO, with the policies that read the action mask from the observation.

The zoo reads this file as ``--conf-file alignsam_sb3.hyperparams.ppo``, or by its path.
"""

from importlib.resources import files
from typing import Any

import yaml

_masked: dict[str, dict[str, Any]] = yaml.safe_load(files("alignsam_sb3.hyperparams").joinpath("ppo_mask.yml").read_text())

hyperparams = {
    name: {**values, "policy": values["policy"].replace("MaskablePolicy", "Policy")}
    for name, values in _masked.items()
    if name.startswith("SamSeg")
}

# Choose prompts for a text segmenter: the values of the experiment that this environment comes from. Give a reward network
# with --reward-network DIR. `python -m alignsam_sb3.rewards.network fit --dataset toy:vessels --full --out DIR` writes one.
hyperparams["PromptSelect-v0"] = {
    "policy": "MlpPolicy",
    "env_kwargs": {
        "dataset": "toy:vessels",
        "dataset_kwargs": {"n_images": 100},
        "prompts": [
            "object", "large object", "small object", "triangle", "star", "ring", "crescent", "leafy object",
            "striped object", "green object", "checked object",
        ],
        "reward": "network",
        "observation": "rich",
    },
    "n_envs": 4,
    "n_timesteps": 10000,
    "n_steps": 128,
    "batch_size": 64,
    "n_epochs": 10,
    "learning_rate": 0.0003,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "ent_coef": 0.01,
    "vf_coef": 0.5,
    "policy_kwargs": {"net_arch": [128, 64]},
}  # fmt: skip
