import sys

import numpy as np
import pytest
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from gymnasium.error import DependencyNotInstalled
from PIL import Image
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor

from alignsam_sb3.callbacks import (
    EpisodeFilmCallback,
    MlflowCallback,
    SegmentationCallback,
    SegmentationEvalCallback,
    film_episode,
)
from alignsam_sb3.policies import SamMaskablePPO


@pytest.fixture
def model(make_env, tmp_path):
    venv = SamSegVecEnv([lambda: Monitor(make_env(max_steps=3))] * 2)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=6, batch_size=4, n_epochs=1, seed=0, device="cpu")
    model.set_logger(configure(str(tmp_path / "log"), ["csv"]))
    return model


def logged(tmp_path):
    import csv

    with (tmp_path / "log" / "progress.csv").open() as lines:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]


def test_dice_and_iou_are_logged_for_training_and_evaluation(model, make_env, tmp_path):
    held_out = SamSegVecEnv([lambda: Monitor(make_env(max_steps=3, split="eval"))])
    evaluate = SegmentationEvalCallback(held_out, n_eval_episodes=3, eval_freq=6, verbose=0)
    model.learn(24, callback=[SegmentationCallback(), evaluate])
    keys = set().union(*logged(tmp_path))
    assert {
        f"{room}/{key}" for room in ("rollout", "eval") for key in ("dice", "iou", "best_dice", "dice_salient_object")
    } <= keys
    assert all(0 <= row["eval/dice"] <= 1 for row in logged(tmp_path) if "eval/dice" in row)


def test_films_go_to_files_and_tensorboard(make_env, tmp_path):
    venv = SamSegVecEnv([lambda: Monitor(make_env(max_steps=3))] * 2)
    model = SamMaskablePPO(
        "ImplicitMaskablePolicy", venv, n_steps=6, batch_size=4, n_epochs=1, device="cpu", tensorboard_log=str(tmp_path / "tb")
    )
    env = make_env(max_steps=3, split="eval", render_mode="rgb_array").unwrapped
    model.learn(24, callback=EpisodeFilmCallback(tmp_path / "films", env, freq=12))
    with Image.open(sorted((tmp_path / "films").glob("*.gif"))[-1]) as film:
        assert film.n_frames == 4
    strip = np.asarray(Image.open(sorted((tmp_path / "films").glob("*.png"))[-1]))
    assert strip.shape == (4 * 278, 768, 3)

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(next((tmp_path / "tb").iterdir())), size_guidance={"images": 0})
    events.Reload()
    assert {"film/clicks", "film/episode"} <= set(events.Tags()["images"])


def test_mlflow_is_asked_for_kindly(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(DependencyNotInstalled, match=r"pip install .alignsam_sb3\[mlflow\]"):
        MlflowCallback()


class FakeMlflow:
    """Records what would be sent."""

    def __init__(self):
        self.said = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.said.append((name, args, kwargs))


def test_mlflow_gets_every_scalar(model, monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    model.learn(24, callback=[SegmentationCallback(), MlflowCallback("file:/nowhere")])
    names = [name for name, _, _ in fake.said]
    assert names[:4] == ["set_tracking_uri", "set_experiment", "start_run", "log_params"]
    assert names[-1] == "end_run"
    sent = set().union(*(args[0] for name, args, _ in fake.said if name == "log_metrics"))
    assert {"rollout/dice", "time/total_timesteps"} <= sent


def test_debug_maps_widen_the_films(make_env, tmp_path):
    env = make_env(clip="tiny", dataset="toy:semantic", dataset_kwargs={"n_images": 16}, render_mode="rgb_array").unwrapped
    venv = SamSegVecEnv([lambda: make_env(clip="tiny", dataset="toy:semantic", dataset_kwargs={"n_images": 16})])
    model = SamMaskablePPO("ExplicitMaskablePolicy", venv, n_steps=6, batch_size=4, seed=0, device="cpu")
    plain, told = (film_episode(model, env, seed=1, maps=maps) for maps in (False, True))
    assert len(plain) == len(told)
    assert told[0].shape[1] > plain[0].shape[1] * 1.5
    assert np.array_equal(told[0][:, : plain[0].shape[1]], plain[0])


def test_mlflow_gets_the_pictures(make_env, model, monkeypatch, tmp_path):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    env = make_env(render_mode="rgb_array", split="eval").unwrapped
    model.learn(12, callback=[EpisodeFilmCallback(tmp_path, env, 6), MlflowCallback("file:/nowhere")])
    pictures = [(args[0], kwargs) for name, args, kwargs in fake.said if name == "log_image"]
    assert pictures
    assert pictures[0][0].dtype == np.uint8
    assert pictures[0][1]["key"] == "film_clicks"
