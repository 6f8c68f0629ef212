"""What the experiments share: choosing, refining, searching, judging."""

import numpy as np
import pytest

from alignsam_sb3 import experiments as ex
from alignsam_sb3.policies import load_policy
from alignsam_sb3.prompting.refinement import OPERATIONS

TASK = {"dataset_kwargs": {"n_images": 5}, "prompts": ["object", "crescent", "ring"], "device": "cpu"}


@pytest.fixture(scope="module")
def envs():
    return ex.make("PromptSelect-v0", {**TASK, "reward": "dice"}), ex.make("MaskRefine-v0", TASK)


def test_a_selector_runs_saves_loads_and_repeats(tmp_path):
    task = {**TASK, "reward": "dice"}
    chosen = []
    for _ in range(2):
        model, env = ex.train_selector(task, 64, 2, seed=3, out=tmp_path)
        chosen.append(ex.choose(model, env).tolist())
    assert chosen[0] == chosen[1]
    loaded = load_policy(tmp_path / "final_model.zip", model.get_env())
    assert ex.choose(loaded, env).tolist() == chosen[0]


def test_a_refiner_runs_and_its_masks_are_judged(envs):
    model, env = ex.train_refiner(TASK, 32, 2, seed=0)
    prompts = np.array([0, 1, 2, 0, 1])[: len(env.prompt_bank.pairs)]
    maps = ex.refine(model, env, prompts)
    found = ex.judge(env.prompt_bank, maps)
    assert set(found) == {"dice", "recall", "precision", "iou"}
    assert all(len(v) == len(maps) for v in found.values())


def test_search_is_never_worse_than_nothing_where_it_searched(envs):
    answered = envs[0].prompt_bank
    maps = ex.answers_to(answered, np.zeros(len(answered.pairs), int))
    one, two = ex.search_operations(answered, maps)
    nothing, single, double = (ex.dice_after(answered, maps, names) for names in ((), one, two))
    assert nothing <= single <= double
    assert set(two) <= set(OPERATIONS)


def test_the_oracle_is_never_worse_than_what_it_begins_with(envs):
    select, refine = envs
    _, dice = ex.look_up_all(select)
    prompts = dice.argmax(1)
    greedy = ex.judge(refine.prompt_bank, ex.greedy_refinement(refine, prompts, ex.true_dice))["dice"]
    assert (greedy >= dice.max(1) - 1e-9).all()
