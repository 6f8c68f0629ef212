"""Task: every option of ``SamSeg-v0`` once, read by environments, evaluation, saved policies and command lines alike."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from alignsam_sb3.datasets import SegmentationDataset
from alignsam_sb3.device_bank import PLACES
from alignsam_sb3.names import nearest
from alignsam_sb3.rewards import Reward, make_reward, uses_ground_truth
from alignsam_sb3.rewards.network import RewardScorer
from alignsam_sb3.segmenters import PromptableSegmenter
from alignsam_sb3.semantics import ClipSurgery

LABELS = ("agent", "srm", "positive", "oracle-train-only")
BOXES = ("clip", "truth-jittered-train-only")
ON_ERROR = ("skip", "raise")
LONGEST = 10_000  # clicks


@dataclass(frozen=True)
class Task:
    """What is segmented, with what, and what an agent may do.

    :param dataset: a spec (``toy:semantic``, ``coco:ROOT``) or a data set
    :param split: ``"train"`` or ``"eval"``
    :param dataset_kwargs: options of the data set
    :param segmenter: a spec (``tiny``, ``vit_b:PATH``) or a segmenter
    :param clip: the language prior, a spec (``tiny``, ``ViT-B-16-quickgelu:openai``) or a ClipSurgery; None for none
    :param prompts: what to ask the prior for a category, where its name does not say it: ``{"disc": "something round"}``
    :param reward: ``"dice_gain"``, ``"shaped"`` or ``"paper"``, which look at the truth, ``"network"``, which does not, or a
        function of a :class:`~alignsam_sb3.rewards.RewardContext`
    :param reward_network: scores every mask (``info["reward_net_score"]``), as a reward or beside one. A folder that
        ``python -m alignsam_sb3.rewards.network fit`` wrote, a RewardScorer, or ``tiny`` or ``tiny_named``, which are embedded
        and for toy scenes. With the reward ``"network"`` the default is the embedded one that knows the categories
    :param max_steps: clicks in an episode
    :param patches: cells along each axis of the grid
    :param labels: who says whether a click is positive: ``"agent"``; ``"srm"``, the recalibration module's map at that place;
        ``"positive"``, always; ``"oracle-train-only"``, the truth, which evaluation refuses. With all but ``"agent"`` an
        action is a position only: of each cell's two actions the mask allows one
    :param srm: hand out ``foreground_map`` (h, w) in [0, 1], where the policy's recalibration module sees the target; 0.5
        everywhere before there is one. ``labels="srm"`` implies it
    :param initial_pair: begin with one positive and one negative click (AlignSAM, section 4.1). In training they are random
        ones of the truth, in evaluation the map's most and least certain places. Every split but ``"train"`` is evaluation
    :param box: begin with a box: ``"clip"``, around what the language prior sees, or ``"truth-jittered-train-only"``, the
        truth's, moved a little, which evaluation refuses
    :param remove: offer an action that takes the last click back
    :param done: offer an action that ends the episode
    :param click_cost: what each click, and each one taken back, takes from the reward, so that stopping can pay
    :param absent: share of episodes whose target is not in the image. Right is then ``done`` at once: an empty mask has a Dice
        of 1, any other one of 0
    :param on_error: ``"skip"`` leaves out images that cannot be read, ``"raise"`` names them
    :param device: where the frozen models run
    :param bank: where their answers are kept: ``"device"``, ``"host"``, or ``"auto"``, on the device if they fit
    :raises ValueError: an option does not exist or does not go with another one
    """

    dataset: str | SegmentationDataset = "toy:semantic"
    split: str = "train"
    dataset_kwargs: Mapping[str, Any] = field(default_factory=dict)
    segmenter: str | PromptableSegmenter = "tiny"
    clip: str | ClipSurgery | None = "tiny"
    prompts: Mapping[str, str] = field(default_factory=dict)
    reward: str | Reward = "dice_gain"
    reward_network: str | RewardScorer | None = None
    max_steps: int = 5
    patches: int = 8
    labels: str = "agent"
    srm: bool = False
    initial_pair: bool = False
    box: str | None = None
    remove: bool = False
    done: bool = False
    click_cost: float = 0.0
    absent: float = 0.0
    on_error: str = "raise"
    device: str = "auto"
    bank: str = "auto"

    def __post_init__(self) -> None:
        for name in ("dataset_kwargs", "prompts"):  # None is what a hyperparameter file says for nothing
            if not isinstance(getattr(self, name) or {}, Mapping):
                raise ValueError(f"{name} is a dict of names and values, got {str(getattr(self, name))[:60]!r}")
            object.__setattr__(self, name, dict(getattr(self, name) or {}))
        for name, known in (("labels", LABELS), ("on_error", ON_ERROR), ("bank", PLACES)):
            if getattr(self, name) not in known:
                raise ValueError(nearest(name, getattr(self, name), known))
        if self.box is not None and self.box not in BOXES:
            raise ValueError(nearest("box", self.box, BOXES))
        if not isinstance(self.max_steps, int) or not 1 <= self.max_steps <= LONGEST:
            raise ValueError(f"max_steps must be a whole number between 1 and {LONGEST}, got {str(self.max_steps)[:60]!r}")
        make_reward(self.reward)
        if not isinstance(self.click_cost, int | float) or not 0 <= self.click_cost < 1:
            raise ValueError(f"click_cost is in units of the reward, at least 0 and below 1, got {self.click_cost!r}")
        self._check_combinations()
        self._check_absent()

    def _check_combinations(self) -> None:
        if self.prompts and self.clip is None:
            raise ValueError("prompts are asked of a language prior, and there is none: give clip, for example clip='tiny'")
        if self.box == "clip" and self.clip is None:
            raise ValueError("box='clip' takes the box from a language prior, and there is none: give clip='tiny'")
        if self.initial_pair and self.remove:
            raise ValueError("initial_pair and remove do not go together: one half of the pair could be taken back")
        if self.labels == "oracle-train-only" and self.split != "train":
            raise ValueError(
                "labels='oracle-train-only' looks at the truth, which evaluation must not: evaluate with labels='positive', "
                "or with labels='srm' where the policy has a recalibration module (srm=True)"
            )
        if self.box == "truth-jittered-train-only" and self.split != "train":
            raise ValueError("box='truth-jittered-train-only' looks at the truth, which evaluation must not: take box='clip'")
        self.check_truth(self.may_begin_from_truth)

    def _check_absent(self) -> None:
        if not 0 <= self.absent < 1:
            raise ValueError(f"absent is a share of the episodes, at least 0 and below 1, got {self.absent!r}")
        if not self.absent:
            return
        if not self.done:
            raise ValueError("with absent > 0 an agent must be able to say that nothing is there: give done=True")
        if self.clip is None:
            raise ValueError("with absent > 0 an agent must be told what to look for: give clip, for example clip='tiny'")
        if self.initial_pair or self.box:
            raise ValueError("with absent > 0 an episode cannot begin with a pair or a box: the target may not be there")
        if self.reward == "network":
            raise ValueError("the reward network scores masks of what is there: with absent > 0 take reward='dice_gain'")

    def check_truth(self, allowed: bool) -> None:
        """Refuse what takes clicks, labels or boxes from the truth where the task must not look at it, or has none.

        :param allowed: whether it may
        """
        if allowed:
            return
        if "truth" in str(self.box) or self.labels == "oracle-train-only":
            name = "labels" if self.labels == "oracle-train-only" else "box"
            raise ValueError(
                f"{name}={getattr(self, name)!r} asks the truth, at which this task does not look (no masks, or a reward "
                "that uses none): take labels='agent' and no box"
            )
        if self.initial_pair and not self.wants_srm:
            raise ValueError("initial_pair takes the map's extremes where it may not see the truth: give srm=True")

    @property
    def wants_srm(self) -> bool:
        """Whether observations hold the recalibration module's map."""
        return self.srm or self.labels == "srm"

    @property
    def uses_ground_truth(self) -> bool:
        """Whether the reward does; a warm start must not, where it does not."""
        return uses_ground_truth(make_reward(self.reward))

    @property
    def may_begin_from_truth(self) -> bool:
        """Whether first clicks may be drawn from the truth: in training, where the reward looks at it anyway."""
        return self.split == "train" and self.uses_ground_truth

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> "Task":  # noqa: ANN401
        """A task of keyword arguments.

        :raises ValueError: there is no such option; the nearest one is named
        """
        known = [f.name for f in fields(cls)]
        for name in kwargs:
            if name not in known:
                raise ValueError(nearest("option of SamSeg-v0", name, known))
        return cls(**kwargs)

    def to_json(self) -> dict[str, Any]:
        """Plain values that say how to make the same task again; they are stored with a policy.

        Objects are named by their fingerprints; ``split``, ``device`` and ``bank`` are not part of what was learned.
        """
        out = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("split", "device", "bank")}
        for name in ("dataset", "segmenter"):
            out[name] = out[name] if isinstance(out[name], str) else out[name].fingerprint
        out["clip"] = out["clip"].name if isinstance(self.clip, ClipSurgery) else self.clip
        out["reward"] = self.reward if isinstance(self.reward, str) else getattr(self.reward, "__name__", "a function")
        out["reward_network"] = self.reward_network if isinstance(self.reward_network, str) else None
        return out

    def for_evaluation(self, **changes: Any) -> "Task":  # noqa: ANN401
        """The same on the evaluation split, where nothing comes from the truth.

        :param changes: further options to change
        """
        own: dict[str, Any] = {"split": "eval"}
        if self.labels == "oracle-train-only":
            own["labels"] = "srm" if self.srm else "positive"
        if self.box == "truth-jittered-train-only":
            own["box"] = None if self.clip is None else "clip"
        return replace(self, **{**own, **changes})


def merge_options(first: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a task with others over them; options of another kind of data set are left out.

    :param first: as a file or a policy says
    :param then: as the command line says
    """
    merged = {**first, **then}
    kinds = {str(kwargs.get("dataset", "")).partition(":")[0] for kwargs in (first, merged)}
    options = [kwargs.get("dataset_kwargs") or {} for kwargs in (first, then)]
    if any(options):
        merged["dataset_kwargs"] = {**options[0], **options[1]} if len(kinds) == 1 else dict(options[1])
    return merged
