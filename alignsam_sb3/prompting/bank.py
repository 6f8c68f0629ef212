"""What the environments around a text segmenter share: images, answers to prompts, and who judges the masks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3 import metrics
from alignsam_sb3.datasets import Sample, SegmentationDataset, load_dataset
from alignsam_sb3.features import FeatureBank, SegmenterSource, build_bank
from alignsam_sb3.names import nearest
from alignsam_sb3.prompting.cache import PredictionCache, build_cache
from alignsam_sb3.prompting.clip_sam import load_text_segmenter
from alignsam_sb3.prompting.text import TextSegmenter
from alignsam_sb3.rewards.network import RewardScorer, ScoreQuery, load_scorer
from alignsam_sb3.segmenters import load_segmenter

PROMPTS = (
    *("{}", "the {}", "a photo of the {}", "every {}", "the whole {}", "the largest {}", "the most visible {}"),
    *("the {} in the middle", "the dark {}", "the bright {}", "the {} and all its parts"),
)
"""Eleven ways to ask for any concept."""


@dataclass(frozen=True)
class PromptBank:
    """A data set with the answers of a text segmenter to prompts, and what judges masks.

    :param pairs: (image index, category id) of all that can be asked for
    :param prompts: with ``{}`` where the category's name goes
    :param table: answers to every prompt of every category, category by category
    :param scorer: the reward network, where there is one
    :param bank: embeddings for it
    """

    dataset: SegmentationDataset
    pairs: tuple[tuple[int, int], ...]
    prompts: tuple[str, ...]
    table: PredictionCache
    scorer: RewardScorer | None
    bank: FeatureBank | None

    @property
    def labelled(self) -> bool:
        """Whether the data set has ground truth."""
        return bool(getattr(self.dataset, "labelled", True))

    def probability(self, pair: tuple[int, int], prompt: int) -> NDArray[np.float32]:
        """The text segmenter's answer (H, W) on an image to a prompt for a category."""
        return self.table[pair[0], pair[1] * len(self.prompts) + prompt].probability

    def scores(
        self, pair: tuple[int, int], image: NDArray[np.uint8], probabilities: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float64]:
        """What the reward network says of some masks of one image; NaN where there is no network."""
        if self.scorer is None or self.bank is None:
            return np.full(len(probabilities), np.nan)
        return np.array(self.scorer.score([self.query(pair, image, p) for p in probabilities]))

    def query(self, pair: tuple[int, int], image: NDArray[np.uint8], probability: NDArray[np.float32]) -> ScoreQuery:
        """A mask of an image as the reward network, which there must be, is asked about it."""
        assert self.scorer is not None
        assert self.bank is not None
        embedding, category = self.bank[pair[0]]["embeddings"], self.dataset.categories[pair[1]]
        return self.scorer.query(image, embedding, probability, category)

    def dice(self, pair: tuple[int, int], sample: Sample, probability: NDArray[np.float32]) -> float:
        """Dice of a mask; NaN where there is no truth."""
        if not sample.labelled:
            return float("nan")
        return metrics.dice(probability > 0.5, sample.target(pair[1]), sample.valid_for(pair[1]))


def read_prompts(prompts: Sequence[str] | str | Path | None) -> tuple[str, ...]:
    """A list of prompts as it is, those in a file (one a line), or the eleven default ones."""
    if prompts is None:
        return PROMPTS
    if not isinstance(prompts, str | Path):
        return tuple(prompts)
    path = Path(prompts).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file of prompts at {path}: one prompt a line is expected, {{}} for the category's name")
    return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())


def answer(
    dataset: SegmentationDataset,
    segmenter: TextSegmenter,
    prompts: Sequence[str] | str | Path | None,
    scorer: RewardScorer | None,
    device: str = "auto",
) -> PromptBank:
    """Ask the text segmenter (or open what it answered before), and embed the images for the reward network."""
    asked = read_prompts(prompts)
    if not asked:
        raise ValueError("there are no prompts to choose from")
    texts = [prompt.replace("{}", category) for category in dataset.categories for prompt in asked]
    table = build_cache(dataset, segmenter, texts)
    bank = None
    if scorer is not None:
        model = load_segmenter(scorer.config.segmenter, device)
        scorer.check(dataset.categories, model.fingerprint)
        bank = build_bank(dataset, SegmenterSource(model), on_error="skip")
    usable = table.usable if bank is None else table.usable & bank.usable
    pairs = tuple((int(i), c) for c, images in enumerate(dataset.images_by_category) for i in images if usable[i])
    return PromptBank(dataset, pairs, asked, table, scorer, bank)


def open_prompt_bank(
    env: str,
    by_truth: str,
    dataset: str,
    split: str,
    dataset_kwargs: Mapping[str, Any] | None,
    text_segmenter: str,
    segmenter: str,
    clip: str,
    prompts: Sequence[str] | str | Path | None,
    reward: str,
    reward_network: str | None,
    device: str,
    trust_remote_code: bool,
) -> tuple[PromptBank, dict[str, Any]]:
    """The same for spec strings, with what a training that goes on needs to make the same task again: plain values.

    Equal arguments give one object per process.

    :param env: the environment, for messages
    :param by_truth: the reward that needs ground truth; ``"network"`` is the other
    :raises ValueError: there is no such reward, or it lacks its network or its truth
    """
    if reward not in (by_truth, "network"):
        raise ValueError(nearest(f"reward of {env}", reward, (by_truth, "network")))
    if reward == "network" and reward_network is None:
        raise ValueError(
            "the reward 'network' needs reward_network='DIR': fit one with `python -m alignsam_sb3.rewards.network fit "
            f"--dataset {dataset} --out DIR`, or take reward={by_truth!r}"
        )
    prompts = str(prompts) if isinstance(prompts, Path) else prompts
    task = {
        "dataset": dataset,
        "dataset_kwargs": dict(dataset_kwargs or {}),
        "text_segmenter": text_segmenter,
        "segmenter": segmenter,
        "clip": clip,
        "prompts": prompts if isinstance(prompts, str | None) else list(prompts),
    }
    answered = _open_prompt_bank(split, json.dumps(task), reward_network, device, trust_remote_code)
    if reward == by_truth and not answered.labelled:
        raise ValueError(f"the reward {by_truth!r} needs ground truth, and {dataset} has none: take reward='network'")
    return answered, {**task, "reward": reward, "reward_network": reward_network}


@lru_cache(maxsize=8)
def _open_prompt_bank(split: str, asked: str, reward_network: str | None, device: str, trust_remote_code: bool) -> PromptBank:
    task = json.loads(asked)
    scorer = None if reward_network is None else load_scorer(reward_network, device)
    model = load_text_segmenter(task["text_segmenter"], task["segmenter"], task["clip"], device, trust_remote_code)
    return answer(load_dataset(task["dataset"], split, **task["dataset_kwargs"]), model, task["prompts"], scorer, device)
