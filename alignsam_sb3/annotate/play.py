"""Playing with one photo after the other: segment it, watch the agent, click. No page in here."""

from collections.abc import Iterator
from typing import Protocol

from alignsam_sb3.annotate.predicting import Picture, Predicts
from alignsam_sb3.annotate.window import Window
from alignsam_sb3.segmenters import PromptableSegmenter


class PredictsAndClicks(Predicts, Protocol):
    """A predictor whose segmenter also answers people."""

    @property
    def segmenter(self) -> PromptableSegmenter:
        """It answers clicks."""


class Play:
    """The photos that people have open.

    :param predict: finds masks
    """

    def __init__(self, predict: PredictsAndClicks) -> None:
        self._predict = predict
        self._windows: dict[str, Window] = {}

    def segment(self, who: str, photo: Picture | None, category: str) -> Iterator[tuple[Picture, str]]:
        """The agent's clicks on a photo one after the other, then its answer, each with a line about it.

        :raises ValueError: there is no photo
        """
        if photo is None:
            raise ValueError("upload a photo first")
        found = self._predict.batch([photo], [category])[0][0]
        window = self._windows[who] = Window(self._predict.segmenter, photo, found)
        for k, picture in enumerate(window.watch()):
            yield picture, f"after {k} clicks"
        yield window.picture(), self._line(window)

    def click(self, who: str, x: float, y: float, label: int) -> tuple[Picture, str]:
        """A person's click on the picture, and what is then to be seen."""
        window = self._window(who)
        window.click(x, y, label)
        return window.picture(), self._line(window)

    def undo(self, who: str) -> tuple[Picture, str]:
        """Take a person's last click back, if there is one."""
        window = self._window(who)
        if window.edited:
            window.undo()
        return window.picture(), self._line(window)

    def close(self, who: str) -> None:
        """Forget what somebody had open."""
        self._windows.pop(who, None)

    def _window(self, who: str) -> Window:
        if who not in self._windows:
            raise ValueError("segment a photo first")
        return self._windows[who]

    def _line(self, window: Window) -> str:
        found = window.result()
        if not found.present:
            return f"no {found.category} here, the policy says (probability {found.score:.2f})"
        return f"{len(found.clicks)} clicks, predicted Dice {window.annotation.score:.2f}, {found.area} pixels"
