"""``PromptSelect-v0``: choose, image by image, how to ask a text segmenter."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.spaces import CompactBox
from gymnasium import spaces
from numpy.typing import NDArray

from alignsam_sb3.names import nearest
from alignsam_sb3.pictures import Picture, triptych
from alignsam_sb3.prompting.bank import open_prompt_bank
from alignsam_sb3.semantics import load_clip

OBSERVATIONS = ("statistics", "rich", "clip")
N_STATISTICS, N_GRADIENTS = 16, 4
N_PER_PROMPT = 3


def image_statistics(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sixteen statistics and four gradient features of an image (H, W, 3), each of the order of one: (20,).

    Means and deviations of the three channels; five quantiles, entropy and range of the grey values; mean and deviation of
    saturation; colourfulness. Mean and deviation of the gradient's length, share of strong edges, deviation of the Laplacian.
    """
    rgb = image.astype(np.float32) / 255
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    saturation = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1]
    counts = np.histogram(grey, bins=64, range=(0, 1))[0] / grey.size
    entropy = -(counts[counts > 0] * np.log(counts[counts > 0])).sum() / math.log(64)
    opponents = np.stack([rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]])
    colourful = np.linalg.norm(opponents.std((1, 2))) + 0.3 * np.linalg.norm(opponents.mean((1, 2)))
    gradient = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    values = [
        *(*rgb.mean((0, 1)), *rgb.std((0, 1))),
        *(*np.quantile(grey, (0.05, 0.25, 0.5, 0.75, 0.95)), entropy, grey.max() - grey.min()),
        *(saturation.mean(), saturation.std(), colourful),
        *(gradient.mean(), gradient.std(), (gradient > 0.5).mean(), cv2.Laplacian(grey, cv2.CV_32F).std()),
    ]
    return np.array(values, np.float32)


def answer_statistics(answers: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Of each answer (H, W): its area, how sure its outline is, and how far it agrees with the others (IoU): (3 x P,)."""
    masks = np.stack([p > 0.5 for p in answers])
    sure = [(p > 0.8).sum() / max((p > 0.2).sum(), 1) for p in answers]
    consensus = masks.mean(0) > 0.5 if len(masks) > 1 else masks[0]
    agreed = [(m & consensus).sum() / max((m | consensus).sum(), 1) for m in masks]
    return np.concatenate([masks.mean((1, 2)), sure, agreed]).astype(np.float32)


class PromptSelectEnv(gym.Env[NDArray[np.float32], int]):
    """Each action picks one of the candidate prompts for the image at hand; then comes the next image.

    The text segmenter is frozen, so all answers are collected once and a step is a look-up. Observation: sixteen image
    statistics, four gradient features and the progress within the episode (21,); ``"rich"`` adds three numbers for each
    prompt's answer, ``"clip"`` these and CLIP's feature of the image. Ground truth is not in it.

    :param dataset: a spec
    :param split: ``"train"`` or ``"eval"``
    :param dataset_kwargs: options of the data set
    :param text_segmenter: ``clip_sam``, ``sam3:PATH`` or ``sa2va:PATH``
    :param segmenter: of ``clip_sam``
    :param clip: of ``clip_sam``, and of the observation ``"clip"``
    :param prompts: candidates with ``{}`` for the category, or a file with one a line; by default eleven for any concept
    :param reward: ``"dice"``: Dice of the chosen mask; ``"network"``: the reward network's score of it
    :param reward_network: a folder that ``python -m alignsam_sb3.rewards.network fit`` wrote
    :param images_per_episode: images after one another
    :param observation: ``"statistics"``, ``"rich"`` or ``"clip"``
    :param trust_remote_code: run the code that comes with Sa2VA
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self,
        dataset: str = "toy:vessels",
        split: str = "train",
        dataset_kwargs: Mapping[str, Any] | None = None,
        text_segmenter: str = "clip_sam",
        segmenter: str = "tiny",
        clip: str = "tiny",
        prompts: Sequence[str] | str | None = None,
        reward: str = "dice",
        reward_network: str | None = None,
        images_per_episode: int = 10,
        observation: str = "statistics",
        device: str = "auto",
        trust_remote_code: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if observation not in OBSERVATIONS:
            raise ValueError(nearest("observation of PromptSelect-v0", observation, OBSERVATIONS))
        if images_per_episode < 1:
            raise ValueError(f"images_per_episode must be at least 1, got {images_per_episode}")
        self.render_mode, self.images_per_episode = render_mode, images_per_episode
        self.prompt_bank, config = open_prompt_bank(
            *("PromptSelect-v0", "dice", dataset, split, dataset_kwargs, text_segmenter, segmenter, clip, prompts),
            *(reward, reward_network, device, trust_remote_code),
        )
        self.config = {**config, "images_per_episode": images_per_episode, "observation": observation}
        self._reward, self._rich = reward, observation in ("rich", "clip")
        self._clip = load_clip(clip, device) if observation == "clip" else None
        count = len(self.prompt_bank.prompts)
        size = N_STATISTICS + N_GRADIENTS + 1 + (N_PER_PROMPT * count if self._rich else 0)
        size += 0 if self._clip is None else len(self._clip.text_features([""])[0])
        self.observation_space = CompactBox(-np.inf, np.inf, (size,), np.float32)  # type: ignore[assignment]
        self.action_space = spaces.Discrete(count)  # type: ignore[assignment]
        self._known: dict[tuple[int, int], tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]] = {}
        self._queue: list[tuple[int, int]] = []
        self._results: list[tuple[float, float]] = []
        self._chosen = 0

    def look_up(self, pair: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
        """What is seen of a pair of image and category, and the scores (P,) and Dice (P,) of all answers; computed once."""
        if pair not in self._known:
            sample = self.prompt_bank.dataset[pair[0]]
            answers = [self.prompt_bank.probability(pair, k) for k in range(len(self.prompt_bank.prompts))]
            seen = image_statistics(sample.image)
            if self._rich:
                seen = np.concatenate([seen, answer_statistics(answers)])
            if self._clip is not None:
                seen = np.concatenate([seen, self._clip.image_features([sample.image])[0, 0].cpu().numpy()])
            dice = np.array([self.prompt_bank.dice(pair, sample, p) for p in answers])
            self._known[pair] = (seen, self.prompt_bank.scores(pair, sample.image, answers), dice)
        return self._known[pair]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start an episode; ``options={"pairs": [(image index, category id), ...]}`` chooses its images."""
        super().reset(seed=seed)
        pairs = self.prompt_bank.pairs
        drawn = self.np_random.choice(len(pairs), self.images_per_episode, replace=len(pairs) < self.images_per_episode)
        self._queue = list((options or {}).get("pairs") or [pairs[k] for k in drawn])
        self._results = []
        return self._observe(), {}

    @property
    def pair(self) -> tuple[int, int]:
        """Image and category at hand; after the last step of an episode the last ones."""
        return self._queue[min(len(self._results), len(self._queue) - 1)]

    def _observe(self) -> NDArray[np.float32]:
        seen = self.look_up(self.pair)[0]
        progress = np.float32(len(self._results) / len(self._queue))
        return np.concatenate([seen[: N_STATISTICS + N_GRADIENTS], [progress], seen[N_STATISTICS + N_GRADIENTS :]]).astype(
            np.float32
        )

    def step(self, action: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        pair, self._chosen = self.pair, int(action)
        _, scores, dice = self.look_up(pair)
        score, truth = float(scores[self._chosen]), float(dice[self._chosen])
        self._results.append((score, truth))
        terminated = len(self._results) == len(self._queue)
        mean_score, mean_dice = np.mean(self._results, axis=0).tolist()
        info = {
            "prompt": self.prompt_bank.prompts[self._chosen].replace("{}", self.prompt_bank.dataset.categories[pair[1]]),
            "category": self.prompt_bank.dataset.categories[pair[1]],
            "dice": mean_dice,  # of the episode so far
        }
        if self.prompt_bank.scorer is not None:
            info["reward_net_score"] = mean_score
        return self._observe(), score if self._reward == "network" else truth, terminated, False, info

    def render(self) -> Picture | None:
        """Photo | truth | the last answer, (height, 3 x width, 3) uint8."""
        if self.render_mode is None:
            return None
        pair = self._queue[max(len(self._results) - 1, 0)]
        sample = self.prompt_bank.dataset[pair[0]]
        mask = self.prompt_bank.probability(pair, self._chosen) > 0.5
        return triptych(sample.image, sample.target(pair[1]), mask, ())
