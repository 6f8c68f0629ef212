"""A fitted reward network with what it needs beside it: loading, saving, and scores of photos and masks of any size."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.fingerprints import current
from alignsam_sb3.names import nearest
from alignsam_sb3.rewards.network.frame import photo_in_frame, spoken_in_frame
from alignsam_sb3.rewards.network.model import METRICS, RewardNetwork, RewardNetworkConfig, score_of
from alignsam_sb3.weights import load_strictly, read_embedded, save_embedded

WEIGHTS = "reward_network.safetensors"
ASSETS = Path(__file__).parents[2] / "assets"
EMBEDDED = {"tiny": ASSETS / "tiny_reward.safetensors", "tiny_named": ASSETS / "tiny_reward_named.safetensors"}
"""Networks that come with the package: for the salient object, and for the named shapes of ``toy:semantic``."""


@dataclass(frozen=True)
class ScoreQuery:
    """A mask to be scored, as an environment holds it.

    :param photo: (3, s, s) uint8 in the segmenter's frame, from :meth:`RewardScorer.photo`
    :param embedding: (C, h, w)
    :param mask: (m, m) probabilities in the frame, at any resolution
    :param size: (height, width) of the image in pixels
    :param category: name of what the mask should show
    :param spoken: what language says of it, from :meth:`RewardScorer.spoken`, for a network that sees that
    """

    photo: NDArray[np.uint8]
    embedding: NDArray[np.float32]
    mask: th.Tensor
    size: tuple[int, int]
    category: str
    spoken: NDArray[np.float32] | None = None


class RewardScorer:
    """Scores masks without ground truth; frozen, one copy per process whatever the number of environments.

    :param network: the fitted network
    :param name: for messages
    """

    def __init__(self, network: RewardNetwork, name: str = "reward network", device: str | th.device = "cpu") -> None:
        self.device = th.device(device)
        self.network, self.name = network.eval().requires_grad_(False).to(self.device), name

    @property
    def config(self) -> RewardNetworkConfig:
        return self.network.config

    def check(self, categories: Sequence[str], fingerprint: str, language: str | None = None) -> None:
        """Refuse concepts that the network was not fitted on, and embeddings or maps of other models.

        :param categories: names that will be asked for
        :param fingerprint: of the segmenter
        :param language: fingerprint of the language prior with its texts, where there is one
        :raises ValueError: what came, what was expected, and what to run
        """
        fit = "fit one: python -m alignsam_sb3.rewards.network fit --dataset SPEC --segmenter SPEC --out DIR"
        for category in categories:
            if category not in self.config.categories:
                said = nearest(f"category of {self.name}", category, self.config.categories)
                raise ValueError(f"{said}. To score {category!r}, {fit}")
        if current(fingerprint) != current(self.config.fingerprint):
            raise ValueError(
                f"{self.name} was fitted on embeddings of {self.config.segmenter!r} ({self.config.fingerprint}), "
                f"and these are of {fingerprint}: take that segmenter, or {fit}"
            )
        if current(self.config.language) not in (None, current(language)):
            asked = ", ".join(map(repr, self.config.texts))
            raise ValueError(
                f"{self.name} sees what CLIP {self.config.clip!r} says of {asked} ({self.config.language}), and here is "
                f"{language or 'no language prior'}: take that CLIP, categories and prompts in SamSeg-v0, or {fit}"
            )

    def photo(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A photo (H, W, 3) as the network sees it, (3, s, s)."""
        return photo_in_frame(image, self.config.frame)

    def spoken(
        self, found: Mapping[str, NDArray[np.float32]], category: str, size: tuple[int, int]
    ) -> NDArray[np.float32] | None:
        """What a language prior says of a category, as the network sees it; None where it does not."""
        if self.config.language is None:
            return None
        return spoken_in_frame(found, self.config.categories.index(category), size, self.config.frame)

    @th.no_grad()
    def predict(
        self,
        photos: th.Tensor,
        masks: th.Tensor,
        embeddings: th.Tensor,
        sizes: NDArray[np.int64],
        categories: Sequence[str],
        spoken: th.Tensor | None = None,
    ) -> th.Tensor:
        """The predicted metrics of B masks in one call, (B, 5) in the order of :data:`METRICS`.

        :param photos: (B, 3, s, s) uint8 in the segmenter's frame, from :meth:`photo`
        :param masks: (B, m, m) probabilities in the frame, at any resolution
        :param embeddings: (B, C, h, w)
        :param sizes: (B, 2) height and width of the images in pixels
        :param categories: name of what each mask should show
        :param spoken: (B, 4, s / 4, s / 4) from :meth:`spoken`, for a network that sees what language says
        :raises ValueError: the network needs to know what language says, and is not told
        """
        side = self.config.side
        if self.config.language is not None and spoken is None:
            raise ValueError(f"{self.name} wants to know what language says of the categories: give spoken=scorer.spoken(...)")
        inside = th.from_numpy(self.config.frame.inside(sizes, side))[:, None]
        wanted = th.tensor([self.config.categories.index(category) for category in categories])
        predicted: th.Tensor = self.network(
            photos.to(self.device).float() / 255,
            on_cells(masks.to(self.device).float(), side)[:, None],
            embeddings.to(self.device).float(),
            inside.to(self.device).float(),
            wanted.to(self.device),
            None if spoken is None or self.config.language is None else spoken.to(self.device).float(),
        )[0]
        return predicted

    def score(self, queries: Sequence[ScoreQuery]) -> list[float]:
        """One number for each mask, on the scale of Dice (see :func:`~alignsam_sb3.rewards.network.model.score_of`)."""
        said = [q.spoken for q in queries if q.spoken is not None]
        predicted = self.predict(
            th.from_numpy(np.stack([q.photo for q in queries])),
            th.stack([on_cells(q.mask[None], self.config.side)[0] for q in queries]),
            th.from_numpy(np.stack([q.embedding for q in queries])),
            np.array([q.size for q in queries]),
            [q.category for q in queries],
            th.from_numpy(np.stack(said)) if len(said) == len(queries) else None,
        )
        scores: list[float] = score_of(predicted).tolist()
        return scores

    def query(self, image: NDArray[np.uint8], embedding: NDArray[np.float32], mask: NDArray[Any], category: str) -> ScoreQuery:
        """Put a mask (H, W), bool or probabilities, of a photo (H, W, 3) into the frame."""
        cells = th.from_numpy(self.config.frame.cells(mask, self.config.side)).float() / 255
        return ScoreQuery(self.photo(image), embedding, cells, (image.shape[0], image.shape[1]), category)

    def save(self, path: Path, notes: dict[str, str]) -> None:
        """Write weights (in half precision) and configuration to one safetensors file."""
        save_embedded(self.network.state_dict(), asdict(self.config), path, notes)


def on_cells(masks: th.Tensor, side: int) -> th.Tensor:
    """Maps (B, m, m) of the frame at side x side."""
    if masks.shape[-1] == side:
        return masks
    how = "area" if masks.shape[-1] > side else "bilinear"
    return th.nn.functional.interpolate(masks[:, None], (side, side), mode=how)[:, 0]


def load_scorer(where: str | Path, device: str | th.device = "auto") -> RewardScorer:
    """Load a fitted reward network.

    One copy per process, whatever the number of environments.

    :param where: ``"tiny"`` or ``"tiny_named"`` for the embedded ones (toy scenes), a folder that ``fit`` wrote, or its
        safetensors file
    :raises FileNotFoundError: there is none
    :raises ValueError: it is no reward network, or its weights are damaged
    """
    if str(device) == "auto":
        device = "cuda" if th.cuda.is_available() else "cpu"
    path = EMBEDDED.get(str(where), Path(where).expanduser())
    path = path / WEIGHTS if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"no reward network at {path}: fit one with `python -m alignsam_sb3.rewards.network fit --dataset SPEC --out DIR`"
        )
    return _load(path, path.stat().st_mtime_ns, str(where), str(device))


def embedded_for(categories: Sequence[str]) -> str:
    """Name of the embedded network that knows all of some categories; ``"tiny"`` where none does, whose check says so."""
    return next((name for name in EMBEDDED if set(categories) <= set(load_scorer(name).config.categories)), "tiny")


@lru_cache(maxsize=4)
def _load(path: Path, changed: int, where: str, device: str) -> RewardScorer:
    """One copy per process of each file, as it was when it was last written."""
    try:
        described, weights = read_embedded(path)
        config = RewardNetworkConfig(**described)
    except Exception as error:  # safetensors and json raise their own
        raise ValueError(f"{path} is no reward network ({type(error).__name__}: {error})") from error
    network = RewardNetwork(config)
    load_strictly(network, weights, path, "reward network", "reward network")
    if not all(th.isfinite(value).all() for value in weights.values()):
        raise ValueError(f"{path} has NaN or infinite weights: its fit diverged; fit it again")
    return RewardScorer(network, f"reward network {where}", device)


__all__ = ["METRICS", "RewardScorer", "ScoreQuery", "embedded_for", "load_scorer", "on_cells"]
