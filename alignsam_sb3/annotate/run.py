"""The folder that a run writes: what it was made with, what was found of each image, what people decided."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from alignsam_sb3.annotate.journal import Journal, Record
from alignsam_sb3.annotation import Annotation
from alignsam_sb3.arguments import RUN, run_folder
from alignsam_sb3.choice import ANSWERS, LAST
from alignsam_sb3.files import write_json
from alignsam_sb3.names import nearest

ACCEPTED = "accepted.json"
"""Of a run: the score from which nobody needs to look."""


@dataclass(frozen=True)
class Identity:
    """What must be the same for a run to be gone on with.

    :param folder: of the images
    :param policy: hash of the policy
    :param categories: what was looked for
    :param answer: whose masks are handed out
    :param calibration: hash of the calibration, empty without one
    """

    folder: str
    policy: str
    categories: tuple[str, ...]
    answer: str = LAST
    calibration: str = ""


@dataclass(frozen=True)
class Found:
    """What is known of one image: annotations, or why there are none.

    :param image: its path within the folder
    :param stamp: of the file when it was read
    """

    image: str
    stamp: str
    annotations: tuple[Annotation, ...] = ()
    skipped: str = ""

    def to_record(self) -> Record:
        """As a line of the journal."""
        record: Record = {"image": self.image, "stamp": self.stamp}
        if self.skipped:
            return {**record, "skipped": self.skipped}
        return {**record, "annotations": [a.to_json() for a in self.annotations]}

    @classmethod
    def from_record(cls, record: Record) -> "Found":
        """What :meth:`to_record` gave."""
        annotations = tuple(Annotation.from_json(a) for a in record.get("annotations", ()))
        return cls(record["image"], record["stamp"], annotations, record.get("skipped", ""))


class Run:
    """A folder with ``run.json``, ``journal.jsonl`` and ``decisions.jsonl``.

    :param out: the folder; see :meth:`create` and :meth:`open`
    """

    def __init__(self, out: Path, identity: Identity) -> None:
        self.out, self.identity = out, identity
        self.journal, self.decisions = Journal(out / "journal.jsonl"), Journal(out / "decisions.jsonl")
        self._places: dict[str, tuple[int, str, bool]] = {}
        self._read = 0
        self.refresh()

    @classmethod
    def create(cls, out: Path, identity: Identity) -> "Run":
        """Begin a run, or go on with the one that is there.

        :raises ValueError: the one that is there was made with something else
        :raises OSError: the folder cannot be written
        """
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not (out / RUN).is_file():
                write_json(out / RUN, asdict(identity))
        except OSError as error:
            raise type(error)(f"cannot write to {out} ({error.strerror or error}): give another folder with --out") from error
        run = cls.open(out)
        for key, now in asdict(identity).items():
            before = getattr(run.identity, key)
            if before != now:
                raise ValueError(
                    f"{out} was made with {key} {_shown(before)}, and now it is {_shown(now)}: what is there would be "
                    "mixed with other results. Give another --out, or delete that folder"
                )
        return run

    @classmethod
    def open(cls, out: Path) -> "Run":
        """The run that a folder holds.

        :raises FileNotFoundError: it holds none
        :raises ValueError: what it holds is damaged
        """
        described = run_folder(str(out)) / RUN
        try:
            values = json.loads(described.read_text())
            identity = Identity(**{**values, "categories": tuple(values["categories"])})
            if identity.answer not in ANSWERS:
                raise ValueError(nearest("answer", identity.answer, ANSWERS))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{described} is damaged ({error}): delete {out} and annotate again") from error
        return cls(out, identity)

    def accept_from(self, score: float) -> None:
        """Keep the score from which nobody needs to look; infinity where somebody looks at every mask."""
        write_json(self.out / ACCEPTED, {"from": score if math.isfinite(score) else None})

    @property
    def accepted_from(self) -> float:
        """The score from which nobody needs to look; infinity where somebody looks at every mask."""
        kept = self.out / ACCEPTED
        score = json.loads(kept.read_text())["from"] if kept.is_file() else None
        return math.inf if score is None else float(score)

    @property
    def folder(self) -> Path:
        return Path(self.identity.folder)

    def image_path(self, image: str) -> Path:
        """The file of an image.

        :raises ValueError: it would lie outside the folder of images
        """
        path = (self.folder / image).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"{image!r} lies outside {self.folder}: refused")
        return path

    def refresh(self) -> None:
        """Take note of what was written to the journal since it was last read."""
        for place, end, record in self.journal.records(self._read):
            self._places[record["image"]] = (place, record["stamp"], "skipped" in record)
            self._read = end

    def keep(self, *found: Found) -> None:
        """Write what was found of images; on the disk when this returns."""
        self.journal.append(*(f.to_record() for f in found))
        self.refresh()

    def is_done(self, image: str, stamp: str) -> bool:
        """Whether an image was annotated, and has not changed since."""
        known = self._places.get(image)
        return known is not None and known[1] == stamp and not known[2]

    def changed(self, image: str, stamp: str) -> bool:
        """Whether an image was annotated, and its file is another one now."""
        known = self._places.get(image)
        return known is not None and known[1] != stamp

    @property
    def images(self) -> list[str]:
        """Those that are known, sorted."""
        return sorted(self._places)

    def found(self, image: str) -> Found:
        """What is known of an image."""
        return Found.from_record(self.journal.at(self._places[image][0]))

    def __iter__(self) -> Iterator[Found]:
        """What is known of each image, in order, one at a time in memory."""
        return (self.found(image) for image in self.images)


def _shown(value: object) -> str:
    return (", ".join(map(str, value)) if isinstance(value, tuple | list) else repr(value)) if value else "none"
