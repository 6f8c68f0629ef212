"""A frozen CLIP that says where a text is in an image, and how much it is there at all."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import open_clip
import torch as th
from numpy.typing import NDArray
from open_clip.model import CLIP
from PIL import Image
from torch.nn import functional as F

from alignsam_sb3.fingerprints import digest, structure
from alignsam_sb3.semantics.clip_surgery import N_DUAL, check_tower, feature_surgery, similarity_maps, surgery_tokens
from alignsam_sb3.semantics.prompts import TEMPLATES

logger = logging.getLogger(__name__)

SEMANTICS_VERSION = 2
_NAMED, _SHOWN = 10, 60  # texts in a warning, and characters of each


@dataclass(frozen=True)
class SimilarityMaps:
    """What CLIP Surgery says of B images and N texts.

    :param maps: (B, N, g_h, g_w) in [0, 1] over the whole image, squashed to the grid. Each map has a 0 and a 1, so it says
        where, not whether. Where all places are alike it is 0.5 everywhere
    :param scores: (B, N) absolute: the mean of the text's cosines with the class token and with the place that it suits
        best; low for what is not shown. (On toy scenes the mean tells presence better than either.)
    :param cosines: (B, N, g_h, g_w) absolute: of each text with each place, before any surgery on features. They can be
        compared between texts and places. The maps cannot, since each is stretched to its own 0 and 1
    """

    maps: th.Tensor
    scores: th.Tensor
    cosines: th.Tensor


class ClipSurgery:
    """CLIP Surgery (arXiv 2304.05653) on any open_clip ViT.

    :param clip: the model; it is frozen, set to eval mode and single precision and moved to the device, and no weight changes
    :param tokenize: turns texts into token ids, given ``context_length``
    :param image_size: side of the square that images are squashed to, in pixels; by default the model's own
    :param n_dual: blocks with a second path; the paper's 6, or all of a shallower tower
    :param name: for messages
    :param known_tokens: ids of the tokens that it was trained with; texts with others are warned of. None: all
    :raises TypeError: surgery is not defined for its image tower
    :raises ValueError: a weight is NaN or infinite, or the size is no multiple of the patch
    """

    def __init__(
        self,
        clip: CLIP,
        tokenize: Callable[..., th.Tensor],
        image_size: int | None = None,
        n_dual: int = N_DUAL,
        device: str | th.device = "auto",
        name: str = "clip",
        known_tokens: frozenset[int] | None = None,
    ) -> None:
        if str(device) == "auto":
            device = "cuda" if th.cuda.is_available() else "cpu"
        self.device, self.name, self.n_dual = th.device(device), name, n_dual
        visual = check_tower(clip.visual)
        size, patch = image_size or int(visual.image_size[0]), int(visual.patch_size[0])
        if size % patch:
            near = max(round(size / patch), 1) * patch
            raise ValueError(f"CLIP {name!r} has patches of {patch} pixels, and {size} is no multiple of that: take {near}")
        broken = [key for key, value in clip.state_dict().items() if not th.isfinite(value).all()]
        if broken:
            raise ValueError(
                f"CLIP {name!r} has NaN or infinite weights ({len(broken)} tensors, first {broken[0]!r}): damaged?"
            )
        self.clip, self._tokenize = clip.eval().requires_grad_(False).float().to(self.device), tokenize
        self.image_size, self.grid = size, (size // patch, size // patch)
        mean = getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN
        std = getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD
        self._mean, self._std = (th.tensor(v, device=self.device).reshape(3, 1, 1) for v in (mean, std))
        self._text_features: dict[str, th.Tensor] = {}
        self._known = known_tokens
        self._warned: set[str] = set()
        self._cut: dict[str, bool] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever a map would."""
        pixels = [self._mean.flatten().tolist(), self._std.flatten().tolist()]
        said = [structure(self.clip), self.image_size, self.n_dual, pixels, TEMPLATES, SEMANTICS_VERSION]
        return f"clip-{digest(self.clip.state_dict(), *said)}"

    def _preprocess(self, image: NDArray[np.uint8]) -> th.Tensor:
        """Squash to a square (the aspect ratio is lost, nothing is cropped) and normalise: (3, n, n)."""
        squashed = np.array(Image.fromarray(image).resize((self.image_size,) * 2, Image.Resampling.BICUBIC))
        pixels = th.as_tensor(squashed, device=self.device).permute(2, 0, 1).float() / 255
        return (pixels - self._mean) / self._std

    @th.no_grad()
    def image_features(self, images: Sequence[NDArray[np.uint8]]) -> th.Tensor:
        """Normalised tokens (B, 1 + g_h g_w, D) of RGB images (H_i, W_i, 3) uint8 of any sizes, the class token first."""
        batch = th.stack([self._preprocess(image) for image in images])
        with th.backends.cudnn.flags(allow_tf32=False):  # TF32 has half precision's mantissa
            tokens, _ = surgery_tokens(self.clip.visual, batch, self.n_dual)
        return F.normalize(tokens, dim=-1)

    @th.no_grad()
    def text_features(self, texts: Sequence[str]) -> th.Tensor:
        """Normalised ensemble features (N, D): each text in all 85 templates, averaged. Computed once per string."""
        self._warn_of_cut([text for text in texts if text not in self._text_features and text not in self._warned])
        for text in dict.fromkeys(texts):
            if text not in self._text_features:
                tokens = self._tokens(_in_templates(text)).to(self.device)
                features = F.normalize(self.clip.encode_text(tokens), dim=-1)
                self._text_features[text] = F.normalize(features.mean(0), dim=-1)
        return th.stack([self._text_features[text] for text in texts])

    def check_words(self, texts: Sequence[str]) -> None:
        """Warn of texts that are cut, and of words that the model was never taught (known of an embedded one only)."""
        self._warn_of_cut(texts)
        if self._known is None:
            return
        strange = [
            text for text in dict.fromkeys(texts) if not self._known.issuperset(self._tokens([text]).flatten().tolist())
        ]
        if strange:
            logger.warning(
                "CLIP %r was never taught all words of %s: its maps for %s mean little. Ask for them in words that it knows "
                "(prompts={CATEGORY: 'other words'}), or name another CLIP (clip='ViT-B-16-quickgelu:openai')",
                self.name,
                _listed(strange),
                "it" if len(strange) == 1 else "them",
            )

    def _tokens(self, texts: Sequence[str], more: int = 0) -> th.Tensor:
        """Token ids (N, context length), or so many more of each text than the model reads."""
        return self._tokenize(list(texts), context_length=self.clip.context_length + more)

    def _is_cut(self, text: str) -> bool:
        """Whether a text is too long in any template; to ask takes some milliseconds, so the answer is kept."""
        if text not in self._cut:
            self._cut[text] = bool(self._tokens(_in_templates(text), 1)[:, -1].any())
        return self._cut[text]

    def _warn_of_cut(self, texts: Sequence[str]) -> None:
        """Name the texts of which the model does not read the end, in one template or another."""
        cut = [text for text in dict.fromkeys(texts) if self._is_cut(text)]
        self._warned.update(cut)
        if cut:
            logger.warning(
                "CLIP %r reads no more than %d tokens, templates included: the end of %s is cut off. Say it in fewer words",
                self.name,
                self.clip.context_length,
                _listed(cut),
            )

    @th.no_grad()
    def similarity(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str], redundant: bool | None = None
    ) -> SimilarityMaps:
        """Where each text is in each image.

        :param texts: categories or phrases; they are compared with each other
        :param redundant: compare each text with the empty one instead; always so for a single text
        """
        if not texts or not images:
            raise ValueError(f"similarity maps need images and texts, got {len(images)} images and {len(texts)} texts")
        tokens, features = self.image_features(images), self.text_features(texts)
        alone = len(texts) == 1 if redundant is None else redundant
        similarity = feature_surgery(tokens, features, self.text_features([""]) if alone else None)
        cosines = tokens @ features.T
        scores = (cosines[:, 0] + cosines[:, 1:].amax(1)) / 2
        places = cosines[:, 1:].transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        return SimilarityMaps(similarity_maps(similarity[:, 1:], self.grid), scores, places)


def _in_templates(text: str) -> list[str]:
    return [template.format(text) for template in TEMPLATES]


def _listed(texts: Sequence[str]) -> str:
    """Some texts, none of them longer than a line."""
    shown = [repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...") for text in texts[:_NAMED]]
    return ", ".join(shown) + (f" and {len(texts) - _NAMED} others" if len(texts) > _NAMED else "")


class LanguagePrior:
    """One CLIP asked for one list of texts; what a FeatureBank keeps of each image.

    :param texts: one for each category, in its order
    """

    kind = "language"

    def __init__(self, clip: ClipSurgery, texts: Sequence[str]) -> None:
        self.clip, self.texts = clip, tuple(texts)

    @property
    def fingerprint(self) -> str:
        return f"{self.clip.fingerprint}-{hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()[:16]}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays that :meth:`describe` gives, for one image."""
        maps = (len(self.texts), *self.clip.grid)
        return {"similarity_maps": maps, "cosine_maps": maps, "scores": (len(self.texts),)}

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> Mapping[str, th.Tensor]:
        """Maps and cosines (B, N, g_h, g_w) over the squashed image, and scores (B, N)."""
        found = self.clip.similarity(images, self.texts)
        return {"similarity_maps": found.maps, "cosine_maps": found.cosines, "scores": found.scores}
