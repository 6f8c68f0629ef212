"""Oxford-IIIT Pets: cats and dogs; the border of a trimap counts neither way."""

from collections.abc import Sequence

from alignsam_sb3.datasets.labelled import (
    Annotation,
    LabelledImages,
    Record,
    images_in,
    listed,
    read_labels,
    regions,
    require_folders,
)

_ANIMAL, _BORDER = 1, 3


class OxfordPets(LabelledImages):
    """``images/`` and ``annotations/trimaps/`` (1 animal, 2 background, 3 border).

    ``annotations/trainval.txt`` and ``test.txt`` are the splits; a folder without these lists is split by ``folds``. Names of
    cats' breeds begin with a capital, those of dogs' do not.
    """

    kind = "oxford_pets"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        images, trimaps = self.root / "images", self.root / "annotations" / "trimaps"
        require_folders("an Oxford pets root has images/ and annotations/trimaps/", images, trimaps)
        name = {"train": "trainval", "eval": "test"}.get(split, split)
        path = self.root / "annotations" / f"{name}.txt"
        kept = set(listed(path)) if path.is_file() else None
        paths = [p for p in images_in(images) if kept is None or p.stem in kept]
        return [Record(p.stem, p, trimaps / f"{p.stem}.png") for p in paths], kept is not None

    def _known(self) -> Sequence[str]:
        return ("cat", "dog")

    def _annotate(self, record: Record) -> Annotation:
        name = "cat" if record.image_id[0].isupper() else "dog"
        return regions(read_labels(record.labels), {_ANIMAL: name}, (_BORDER,))
