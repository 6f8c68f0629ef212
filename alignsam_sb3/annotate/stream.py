"""A folder of images in, annotations out: read ahead, played in batches, kept in a journal, gone on with after a kill."""

import hashlib
import logging
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image
from tqdm import tqdm

from alignsam_sb3.annotate.formats import FORMATS, write_formats
from alignsam_sb3.annotate.predicting import Picture, Predicts, in_original, read_photo
from alignsam_sb3.annotate.run import Found, Identity, Run
from alignsam_sb3.annotation import Annotation
from alignsam_sb3.choice import ANSWERS, LAST
from alignsam_sb3.datasets.images import UnreadableImageError, file_stamp
from alignsam_sb3.datasets.labelled import images_in
from alignsam_sb3.datasets.skipped import Skipped
from alignsam_sb3.names import nearest

logger = logging.getLogger(__name__)

MOST_AT_ONCE = 64_000_000
"""Pixels of masks in one batch: what bounds the memory, whatever the photos' sizes."""
FAILURES_IN_A_ROW = 20


@dataclass(frozen=True)
class Summary:
    """What a call did and what there is now.

    :param images: annotated in all
    :param new: annotated by this call
    :param skipped: images that could not be read or played
    :param masks: (image, category) pairs
    :param present: of these, how many are held to be there
    :param doubtful: how many a person should look at
    :param seconds: that this call took
    :param calibrated: whether scores promise anything
    :param answer: whose masks these are, a name in :data:`~alignsam_sb3.choice.ANSWERS`
    """

    images: int
    new: int
    skipped: int
    masks: int
    present: int
    doubtful: int
    seconds: float
    calibrated: bool
    answer: str = LAST

    def __str__(self) -> str:
        rate = f"{self.new / self.seconds:.1f} images/s" if self.new and self.seconds else "nothing new"
        said = (
            f"{self.images} images annotated ({rate}), {self.skipped} skipped. Of {self.masks} masks {self.present} show "
            f"their category; {self.masks - self.doubtful} can be taken as they are, {self.doubtful} are to be reviewed"
        )
        promise = "" if self.calibrated else ". Their scores promise nothing before `alignsam calibrate`; they set the order"
        return f"{said}{promise}. Each mask is {ANSWERS[self.answer]}"


@dataclass(frozen=True)
class Read:
    """A photo as the models see it, or why there is none."""

    image: str
    stamp: str
    photo: Picture | None
    size: tuple[int, int] = (0, 0)
    error: str = ""


Playing = Callable[[Iterator[list[Read]]], Iterator[list[Found]]]
"""From batches of photos to what is found of each, in order."""


def annotate_folder(
    predict: Predicts,
    folder: str | Path,
    out: str | Path,
    categories: Sequence[str] = (),
    formats: Sequence[str] = ("coco",),
    accept: float | None = None,
    batch_size: int = 32,
    workers: int = 2,
    progress: bool = True,
    play: Playing | None = None,
) -> Summary:
    """Annotate all images of a folder, and of those within it; a second call goes on where a first one was stopped.

    :param out: where ``journal.jsonl``, ``queue.csv``, ``skipped.csv``, the contact sheet and the formats go
    :param categories: what to look for; by default all that the policy knows
    :param formats: names in :data:`alignsam_sb3.annotate.formats.FORMATS`
    :param accept: share of masks below a Dice of 0.8 that is tolerated among those that nobody reviews
    :param batch_size: images encoded at once, at most
    :param workers: threads that read images ahead
    :param play: plays the batches elsewhere, see :func:`~alignsam_sb3.annotate.cluster.players`; by default here
    :raises ValueError: an option is unknown, the folder has no images, or ``out`` holds another run
    :raises OSError: ``out`` cannot be written; all images up to then are kept
    """
    began = time.monotonic()
    folder, out = Path(folder).expanduser().resolve(), Path(out).expanduser().resolve()
    wanted = _check(predict, folder, out, categories, formats, batch_size, workers)
    threshold = accepted_from(predict, accept)
    closed = Skipped()
    files = [path for path in images_in(folder, closed) if not path.resolve().is_relative_to(out)]
    if not files:
        raise ValueError(f"no images in {folder}: a folder of .jpg, .png or the like is expected")
    run = Run.create(out, Identity(str(folder), predict.fingerprint, wanted, predict.answer, calibration_hash(predict)))
    try:
        with FileLock(out / "lock", timeout=0), warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow still refuses what is twice as large
            _note(run, closed)
            run.accept_from(threshold)
            new = _go_on(predict, run, files, wanted, threshold, batch_size, workers, progress, play)
            write_formats(run, formats, threshold)
    except Timeout as error:
        raise ValueError(f"another process is annotating into {out}: wait for it, or give another --out") from error
    except OSError as error:
        raise type(error)(
            f"cannot write to {out} ({error.strerror or error}): make room and run the same command again; "
            f"the {len(run.images)} images so far are kept"
        ) from error
    return _summary(run, new, threshold, time.monotonic() - began, predict.calibration is not None)


def accepted_from(predict: Predicts, accept: float | None) -> float:
    """The score from which nobody needs to look, by calibration. Where no share was asked for, somebody looks at every mask.

    :raises ValueError: a share was asked for and there is no calibration
    """
    if accept is None:
        return math.inf
    if predict.calibration is None:
        raise ValueError(
            "accept needs a calibrated policy: run `alignsam calibrate --policy policy.zip --labelled coco:ROOT` on labelled "
            "images that it was not trained on. Without --accept it works as it is, and every mask is put up for review"
        )
    threshold = predict.calibration.accept_from(accept)
    if math.isinf(threshold):
        calibration = predict.calibration
        logger.warning(
            "nothing can be accepted at %.3g: %d labelled masks were used; %d are needed at least, and more if some are wrong",
            accept,
            math.ceil(len(calibration.scores) * 3 / 2),
            calibration.needed(accept),
        )
    return threshold


def _check(
    predict: Predicts,
    folder: Path,
    out: Path,
    categories: Sequence[str],
    formats: Sequence[str],
    batch_size: int,
    workers: int,
) -> tuple[str, ...]:
    """The categories to look for, once everything is known to make sense."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of images at {folder}")
    if out == folder:
        raise ValueError(f"--out is the folder of images itself, {out}: give another one")
    for name in formats:
        if name not in FORMATS:
            raise ValueError(nearest("format", name, FORMATS))
    for name in categories:
        if name not in predict.categories:
            raise ValueError(nearest("category of this policy", name, predict.categories))
    for option, value in (("batch_size", batch_size), ("workers", workers)):
        if value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    return tuple(dict.fromkeys(categories)) or tuple(predict.categories)


def calibration_hash(predict: Predicts) -> str:
    """Of a policy's calibration; empty without one."""
    if predict.calibration is None:
        return ""
    return hashlib.sha256(predict.calibration.to_json().encode()).hexdigest()[:16]


def _note(run: Run, closed: Skipped) -> None:
    """Name in the journal what bears an image's name and cannot even be opened; an image that was annotated stays so."""
    known = set(run.images)
    for kind, names in closed.items():
        reason = kind.removeprefix("files: ")
        logger.warning("%d left out: %s", len(names), reason)
        run.keep(*(Found(name, "missing", skipped=reason) for name in names if name not in known))


def _go_on(
    predict: Predicts,
    run: Run,
    files: Sequence[Path],
    categories: tuple[str, ...],
    threshold: float,
    batch_size: int,
    workers: int,
    progress: bool,
    play: Playing | None,
) -> int:
    """Annotate what is not yet; how many that were."""
    names = {str(path.relative_to(run.folder)): path for path in files}
    stamps = {name: file_stamp(path) for name, path in names.items()}
    todo = [name for name, stamp in stamps.items() if not run.is_done(name, stamp)]
    changed = sum(run.changed(name, stamps[name]) for name in todo)
    gone = sum(name not in names and not run.found(name).skipped for name in run.images)
    if run.images:
        logger.info("going on: %d of %d images are done", len(names) - len(todo), len(names))
    if changed or gone:
        logger.warning("%d images have changed since and are annotated anew, %d are no longer there", changed, gone)
    bar = tqdm(total=len(names), initial=len(names) - len(todo), unit="image", disable=not progress or not todo)
    doubtful = new = 0
    play = play or Player(predict, categories).play_all
    with bar:
        for found in play(_batches(_read_ahead(names, stamps, todo, workers, batch_size), batch_size, len(categories))):
            run.keep(*found)
            new += sum(not f.skipped for f in found)
            doubtful += sum(is_doubtful(a, threshold) for f in found for a in f.annotations)
            bar.set_postfix(doubtful=doubtful, refresh=False)
            bar.update(len(found))
    return new


def is_doubtful(annotation: Annotation, threshold: float) -> bool:
    """Whether a person should look at a mask."""
    return annotation.score < threshold


def _read_one(name: str, path: Path, stamp: str) -> Read:
    try:
        photo, size = read_photo(path)
    except UnreadableImageError as error:
        return Read(name, stamp, None, error=str(error))
    except (OSError, ValueError, MemoryError) as error:
        return Read(name, stamp, None, error=f"{path}: {type(error).__name__}: {error}")
    return Read(name, stamp, photo, size)


def _read_ahead(
    names: dict[str, Path], stamps: dict[str, str], todo: Sequence[str], workers: int, ahead: int
) -> Iterator[Read]:
    """Photos in order, so many read before they are asked for."""
    waiting: deque[Future[Read]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        try:
            for name in todo:
                waiting.append(pool.submit(_read_one, name, names[name], stamps[name]))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _batches(photos: Iterator[Read], batch_size: int, categories: int) -> Iterator[list[Read]]:
    """Lists of photos, short where photos are large."""
    batch: list[Read] = []
    pixels = 0
    for read in photos:
        mine = 0 if read.photo is None else read.photo.shape[0] * read.photo.shape[1] * categories
        if batch and (len(batch) >= batch_size or pixels + mine > MOST_AT_ONCE):
            yield batch
            batch, pixels = [], 0
        batch.append(read)
        pixels += mine
    if batch:
        yield batch


class Player:
    """Plays batches; an image that cannot be played is skipped, and many in a row end the run."""

    def __init__(self, predict: Predicts, categories: tuple[str, ...]) -> None:
        self._predict, self._categories = predict, categories
        self._failures = 0

    def play_all(self, batches: Iterator[list[Read]]) -> Iterator[list[Found]]:
        """What is found of each batch, in order."""
        return map(self.play, batches)

    def play(self, batch: Sequence[Read]) -> list[Found]:
        """What is found of each photo, in order."""
        photos = [read for read in batch if read.photo is not None]
        answers = dict(zip((r.image for r in photos), self._play(photos), strict=True))
        return [answers.get(r.image, Found(r.image, r.stamp, skipped=r.error)) for r in batch]

    def _play(self, photos: Sequence[Read]) -> list[Found]:
        try:
            answers = self._ask(photos)
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError, MemoryError):
            return [self._alone(photo) for photo in photos]
        self._failures = 0
        return answers

    def _alone(self, photo: Read) -> Found:
        try:
            found = self._ask([photo])[0]
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError, MemoryError) as error:
            self._failures += 1
            if self._failures >= FAILURES_IN_A_ROW:
                raise RuntimeError(
                    f"{self._failures} images in a row could not be played, the last one {photo.image}: {error}"
                ) from error
            logger.debug("%s", photo.image, exc_info=True)
            return Found(photo.image, photo.stamp, skipped=f"cannot be played: {type(error).__name__}: {error}")
        self._failures = 0
        return found

    def _ask(self, photos: Sequence[Read]) -> list[Found]:
        if not photos:
            return []
        images = [photo.photo for photo in photos if photo.photo is not None]
        answers = self._predict.batch(images, list(self._categories))
        return [
            Found(p.image, p.stamp, tuple(replace(in_original(a, p.size), image_id=p.image) for a in annotations))
            for p, annotations in zip(photos, answers, strict=True)
        ]


def _summary(run: Run, new: int, threshold: float, seconds: float, calibrated: bool) -> Summary:
    images = skipped = masks = present = doubtful = 0
    for found in run:
        images += not found.skipped
        skipped += bool(found.skipped)
        masks += len(found.annotations)
        present += sum(a.found for a in found.annotations)
        doubtful += sum(is_doubtful(a, threshold) for a in found.annotations)
    return Summary(images, new, skipped, masks, present, doubtful, seconds, calibrated, run.identity.answer)
