"""The ablations: variants differ in what they say they do, results add up, and a killed run goes on."""

from dataclasses import replace

import numpy as np
import pytest

from alignsam_sb3 import ablation
from alignsam_sb3.ablation import SIZES, TASKS, VARIANTS, bootstrap, branch, env_kwargs, iqm

TINY = replace(
    SIZES["quick"], images=6, recalibrate=8, updates=1, warm=8, ppo=32, curve=4, episodes=2, curve_episodes=2, n_envs=2
)


def test_each_variant_differs_from_the_full_one_in_what_its_name_says():
    whole = env_kwargs("blur", "full", TINY, "train")
    differs = {v: {k for k, value in env_kwargs("blur", v, TINY, "train").items() if value != whole.get(k)} for v in VARIANTS}
    assert differs["agent labels"] == {"labels"}
    assert differs["paper's reward"] == {"reward"}
    assert differs["without SRM"] == {"labels", "srm"}
    assert differs["branches swapped"] == {"clip"}
    assert not differs["imitation alone"] | differs["without warm start"]
    assert branch("blur", "full") == branch("semantic", "branches swapped") == "implicit"
    assert all(env_kwargs(t, v, TINY, "eval")["split"] == "eval" for t in TASKS for v in VARIANTS)


def test_interquartile_means_and_their_intervals():
    assert iqm([0, 0, 1, 1, 1, 1, 5, 9]) == 1
    mean, low, high = bootstrap([[0.5, 0.6, 0.7, 0.6], [0.5, 0.6, 0.7, 0.6]])
    assert mean == pytest.approx(0.6)
    assert low < mean < high
    same, low, high = bootstrap([[0.3, 0.3], [0.3, 0.3]])
    assert [same, low, high] == pytest.approx([0.3] * 3)


def test_a_seed_of_a_task_is_run_once_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    calls, real = [], ablation.train

    def counted(task, variant, *args, **kwargs):
        calls.append(variant)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(task, variant, *args, **kwargs)

    monkeypatch.setattr(ablation, "train", counted)
    monkeypatch.setattr(ablation, "VARIANTS", {name: VARIANTS[name] for name in ("full", "without SRM")})
    with pytest.raises(KeyboardInterrupt):
        ablation.run("saliency", 1, TINY, tmp_path)
    found = ablation.run("saliency", 1, TINY, tmp_path)
    assert calls == ["full", "without SRM", "without SRM"]
    assert set(found["rows"]) == {"full", "random positions", "oracle", "without SRM"}
    assert all(np.isfinite(row["dice"]).all() and len(row["dice"]) == TINY.steps for row in found["rows"].values())
    assert len(found["curve"]["full"]["dice"]) == TINY.curve
    assert ablation.run("saliency", 1, TINY, tmp_path) == found
    with pytest.raises(ValueError, match="belongs to another budget"):
        ablation.run("saliency", 1, replace(TINY, ppo=64), tmp_path)
    (tmp_path / "saliency-1.json").unlink()
    with pytest.raises(ValueError, match="was taught something else"):
        ablation.run("saliency", 1, replace(TINY, ppo=64), tmp_path)
