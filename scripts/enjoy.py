"""Watch a trained policy on evaluation images: ``python scripts/enjoy.py --algo ppo_mask -f logs --no-render``.

Takes every option of ``python -m rl_zoo3.enjoy``.
"""

from alignsam_sb3.zoo import main

if __name__ == "__main__":
    main("enjoy")
