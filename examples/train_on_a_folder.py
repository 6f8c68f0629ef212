"""Train an agent on your own photographs and masks, and draw what it clicks on others of them.

python examples/train_on_a_folder.py mask_folder:FOLDER [STEPS [OUT]]
"""

import sys
from pathlib import Path

import numpy as np
from alignsam_sb3.envs.batch import ClickBatch

from alignsam_sb3 import SamMaskablePPO, SamSegVecEnv, Task
from alignsam_sb3.evaluation import agent_player, draw_episodes, play
from alignsam_sb3.pictures import save_picture, stack, triptych

if len(sys.argv) < 2:
    sys.exit(__doc__)
spec, steps, out = sys.argv[1], int((sys.argv[2:] or [8000])[0]), (sys.argv[3:] or ["."])[0]
task = Task(dataset=spec, segmenter="tiny", clip=None, max_steps=3, patches=8)  # segmenter="mobile_sam" knows photographs
venv = SamSegVecEnv.of(task, 8)
model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=16, batch_size=64, gamma=0.9, learning_rate=5e-4, verbose=1)
model.learn(steps)
model.save(f"{out}/policy.zip")

unseen = ClickBatch(task.for_evaluation(), 4)
episodes = draw_episodes(unseen.shared.images_by_category, 4, np.random.default_rng(0))
played = play(agent_player(model), unseen, episodes)
print(f"Dice after each click, on images of the evaluation split: {played.mean('dice')}")
rows = [
    triptych(sample.image, sample.target(category), played.masks[i], played.clicks[i])
    for i, (image, category) in enumerate(episodes)
    for sample in [unseen.shared.sample(image)]
]
save_picture(stack(rows), Path(out, "unseen.png"))
print(f"{out}/policy.zip, and {out}/unseen.png: photograph, truth, prediction with its clicks")
