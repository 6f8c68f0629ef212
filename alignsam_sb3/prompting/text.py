"""Segmenters that are asked in words, and Sa2VA behind that contract."""

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextAnswer:
    """The answer to one text on one image.

    :param probability: (H, W) float32 in [0, 1], in the image; the mask is where it is above one half
    :param found: False where the segmenter answered without a mask, or failed; the mask is empty then
    :param failed: it gave no answer; a table of answers asks again another time
    """

    probability: NDArray[np.float32]
    found: bool = True
    failed: bool = False

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(H, W) bool."""
        return np.asarray(self.probability > 0.5)


@runtime_checkable
class TextSegmenter(Protocol):
    """A frozen model that segments what a text says."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever an answer would; keys tables of answers."""

    def segment(self, image: NDArray[np.uint8], texts: Sequence[str]) -> list[TextAnswer]:
        """Answer each text on one RGB image (H, W, 3) uint8."""


class Sa2VA:
    """Sa2VA (arXiv 2501.04001), or anything with its ``predict_forward``, as a text segmenter.

    ``<image>`` stands in every text (without it the model fails), and only arguments that ``predict_forward`` knows are
    passed: versions differ. Whatever goes wrong with one text gives an empty mask, a logged traceback and a count in
    ``failures``.

    :param model: ``predict_forward(image=, text=, ...)`` returning ``prediction`` and ``prediction_masks``
    :param name: of the weights; goes into the fingerprint
    :param tokenizer: for the InternVL versions
    :param processor: for the Qwen versions
    """

    def __init__(self, model: Any, name: str, tokenizer: Any = None, processor: Any = None) -> None:  # noqa: ANN401
        self.model, self.name = model, name
        known = inspect.signature(model.predict_forward).parameters
        anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
        offered = {"tokenizer": tokenizer, "processor": processor}
        self._extra = {key: value for key, value in offered.items() if value is not None and (anything or key in known)}
        self.failures = 0

    @property
    def fingerprint(self) -> str:
        return f"sa2va-{self.name}"

    def segment(self, image: NDArray[np.uint8], texts: Sequence[str]) -> list[TextAnswer]:
        return [self._ask(image, text) for text in texts]

    def _ask(self, image: NDArray[np.uint8], text: str) -> TextAnswer:
        height, width = image.shape[:2]
        nothing = TextAnswer(np.zeros((height, width), np.float32), found=False)
        asked = text if "<image>" in text else f"<image>{text}"
        try:
            said = self.model.predict_forward(image=Image.fromarray(image), text=asked, **self._extra)
            masks = [_one_mask(mask, (height, width)) for mask in said["prediction_masks"]]
        except Exception:  # a long run must not die of one answer
            self.failures += 1
            logger.exception("Sa2VA failed on %r (%d failures so far): an empty mask is taken", asked, self.failures)
            return TextAnswer(nothing.probability, found=False, failed=True)
        if not masks:
            return nothing
        return TextAnswer(np.any(masks, axis=0).astype(np.float32))


def _one_mask(mask: Any, size: tuple[int, int]) -> NDArray[np.bool_]:  # noqa: ANN401
    """A mask (1, H, W) or (H, W) of an image as (H, W) bool.

    :raises ValueError: it has another size
    """
    array = np.asarray(mask)
    array = array[0] if array.ndim == 3 else array
    if array.shape != size:
        raise ValueError(f"a mask {array.shape} for an image of {size[1]}x{size[0]} pixels (width x height)")
    if not np.isfinite(array).all():
        raise ValueError("a mask with NaN or infinite values")
    return np.asarray(array > 0.5)


def load_sa2va(path: str, trust_remote_code: bool = False) -> Sa2VA:
    """Load Sa2VA from a folder or a hub name, with ``transformers``; its code is part of its weights' repository.

    :param path: ``ByteDance/Sa2VA-4B`` or a folder that holds such a repository
    :param trust_remote_code: run that code
    :raises ImportError: ``transformers`` is missing
    :raises PermissionError: the code is not trusted
    """
    if not trust_remote_code:
        raise PermissionError(
            f"Sa2VA runs code that comes with its weights ({path}): read it, then pass --trust-remote-code "
            "(trust_remote_code=True)"
        )
    try:
        from transformers import AutoModel, AutoProcessor, AutoTokenizer
    except ImportError as error:
        raise ImportError('Sa2VA needs transformers: run pip install "alignsam_sb3[sa2va]"') from error
    model = AutoModel.from_pretrained(path, torch_dtype="auto", low_cpu_mem_usage=True, trust_remote_code=True).eval()
    wants = inspect.signature(model.predict_forward).parameters
    if "processor" in wants:
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)
        return Sa2VA(model.cuda(), path, processor=processor)
    tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True, use_fast=False)
    return Sa2VA(model.cuda(), path, tokenizer=tokenizer)
