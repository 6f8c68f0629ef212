"""Oxford-IIIT Pets: cats and dogs; the border of a trimap counts neither way."""

from collections.abc import Sequence

from alignsam_sb3.datasets.finding import images_by_stem
from alignsam_sb3.datasets.labelled import LabelledImages, Record, listed, require_folders
from alignsam_sb3.datasets.labels import read_labels
from alignsam_sb3.datasets.regions import Annotation, regions
from alignsam_sb3.datasets.splits import HELD_OUT, from_lists

_ANIMAL, _BORDER = 1, 3


class OxfordPets(LabelledImages):
    """``images/`` and ``annotations/trimaps/`` (1 animal, 2 background, 3 border).

    ``annotations/trainval.txt`` and ``test.txt`` are the splits; a folder without these lists is split by ``folds``. Names of
    cats' breeds begin with a capital, those of dogs' do not.
    """

    kind = "oxford_pets"
    orientation_rule = "stored"

    def _find(self, split: str) -> tuple[list[Record], bool]:
        images, trimaps = self.root / "images", self.root / "annotations" / "trimaps"
        require_folders("an Oxford pets root has images/ and annotations/trimaps/", images, trimaps)
        records = [Record(p.stem, p, trimaps / f"{p.stem}.png") for p in images_by_stem(images, self.skipped).values()]
        lists = {p.stem: listed(p) for p in sorted((self.root / "annotations").glob("*.txt")) if p.stem != "list"}
        found = from_lists(lists, split, self.root) if lists else None
        if found is None:
            return records, split == "all"
        for name in found[1]:
            self._skip(HELD_OUT, name)
        return [record for record in records if record.image_id in set(found[0])], True

    def _known(self) -> Sequence[str]:
        return ("cat", "dog")

    def _annotate(self, record: Record) -> Annotation:
        name = "cat" if record.image_id[0].isupper() else "dog"
        return regions(read_labels(record.labels), {_ANIMAL: name}, (_BORDER,))
