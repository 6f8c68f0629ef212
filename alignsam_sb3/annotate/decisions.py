"""What people said of masks: an append-only list, from which the present state is read. Nothing in it is ever changed."""

import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

from alignsam_sb3.annotate.run import Found, Run
from alignsam_sb3.annotation import Annotation
from alignsam_sb3.clickers import Click
from alignsam_sb3.encodings import Mask
from alignsam_sb3.names import nearest

VERDICTS = ("accept", "correct", "reject", "later")
Key = tuple[str, str]
"""Image and category."""


@dataclass(frozen=True)
class Decision:
    """What was said of one mask.

    :param id: unique
    :param image: path within the folder of images
    :param verdict: of :data:`VERDICTS`; ``"later"`` leaves it in the queue, behind the others
    :param who: the window in which it was said
    :param corrected: the mask that a person drew with clicks, where the verdict is ``"correct"``
    """

    id: str
    image: str
    category: str
    verdict: str
    who: str
    corrected: Annotation | None = None

    def applied(self, annotation: Annotation) -> Annotation | None:
        """What of the annotation is to be exported; None for nothing."""
        if self.verdict == "reject":
            return None
        return self.corrected or annotation


class Decisions:
    """The decisions of a run, shared by any number of windows and processes.

    :param run: where they are kept, in ``decisions.jsonl``
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._stack: dict[str, Decision] = {}
        self._read = 0
        self._lock = threading.Lock()

    def decide(
        self, annotation: Annotation, verdict: str, who: str = "", mask: Mask | None = None, clicks: tuple[Click, ...] = ()
    ) -> Decision:
        """Write a decision; it is on the disk when this returns.

        :param mask: (H, W) what it should be, with the verdict ``"correct"``; empty where the category is not in the image
        :param clicks: that made this mask
        :raises ValueError: there is no such verdict
        :raises OSError: it could not be written; nothing was decided
        """
        if verdict not in VERDICTS:
            raise ValueError(nearest("verdict", verdict, VERDICTS))
        if (verdict == "correct") != (mask is not None):
            raise ValueError("a mask comes with the verdict 'correct', and with no other")
        corrected = None if mask is None else annotation.corrected(mask, clicks)
        made = Decision(uuid.uuid4().hex, annotation.image_id, annotation.category, verdict, who, corrected)
        record = {"id": made.id, "image": made.image, "category": made.category, "verdict": verdict, "who": who}
        record["time"] = f"{time.time():.3f}"
        self.run.decisions.append({**record, "corrected": None if corrected is None else corrected.to_json()})
        return made

    def undo(self, who: str = "") -> Decision | None:
        """Take back the last decision that this window made and has not taken back; None where there is none."""
        self._refresh()
        mine = [d for d in self._stack.values() if d.who == who]
        if not mine:
            return None
        self.run.decisions.append({"undo": mine[-1].id, "who": who})
        return mine[-1]

    def _refresh(self) -> None:
        with self._lock:
            for _, end, record in self.run.decisions.records(self._read):
                self._read = end
                if "undo" in record:
                    self._stack.pop(record["undo"], None)
                    continue
                drawn = None if record["corrected"] is None else Annotation.from_json(record["corrected"])
                known = (record["id"], record["image"], record["category"], record["verdict"], record["who"])
                self._stack[record["id"]] = Decision(*known, drawn)

    def latest(self) -> dict[Key, Decision]:
        """The last decision on each mask that has one, those of other windows included."""
        self._refresh()
        return {(d.image, d.category): d for d in list(self._stack.values())}


def reviewed(run: Run) -> Iterator[Found]:
    """What is known of each image, with people's decisions applied: rejected masks left out, corrected ones replaced."""
    said = Decisions(run).latest()
    for found in run:
        kept = []
        for annotation in found.annotations:
            decision = said.get((annotation.image_id, annotation.category))
            final = annotation if decision is None else decision.applied(annotation)
            if final is not None:
                kept.append(final)
        yield replace(found, annotations=tuple(kept))
