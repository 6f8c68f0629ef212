"""Watch a trained policy on evaluation images: ``python scripts/enjoy.py --algo ppo_mask -f logs --no-render``.

Takes every option of ``python -m rl_zoo3.enjoy``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for a checkout that is not installed

from alignsam_sb3.zoo import main  # noqa: E402

if __name__ == "__main__":
    main("enjoy", ROOT / "hyperparams")
