"""What runs otherwise on a card than on a CPU: half precision, compiled extractors, no waiting."""

import sys
import warnings
from collections import Counter

import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv

from alignsam_sb3.policies import SamMaskablePPO
from alignsam_sb3.task import Task

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU that CUDA runs")]

WAITS = {"dice_and_iou", "iou_predicted"}
"""Functions of ours that bring something to the host: the masks' quality once a step, and SAM's own word once an episode."""
POLICIES = pytest.mark.parametrize(("policy", "clip"), [("ExplicitMaskablePolicy", "tiny"), ("ImplicitMaskablePolicy", None)])


def new(policy, clip, device="cuda", n_envs=8):
    task = Task.from_kwargs(clip=clip, max_steps=3, dataset_kwargs={"n_images": 8}, device=device)
    venv = SamSegVecEnv.of(task, n_envs)
    return SamMaskablePPO(policy, venv, n_steps=6, batch_size=24, n_epochs=2, seed=0, device=device)


@pytest.fixture
def waits(monkeypatch):
    """Where the host waits for the card: names of this package's functions, with how often."""
    found: Counter[str] = Counter()

    def note(message, category, filename, lineno, file=None, line=None):
        frame = sys._getframe(1)
        while frame.f_globals["__name__"].split(".")[0] in ("torch", "warnings", "contextlib"):
            frame = frame.f_back
        if frame.f_globals["__name__"].split(".")[0] == "alignsam_sb3":
            found[frame.f_code.co_name] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", note)
        yield found
    th.cuda.set_sync_debug_mode("default")


@POLICIES
def test_a_rollout_and_an_update_wait_for_the_card_only_where_they_must(policy, clip, waits):
    model = new(policy, clip)
    model.learn(48)  # compiles, and brings all rows to the card
    th.cuda.set_sync_debug_mode("warn")
    model.learn(48, reset_num_timesteps=False)
    th.cuda.set_sync_debug_mode("default")
    assert set(waits) <= WAITS, waits
    assert waits["dice_and_iou"] == 6  # also proves that waits are seen at all


@POLICIES
def test_half_precision_and_compiling_change_little(policy, clip):
    model = new(policy, clip).learn(48)
    obs = model.policy.obs_to_tensor(model.env.reset())[0]
    seen = {key: value.float() for key, value in model.policy.looked_at(obs).items() if key != "target_category"}
    if "target_category" in obs:
        seen["target_category"] = th.nn.functional.one_hot(obs["target_category"].long().flatten(), 8).float()
    extractor = model.policy.features_extractor
    with th.no_grad():
        fast, exact = extractor(seen), type(extractor).forward(extractor, seen)
    assert fast.dtype == th.float32
    assert (fast - exact).abs().max() < 0.02 * exact.abs().max()
    assert not th.equal(fast, exact)  # it is indeed computed otherwise


@POLICIES
def test_a_policy_learned_on_a_card_plays_on_a_cpu(policy, clip, tmp_path):
    model = new(policy, clip).learn(48)
    assert all(bool(p.isfinite().all()) for p in model.policy.parameters())
    model.save(tmp_path / "policy.zip")
    loaded = SamMaskablePPO.load(tmp_path / "policy.zip", device="cpu")
    venv = new(policy, clip, "cpu").env
    obs = venv.reset()
    on_card = {key: th.as_tensor(value).cuda() for key, value in obs.items()}
    mine, _ = loaded.predict(obs, deterministic=True)
    theirs, _ = model.predict(on_card, deterministic=True, action_masks=obs["action_mask"])
    assert np.mean(mine == theirs) >= 0.75  # of nearly equal cells another may win
