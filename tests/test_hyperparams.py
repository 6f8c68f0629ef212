"""The zoo's files: PPO's are MaskablePPO's with other policies."""

from pathlib import Path

import gymnasium as gym
import pytest
import yaml
from alignsam_sb3.hyperparams import ppo

from alignsam_sb3 import zoo_options

ROOT = Path(__file__).resolve().parents[1]


def test_ppo_has_what_maskable_ppo_has_and_its_own_policies():
    masked = yaml.safe_load((ROOT / "hyperparams" / "ppo_mask.yml").read_text())
    clicking = [name for name in masked if name.startswith("SamSeg")]
    assert len(clicking) == 7
    assert {*ppo.hyperparams} == {*clicking, "PromptSelect-v0"}
    for name in clicking:
        policy = ppo.hyperparams[name]["policy"]
        assert policy in ("alignsam_sb3.policies.ExplicitPolicy", "alignsam_sb3.policies.ImplicitPolicy")
        assert ppo.hyperparams[name] == {**masked[name], "policy": policy}
        assert masked[name]["policy"] == policy.replace("Policy", "MaskablePolicy")
    assert {*masked} == {*clicking, "MaskRefine-v0"}
    assert {*masked, *ppo.hyperparams} <= gym.registry.keys()


def test_the_zoo_runs_the_file_without_importing_it():
    ran = {}
    exec(Path(zoo_options.hyperparams_file("ppo")).read_text(), ran)  # as its --conf-file FILE.py
    assert ran["hyperparams"] == ppo.hyperparams


def test_an_algorithm_without_a_file_is_named():
    with pytest.raises(SystemExit, match=r"unknown algorithm 'ppo_maks': did you mean 'ppo_mask'\?.*--conf-file"):
        zoo_options.hyperparams_file("ppo_maks")
