"""Watch a trained policy on evaluation images: ``python scripts/enjoy.py --algo ppo_mask -f logs --no-render``.

Takes every option of ``python -m rl_zoo3.enjoy``.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))  # for a checkout that is not installed
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads crawl as soon as the machine has other work

from alignsam_sb3.zoo import main  # noqa: E402

if __name__ == "__main__":
    main("enjoy")
