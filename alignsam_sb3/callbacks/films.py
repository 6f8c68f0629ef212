"""Films of episodes: a click-by-click strip and a video, to TensorBoard and to files."""

from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image as PilImage
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Image, TensorBoardOutputFormat

from alignsam_sb3.envs.sam_seg import SamSegEnv
from alignsam_sb3.pictures import Picture, caption, save_picture
from alignsam_sb3.policies import attach_recalibration

NOT_TEXT = ("stdout", "log", "json", "csv")  # outputs that cannot take a picture


class Predicts(Protocol):
    """Anything with SB3's ``predict``."""

    def predict(self, observation: Any, *, deterministic: bool = False) -> tuple[Any, Any]: ...  # noqa: ANN401


def film_episode(model: Predicts, env: SamSegEnv, seed: int, maps: bool = False) -> list[Picture]:
    """Play one episode and take a picture (photo | truth | prediction with clicks) before and after each step.

    :param maps: show what the agent sees, too: the mask's probability and the similarity map
    """
    observation, info = env.reset(seed=seed)
    frames = [_frame(env, f"{info['category']}: before the first click", maps)]
    done = False
    while not done:
        action, _ = model.predict({key: np.asarray(value)[None] for key, value in observation.items()}, deterministic=True)
        observation, _, terminated, truncated, info = env.step(int(action[0]))
        said = f"Dice {info['dice']:.3f}" if env.labelled else f"score {info['reward_net_score']:.3f}"
        frames.append(_frame(env, f"step {int(observation['num_steps'][0])}: {said}", maps))
        done = terminated or truncated
    return frames


def _frame(env: SamSegEnv, text: str, maps: bool) -> Picture:
    picture = env.render()
    if picture is None:
        raise ValueError("films need an environment with render_mode='rgb_array'")
    framed = caption(picture, text)
    return np.concatenate([framed, env.render_maps()], axis=1) if maps else framed


def encode_film(frames: list[Picture], seconds_per_frame: float = 0.8) -> bytes:
    """An animated GIF."""
    first, *rest = [PilImage.fromarray(frame) for frame in frames]
    memory = BytesIO()
    first.save(memory, "GIF", save_all=True, append_images=rest, duration=int(seconds_per_frame * 1000), loop=0)
    return memory.getvalue()


def film_to_tensorboard(writer: TensorBoardOutputFormat, tag: str, frames: list[Picture], step: int) -> None:
    """Log a film; torch's own ``add_video`` needs a MoviePy older than 2."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    height, width = frames[0].shape[:2]
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_film(frames))
    file_writer: Any = writer.writer._get_file_writer()  # type: ignore[no-untyped-call]
    file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


class EpisodeFilmCallback(BaseCallback):
    """Films one evaluation episode every ``freq`` steps and at the end of training.

    Writes ``<folder>/<steps>.png`` (click by click) and ``<folder>/<steps>.gif``, and the same to TensorBoard.

    :param folder: where the files go
    :param env: the environment to play in, with ``render_mode="rgb_array"`` and never trained on
    :param freq: environment steps between films
    :param seed: which episode
    :param maps: show the mask's probability and the similarity map beside the clicks
    """

    def __init__(self, folder: str | Path, env: SamSegEnv, freq: int, seed: int = 0, maps: bool = False) -> None:
        super().__init__()
        self.maps = maps
        self.folder, self.env, self.freq, self.seed = Path(folder), env, max(freq, 1), seed
        self._next = 0

    def _init_callback(self) -> None:
        attach_recalibration(self.model, self.env)

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self.freq
            self.film()
        return True

    def _on_training_end(self) -> None:
        self.film()
        self.logger.dump(self.num_timesteps)  # nobody else dumps after the last rollout

    def film(self) -> None:
        """Play, write and log one episode."""
        frames = film_episode(self.model, self.env, self.seed, self.maps)
        strip = np.concatenate(frames)
        save_picture(strip, self.folder / f"{self.num_timesteps:08d}.png")
        (self.folder / f"{self.num_timesteps:08d}.gif").write_bytes(encode_film(frames))
        self.logger.record("film/clicks", Image(strip, "HWC"), exclude=NOT_TEXT)
        for output in self.logger.output_formats:
            if isinstance(output, TensorBoardOutputFormat):
                film_to_tensorboard(output, "film/episode", frames, self.num_timesteps)
