"""Reviewing a run: the most doubtful mask first, each decision on the disk before the next is shown. No page in here."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np

from alignsam_sb3.annotate.decisions import Decision, Decisions, Key
from alignsam_sb3.annotate.predicting import Picture
from alignsam_sb3.annotate.run import Run
from alignsam_sb3.annotate.window import Window
from alignsam_sb3.datasets.images import UnreadableImageError
from alignsam_sb3.segmenters import PromptableSegmenter

WINDOWS = 32
"""Windows whose photo is kept in memory; an older one opens its photo anew."""


class Review:
    """The queue of a run and the windows that are open on it.

    :param run: what was annotated
    :param segmenter: answers people's clicks
    :param threshold: masks with at least this score are not asked about; by default all are
    """

    def __init__(self, run: Run, segmenter: PromptableSegmenter, threshold: float = math.inf) -> None:
        self.run, self.decisions, self._segmenter = run, Decisions(run), segmenter
        ranked = sorted((a.score, a.image_id, a.category) for found in run for a in found.annotations if a.score < threshold)
        self.ranked: list[Key] = [(image, category) for _, image, category in ranked]
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._elsewhere: dict[str, Key] = {}
        self._lock = threading.RLock()

    def waiting(self) -> list[Key]:
        """Masks without a decision, the most doubtful first; those that are for later last."""
        said = self.decisions.latest()
        undecided = [key for key in self.ranked if key not in said]
        return undecided + [key for key in self.ranked if key in said and said[key].verdict == "later"]

    def progress(self) -> str:
        """How much is done."""
        left = len(self.waiting())
        return f"{len(self.ranked) - left} of {len(self.ranked)} decided, {left} to go"

    def window(self, who: str) -> Window | None:
        """What a window shows; it opens the next of the queue where there is nothing yet. None: nothing is left."""
        with self._lock:
            if who not in self._windows:
                self.next(who)
            return self._windows.get(who)

    def next(self, who: str) -> Window | None:
        """Show a window the most doubtful mask that no other window shows."""
        with self._lock:
            self.close(who)
            taken = set(self._elsewhere.values())
            waiting = self.waiting()
            for key in [key for key in waiting if key not in taken] or waiting:
                try:
                    return self._open(who, key)
                except (UnreadableImageError, ValueError) as error:
                    self._unreadable(key, str(error))
            return None

    def _unreadable(self, key: Key, reason: str) -> None:
        """A photo that has gone since: its mask waits no longer."""
        self.ranked.remove(key)
        print(f"cannot show {key[0]}: {reason}")

    def close(self, who: str) -> None:
        """Forget a window: what it showed is open to others."""
        self._windows.pop(who, None)
        self._elsewhere.pop(who, None)

    def _open(self, who: str, key: Key) -> Window:
        image, category = key
        annotation = next(a for a in self.run.found(image).annotations if a.category == category)
        decision = self.decisions.latest().get(key)
        if decision is not None and decision.corrected is not None:
            annotation = decision.corrected
        opened = Window.open(self._segmenter, self.run.image_path(image), annotation)
        threading.Thread(target=opened.prepare, daemon=True).start()  # so that the first click is answered at once
        self._windows[who], self._elsewhere[who] = opened, key
        while len(self._windows) > WINDOWS:
            oldest, _ = self._windows.popitem(last=False)
            self._elsewhere.pop(oldest, None)
        return opened

    def click(self, who: str, x: float, y: float, label: int) -> Picture | None:
        """A person's click on a window's picture, and the picture after it."""
        with self._lock:
            window = self.window(who)
            if window is None:
                return None
            window.click(x, y, label)
            return window.picture()

    def accept(self, who: str) -> Window | None:
        """The mask is right as it is seen; a mask with a person's clicks counts as corrected."""

        def said(window: Window) -> None:
            found = window.result()
            if window.edited:
                self.decisions.decide(window.annotation, "correct", who, found.mask, found.clicks)
            else:
                self.decisions.decide(window.annotation, "accept", who)

        return self._decide(who, said)

    def reject(self, who: str) -> Window | None:
        """The mask is wrong, and is not to be exported."""
        return self._decide(who, lambda window: self.decisions.decide(window.annotation, "reject", who))

    def not_here(self, who: str) -> Window | None:
        """The category is not in the image."""

        def said(window: Window) -> Decision:
            return self.decisions.decide(window.annotation, "correct", who, np.zeros(window.annotation.size, bool))

        return self._decide(who, said)

    def later(self, who: str) -> Window | None:
        """Look at it after all others."""
        return self._decide(who, lambda window: self.decisions.decide(window.annotation, "later", who))

    def _decide(self, who: str, say: Callable[[Window], object]) -> Window | None:
        with self._lock:
            window = self._windows.get(who)
            if window is None:
                return self.window(who)
            say(window)
            return self.next(who)

    def undo(self, who: str) -> Window | None:
        """Take back the window's last click, or, where it has none, its last decision."""
        with self._lock:
            window = self.window(who)
            if window is not None and window.edited:
                window.undo()
                return window
            decision = self.decisions.undo(who)
            if decision is None:
                return window
            self.close(who)
            return self._open(who, (decision.image, decision.category))

    def watch(self, who: str) -> Iterator[Picture]:
        """The agent's clicks one after the other, then what the window shows."""
        window = self.window(who)
        if window is not None:
            yield from window.watch()
            yield window.picture()
