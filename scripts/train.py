"""Train with RL Zoo: ``python scripts/train.py --algo ppo_mask --env SamSeg-v0``.

Takes every option of ``python -m rl_zoo3.train``, and ``--dataset``, ``--segmenter``, ``--categories`` and ``--mlflow``.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for a checkout that is not installed
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl as soon as the machine has other work

from alignsam_sb3.zoo import main  # noqa: E402

if __name__ == "__main__":
    main("train")
