"""Train with RL Zoo: ``python scripts/train.py --algo ppo_mask --env SamSeg-v0``.

Takes every option of ``python -m rl_zoo3.train``, and ``--dataset``, ``--segmenter``, ``--categories`` and ``--mlflow``.
"""

from alignsam_sb3.zoo import main

if __name__ == "__main__":
    main("train")
