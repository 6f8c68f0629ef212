"""``python -m alignsam_sb3.cli`` is ``alignsam``."""

import sys

from alignsam_sb3.cli import main

sys.exit(main())
