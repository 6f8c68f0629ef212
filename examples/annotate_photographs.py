"""Annotate photographs with a policy, and draw what was found.

python examples/annotate_photographs.py policy.zip PHOTOS [OUT]
"""

import sys

from alignsam_sb3 import Predictor
from alignsam_sb3.annotate import annotate_folder

if len(sys.argv) < 3:
    sys.exit(__doc__)
policy, photographs, out = sys.argv[1], sys.argv[2], (sys.argv[3:] or ["annotated"])[0]
predict = Predictor.load(policy)
print(annotate_folder(predict, photographs, out, predict.categories[:1], formats=("coco", "png"), progress=False))
print(f"Masks in {out}/, and a picture of the most and the least doubtful in {out}/sheet.png")
