"""A text segmenter of the models that are there anyway: CLIP Surgery says where, SAM draws the mask."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.names import nearest
from alignsam_sb3.prompting.sam3 import load_sam3
from alignsam_sb3.prompting.text import TextAnswer, TextSegmenter, load_sa2va
from alignsam_sb3.segmenters import PromptableSegmenter, load_segmenter
from alignsam_sb3.semantics.clip_surgery import similarity_map_to_points, top_point
from alignsam_sb3.semantics.language import ClipSurgery
from alignsam_sb3.semantics.loading import load_clip
from alignsam_sb3.session import ClickSessions

TEXT_SEGMENTERS = ("clip_sam", "sa2va", "sam3")


class ClipSam:
    """CLIP Surgery's points of each text, given to SAM in one call.

    :param clip: says where a text is; each text by itself, compared with the empty one
    :param segmenter: draws the masks
    """

    def __init__(self, clip: ClipSurgery, segmenter: PromptableSegmenter) -> None:
        self.clip, self.segmenter = clip, segmenter

    @property
    def fingerprint(self) -> str:
        return f"clip_sam-{self.clip.fingerprint}-{self.segmenter.fingerprint}"

    def segment(self, image: NDArray[np.uint8], texts: Sequence[str]) -> list[TextAnswer]:
        maps = self.clip.similarity([image], texts, redundant=True).maps[0].cpu().numpy()
        size = (image.shape[0], image.shape[1])
        clicks = [similarity_map_to_points(one, size) or [top_point(one, size)] for one in maps]
        everyone = np.arange(len(texts))
        sessions = ClickSessions(self.segmenter, len(texts))
        encoded = {name: x.expand(len(texts), *x.shape[1:]) for name, x in self.segmenter.encode([image]).items()}
        sessions.start(everyone, encoded, np.tile(size, (len(texts), 1)))
        sessions.click_each(everyone, clicks)
        return [TextAnswer(logits.sigmoid().cpu().numpy()) for logits in sessions.in_image()]


def load_text_segmenter(
    spec: str = "clip_sam",
    segmenter: str = "tiny",
    clip: str = "tiny",
    device: str = "auto",
    trust_remote_code: bool = False,
) -> TextSegmenter:
    """Load a text segmenter.

    :param spec: ``clip_sam``, ``sam3``, ``sam3:/folder``, ``sam3:OWNER/NAME``, or ``sa2va:PATH``
    :param segmenter: of ``clip_sam``
    :param clip: of ``clip_sam``
    :param trust_remote_code: run the code that Sa2VA's weights bring
    """
    name, _, where = spec.partition(":")
    if name == "sa2va":
        return load_sa2va(where or "ByteDance/Sa2VA-4B", trust_remote_code)
    if name == "sam3":
        return load_sam3(where, device)
    if name != "clip_sam":
        raise ValueError(nearest("text segmenter", name, TEXT_SEGMENTERS))
    return ClipSam(load_clip(clip, device), load_segmenter(segmenter, device))
