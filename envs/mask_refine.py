"""``MaskRefine-v0``: improve a mask by a few operations, each chosen for what it would change."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from alignsam_sb3.envs.spaces import CompactBox
from gymnasium import spaces
from numpy.typing import NDArray

from alignsam_sb3.datasets import Sample
from alignsam_sb3.pictures import Picture, triptych
from alignsam_sb3.prompting.bank import open_prompt_bank
from alignsam_sb3.prompting.refinement import N_DESCRIBED, OPERATIONS, describe, mean_colour
from alignsam_sb3.rewards.network import ScoreQuery

STOP = len(OPERATIONS)
N_EFFECTS = 4
Observation = dict[str, Any]
Map = NDArray[np.float32]


class MaskRefineEnv(gym.Env[Observation, int]):
    """Each action applies one of :data:`~alignsam_sb3.prompting.refinement.OPERATIONS` to a mask's probabilities, or stops.

    The mask to begin with is the text segmenter's answer to one of ``prompts``, drawn anew each time.

    Observation (Dict), without the truth:

    - ``features``: ten numbers about the mask, four about what each operation would change, and the share of steps gone. The
      four are: how much it adds, how much it takes away, how sure the map was there, and whether that part looks like the mask
      or like the rest.
    - ``action_mask``: operations that would change nothing are forbidden.

    :param dataset: a spec
    :param split: ``"train"`` or ``"eval"``
    :param dataset_kwargs: options of the data set
    :param text_segmenter: ``clip_sam``, ``sam3:PATH`` or ``sa2va:PATH``
    :param segmenter: of ``clip_sam``
    :param clip: of ``clip_sam``
    :param prompts: what the text segmenter is asked, with ``{}`` for the category, or a file with one a line
    :param reward: ``"dice_gain"``, or ``"network"``: the gain of the reward network's score
    :param reward_network: a folder that ``python -m alignsam_sb3.rewards.network fit`` wrote
    :param max_steps: operations in an episode
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
        prompts: Sequence[str] | str = ("{}",),
        reward: str = "dice_gain",
        reward_network: str | None = None,
        max_steps: int = 4,
        device: str = "auto",
        trust_remote_code: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}")
        self.prompt_bank, config = open_prompt_bank(
            *("MaskRefine-v0", "dice_gain", dataset, split, dataset_kwargs, text_segmenter, segmenter, clip, prompts),
            *(reward, reward_network, device, trust_remote_code),
        )
        self.config = {**config, "max_steps": max_steps}
        self.render_mode, self.max_steps, self._reward = render_mode, max_steps, reward
        size = N_DESCRIBED + N_EFFECTS * len(OPERATIONS) + 1
        self.observation_space = spaces.Dict(
            {
                "features": CompactBox(-np.inf, np.inf, (size,), np.float32),
                "action_mask": spaces.MultiBinary(len(OPERATIONS) + 1),
            }
        )
        self.action_space = spaces.Discrete(len(OPERATIONS) + 1)  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        :param options: ``pair`` (image index, category id) chooses the image, ``prompt`` (its number) the mask to begin with
        """
        super().reset(seed=seed)
        given = options or {}
        pairs = self.prompt_bank.pairs
        self.pair: tuple[int, int] = given.get("pair") or pairs[int(self.np_random.integers(len(pairs)))]
        self.sample: Sample = self.prompt_bank.dataset[self.pair[0]]
        prompt = given.get("prompt")
        drawn = int(self.np_random.integers(len(self.prompt_bank.prompts))) if prompt is None else int(prompt)
        self.probability: Map = self.prompt_bank.probability(self.pair, drawn)
        self.applied: list[str] = []
        self._supplied: float | None = None
        self._look()
        self._score, self._dice = self._judge()
        return self._observe(), self._info()

    def _look(self) -> None:
        """Try all operations: what each would give, and which would change anything."""
        mask = self.probability > 0.5
        self.outcomes: list[Map] = [operate(self.probability) for operate in OPERATIONS.values()]
        self._changed = [(outcome > 0.5) != mask for outcome in self.outcomes]

    def action_masks(self) -> NDArray[np.bool_]:
        """(n_operations + 1,) False for operations that would change nothing; stopping is always allowed."""
        return np.array([*(bool(changed.any()) for changed in self._changed), True])

    def _observe(self) -> Observation:
        mask = self.probability > 0.5
        area = max(int(mask.sum()), 1)
        inside, outside = (mean_colour(self.sample.image, where) for where in (mask, ~mask))
        effects = []
        for changed in self._changed:
            added, taken = int((changed & ~mask).sum()), int((changed & mask).sum())
            sure = float(np.abs(self.probability[changed] - 0.5).mean()) if added + taken else 0.0
            colour = mean_colour(self.sample.image, changed)
            far, near = (float(np.linalg.norm(colour - other)) for other in (outside, inside))
            alike = (far - near) / max(far + near, 1e-6) if added + taken else 0.0
            effects += [min(added / area, 2.0), taken / area, sure, alike]
        gone = len(self.applied) / self.max_steps
        features = np.concatenate([describe(self.probability, self.sample.image), effects, [gone]]).astype(np.float32)
        return {"features": features, "action_mask": self.action_masks().astype(np.int8)}

    def _judge(self, score: float | None = None) -> tuple[float, float]:
        """The reward network's score and Dice of the current mask; NaN where there is no network, or no truth."""
        if score is None:
            score = float(self.prompt_bank.scores(self.pair, self.sample.image, [self.probability])[0])
        return score, self.prompt_bank.dice(self.pair, self.sample, self.probability)

    def plan(self, action: int) -> ScoreQuery | None:
        """What the reward network must be asked for this action; None where it need not be asked.

        A batched caller collects the questions of many environments, has them scored in one call and hands each its score with
        :meth:`supply` before it steps.
        """
        if int(action) == STOP or self.prompt_bank.scorer is None:
            return None
        return self.prompt_bank.query(self.pair, self.sample.image, self.outcomes[int(action)])

    def supply(self, score: float) -> None:
        """Hand over the answer to the question that :meth:`plan` described."""
        self._supplied = score

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an operation; one that the mask forbids changes nothing, but uses the step up."""
        score, dice = self._score, self._dice
        stopped = int(action) == STOP
        self.applied.append("stop" if stopped else list(OPERATIONS)[int(action)])
        if not stopped:
            self.probability = self.outcomes[int(action)]
            self._look()
            self._score, self._dice = self._judge(self._supplied)
        self._supplied = None
        gain = self._score - score if self._reward == "network" else self._dice - dice
        terminated = stopped or len(self.applied) >= self.max_steps
        return self._observe(), float(gain), terminated, False, self._info()

    def _info(self) -> dict[str, Any]:
        info = {
            "category": self.prompt_bank.dataset.categories[self.pair[1]],
            "dice": self._dice,
            "operations": list(self.applied),
        }
        if self.prompt_bank.scorer is not None:
            info["reward_net_score"] = self._score
        return info

    def render(self) -> Picture | None:
        """Photo | truth | mask, (height, 3 x width, 3) uint8."""
        if self.render_mode is None:
            return None
        return triptych(self.sample.image, self.sample.target(self.pair[1]), self.probability > 0.5, ())
