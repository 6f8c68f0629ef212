"""SAM 3, asked in words (arXiv 2511.16719), from the transformers library."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.frame import Frame
from alignsam_sb3.prompting.text import TextAnswer
from alignsam_sb3.segmenters.pretrained import (
    chosen_device,
    fingerprint,
    library,
    load_image_processor,
    load_model,
    obtain_folder,
    read_config,
)

logger = logging.getLogger(__name__)

MODEL_TYPES = ("sam3", "sam3_video")  # facebook/sam3 says the latter: detector and tracker in one file
REFUSED = {
    kind: "it is asked with points and boxes: use it as a segmenter, hf:/folder"
    for kind in ("sam", "sam2", "sam2_video", "edgetam", "edgetam_video", "sam3_tracker")
}
DEFAULT = "facebook/sam3"
PRESENT = 0.5
TEXTS_AT_ONCE = {"cpu": 4, "cuda": 16}
"""Masks of a text take 0.3 GB while they are computed."""


class Sam3:
    """SAM 3's detector as a text segmenter: all pixels of what a text says.

    The image is encoded once and all texts are answered from that. Where the model doubts that anything in the image is
    what the text says (presence below one half), the answer is that it is absent. What a text is called matters: SAM 3 may
    find "player in white" and miss "person in white", which is what choosing among phrases is for.

    :param model: ``Sam3Model``, as :func:`load_model` gives it
    :param processor: the library's image processor, set to the model's size
    :param tokenizer: of the model's texts
    :param config: what ``config.json`` says
    """

    def __init__(self, model: Any, processor: Any, tokenizer: Any, config: Mapping[str, Any]) -> None:  # noqa: ANN401
        self.model, self.processor, self.tokenizer = model, processor, tokenizer
        self.device = th.device(model.device)
        self.longest = int(model.config.text_config.max_position_embeddings)
        self._frame = Frame(int(model.config.image_size), squash=True)
        self._digest = fingerprint(model, processor, config, sorted(tokenizer.get_vocab().items()), self._frame.side)

    @property
    def fingerprint(self) -> str:
        return f"sam3-{self._digest}"

    @th.no_grad()
    def segment(self, image: NDArray[np.uint8], texts: Sequence[str]) -> list[TextAnswer]:
        pixels = self.processor(
            images=[np.require(image, np.uint8, "W")],
            input_data_format="channels_last",
            return_tensors="pt",
            device=self.device,
        )
        seen = self.model.get_vision_features(pixels["pixel_values"].to(self.device))
        size, at_once = (image.shape[0], image.shape[1]), TEXTS_AT_ONCE.get(self.device.type, 4)
        answers: list[TextAnswer] = []
        for start in range(0, len(texts), at_once):
            answers += self._answer(seen, texts[start : start + at_once], size)
        return answers

    def _answer(self, seen: Any, texts: Sequence[str], size: tuple[int, int]) -> list[TextAnswer]:  # noqa: ANN401
        repeated = {
            name: [level.expand(len(texts), *level.shape[1:]) for level in getattr(seen, name)]
            for name in ("fpn_hidden_states", "fpn_position_encoding")
        }
        said = self.model(vision_embeds=type(seen)(**repeated), **self._tokens(texts))
        present = said.presence_logits.sigmoid().flatten() > PRESENT
        likely = self._frame.restore(said.semantic_seg[:, 0].sigmoid(), size).cpu().numpy()
        return [_text_answer(one, bool(there)) for one, there in zip(likely, present, strict=True)]

    def _tokens(self, texts: Sequence[str]) -> dict[str, th.Tensor]:
        """Token ids and what of them is text, padded to the length that the model was trained with."""
        for text, ids in zip(texts, self.tokenizer(list(texts))["input_ids"], strict=True):
            if len(ids) > self.longest:
                logger.warning("SAM 3 reads %d tokens, and %r has %d: its end is not read", self.longest, text, len(ids))
        found = self.tokenizer(
            list(texts), padding="max_length", max_length=self.longest, truncation=True, return_tensors="pt"
        )
        return {name: found[name].to(self.device) for name in ("input_ids", "attention_mask")}


def _text_answer(probability: NDArray[np.float32], present: bool) -> TextAnswer:
    if not np.isfinite(probability).all():
        logger.warning("SAM 3 gave NaN: taken as no answer")
        return TextAnswer(np.zeros_like(probability), found=False, failed=True)
    return TextAnswer(probability if present else np.zeros_like(probability), found=present)


def load_sam3(where: str = DEFAULT, device: str | th.device = "auto") -> Sam3:
    """Load SAM 3's detector, the part that is asked in words.

    :param where: a folder, or ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` of the Hub
    :raises FileNotFoundError: there is no such folder or repository, or it has no tokenizer
    :raises PermissionError: the repository is gated
    :raises ConnectionError: it cannot be downloaded
    :raises ValueError: it is no SAM 3, or damaged
    :raises ImportError: ``transformers`` is missing or too old
    """
    folder = obtain_folder(where or DEFAULT, "sam3")
    config = read_config(folder, MODEL_TYPES, REFUSED)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise FileNotFoundError(f"{folder} holds no tokenizer.json: bring all files of the repository")
    model = load_model("Sam3Model", folder, chosen_device(device))
    side = int(model.config.image_size)
    processor = load_image_processor("Sam3ImageProcessor", folder, size={"height": side, "width": side})
    tokenizer = library("CLIPTokenizer").from_pretrained(folder, local_files_only=True)
    return Sam3(model, processor, tokenizer, config)
