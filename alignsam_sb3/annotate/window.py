"""One open photo in a review: its mask, its clicks, and a segmenter that answers the next one."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.annotate.predicting import Picture, in_original, read_photo
from alignsam_sb3.annotation import Annotation
from alignsam_sb3.clickers import Click
from alignsam_sb3.encodings import Mask
from alignsam_sb3.pictures import draw_clicks, overlay
from alignsam_sb3.segmenters import PromptableSegmenter
from alignsam_sb3.session import ClickSessions, open_sessions

SHOWN = 768
"""The long side of a photo on the page, in pixels."""
ALIKE = 0.9
"""IoU from which the agent's clicks are held to have made a mask. Another one is the mask prompt of a person's clicks."""
SURE = 7.0
"""Logits of such a prompt, within the mask and, negative, outside."""


class Window:
    """A photo being looked at. Nothing here is kept: decisions are.

    :param segmenter: answers clicks
    :param photo: (H, W, 3), perhaps made smaller
    :param annotation: what was found, in pixels of the file
    """

    def __init__(self, segmenter: PromptableSegmenter, photo: Picture, annotation: Annotation) -> None:
        self.annotation, self._segmenter = annotation, segmenter
        factor = SHOWN / max(photo.shape[:2])
        size = (max(round(photo.shape[1] * factor), 1), max(round(photo.shape[0] * factor), 1))
        self._shown: Picture = cv2.resize(
            photo, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        ).astype(np.uint8)
        self._photo = photo
        self._sessions: ClickSessions | None = None
        self._preparing = threading.Lock()
        self._base = self._on_photo(annotation.clicks)
        self.added: list[Click] = []

    @classmethod
    def open(cls, segmenter: PromptableSegmenter, path: Path, annotation: Annotation) -> "Window":
        """Read the photo of an annotation.

        :raises UnreadableImageError: it cannot be read any more
        """
        return cls(segmenter, read_photo(path)[0], annotation)

    def _on_photo(self, clicks: tuple[Click, ...]) -> list[Click]:
        """Clicks in pixels of the file, in pixels of the photo as it was read."""
        (height, width), (h, w) = self.annotation.size, self._photo.shape[:2]
        return [((int((x + 0.5) * w / width), int((y + 0.5) * h / height)), label) for (x, y), label in clicks]

    @property
    def edited(self) -> bool:
        """Whether a person has clicked."""
        return bool(self.added)

    def prepare(self) -> ClickSessions:
        """The session with the agent's clicks made, and with the mask that is shown; this takes a moment, once."""
        with self._preparing, th.no_grad():
            if self._sessions is None:
                started = open_sessions(self._segmenter, [self._photo], remembers=True)
                for click in self._base:
                    started.click_each(np.array([0]), [[click]])
                self._show(started)
                self._sessions = started
        return self._sessions

    def _show(self, started: ClickSessions) -> None:
        """Let a person go on from the mask that was found, where clicks alone have not made it."""
        height, width = self._photo.shape[:2]
        found = replace(self.annotation, present=True).mask.astype(np.uint8)
        found = cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
        made = started.masks()[0]
        if (found & made).sum() < ALIKE * (found | made).sum():
            side = started.logits.shape[-1]
            inside = self._segmenter.frame.cells(found, side).astype(np.float32) / 127.5 - 1
            started.give_masks(np.array([0]), SURE * th.from_numpy(inside)[None])

    @th.no_grad()
    def click(self, x: float, y: float, label: int) -> None:
        """Click a place of the picture that :meth:`picture` draws.

        :param label: 1 foreground, 0 background
        """
        h, w = self._photo.shape[:2]
        shown_h, shown_w = self._shown.shape[:2]
        place = (min(max(int((x + 0.5) * w / shown_w), 0), w - 1), min(max(int((y + 0.5) * h / shown_h), 0), h - 1))
        self.prepare().click_each(np.array([0]), [[(place, label)]])
        self.added.append((place, label))

    def undo(self) -> None:
        """Take a person's last click back."""
        self.prepare().undo(np.array([0]))
        self.added.pop()

    def result(self) -> Annotation:
        """What is now to be seen, in pixels of the file."""
        if self._sessions is None or not self.added:
            return self.annotation
        mask: Mask = self._sessions.masks()[0]
        clicks = tuple(self._sessions.clicks(0))
        small = replace(self.annotation, size=(mask.shape[0], mask.shape[1])).corrected(mask, clicks)
        return in_original(small, self.annotation.size)

    def picture(self) -> Picture:
        """The photo with the present mask and all clicks."""
        if self.edited and self._sessions is not None:
            return self._draw(self._sessions.masks()[0], [*self._base, *self.added])
        return self._draw(self.annotation.mask, self._base)

    def watch(self) -> Iterator[Picture]:
        """The photo, and what the segmenter answered after each of the agent's clicks."""
        yield self._draw(None, [])
        sessions = open_sessions(self._segmenter, [self._photo])
        for k, click in enumerate(self._base):
            with th.no_grad():
                sessions.click_each(np.array([0]), [[click]])
            yield self._draw(sessions.masks()[0], self._base[: k + 1])

    def _draw(self, mask: NDArray[np.bool_] | None, clicks: list[Click]) -> Picture:
        height, width = self._shown.shape[:2]
        drawn = self._shown
        if mask is not None:
            grown = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)
            drawn = overlay(drawn, grown)
        return draw_clicks(drawn, clicks, width / self._photo.shape[1])
