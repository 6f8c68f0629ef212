"""Annotation: what was found of one category in one image. What predicts gives it, what exports and reviews takes it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from alignsam_sb3.clickers import Click
from alignsam_sb3.encodings import Mask, area_of, box_of, from_coco_rle, to_coco_rle, to_label_studio_rle, to_yolo_lines
from alignsam_sb3.names import nearest

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Annotation:
    """One category of one image.

    :param image_id: name of the image
    :param category: what was looked for
    :param size: (height, width) of the image in pixels
    :param rle: what the segmenter answered, as COCO's compressed run lengths
    :param present: whether the category is in the image at all; if not, :attr:`mask` is empty whatever was answered
    :param score: predicted Dice of :attr:`mask`, in [0, 1]
    :param low: a lower bound of its Dice that holds with the calibration's probability; NaN without a calibration
    :param iou_predicted: the IoU that the segmenter itself predicts
    :param clicks: what was clicked, in order
    :param signals: what else was measured that may tell the mask's quality
    :param policy: hash of the policy that clicked
    """

    image_id: str
    category: str
    size: tuple[int, int]
    rle: str
    present: bool = True
    score: float = 0.0
    low: float = math.nan
    iou_predicted: float = 0.0
    clicks: tuple[Click, ...] = ()
    signals: Mapping[str, float] = field(default_factory=dict)
    policy: str = ""

    @classmethod
    def of(
        cls,
        image_id: str,
        category: str,
        mask: Mask,
        clicks: Sequence[Click] = (),
        iou_predicted: float = 0.0,
        signals: Mapping[str, float] | None = None,
        policy: str = "",
    ) -> "Annotation":
        """An annotation that nothing has been calibrated for: its score is the segmenter's own prediction.

        :param mask: (H, W) bool
        """
        made = tuple(((int(x), int(y)), int(label)) for (x, y), label in clicks)
        measured = {name: float(value) for name, value in (signals or {}).items()}
        encoded, height, width = to_coco_rle(mask)["counts"], *mask.shape
        score = min(max(float(iou_predicted), 0.0), 1.0)
        return cls(
            image_id, category, (height, width), encoded, True, score, math.nan, float(iou_predicted), made, measured, policy
        )

    @property
    def encoded(self) -> dict[str, Any]:
        """COCO's run lengths of :attr:`mask`."""
        return self.answered if self.present else to_coco_rle(np.zeros(self.size, bool))

    @property
    def answered(self) -> dict[str, Any]:
        """COCO's run lengths of what the segmenter answered, also where the category is held to be absent."""
        return {"size": list(self.size), "counts": self.rle}

    @property
    def mask(self) -> Mask:
        """(H, W) bool; empty where the category is held to be absent."""
        return from_coco_rle(self.answered) if self.present else np.zeros(self.size, bool)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return area_of(self.answered) if self.present else 0

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) of the mask in pixels; all 0 where it is empty."""
        return box_of(self.answered) if self.present else (0, 0, 0, 0)

    @property
    def found(self) -> bool:
        """Whether there is anything to export: the category is present and its mask is not empty."""
        return self.area > 0

    def to_json(self) -> dict[str, Any]:
        """As plain values; :meth:`from_json` reads them again. NaN becomes None, which is what JSON has."""
        values = {**asdict(self), "clicks": [[list(place), label] for place, label in self.clicks], "size": list(self.size)}
        return {**values, "low": None if math.isnan(self.low) else self.low}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Annotation":
        """What :meth:`to_json` gave."""
        clicks = tuple(((int(x), int(y)), int(label)) for (x, y), label in values["clicks"])
        height, width = values["size"]
        low = math.nan if values["low"] is None else float(values["low"])
        return cls(**{**values, "clicks": clicks, "size": (height, width), "low": low})

    def to_coco(self, id: int = 1, image_id: int = 1, category_id: int = 1) -> dict[str, Any]:
        """An annotation of COCO's, with run lengths; what COCO has no name for is added.

        :param id: number of the annotation
        :param image_id: number of the image
        :param category_id: number of the category
        """
        return {
            "id": id,
            "image_id": image_id,
            "category_id": category_id,
            "segmentation": self.encoded,
            "area": self.area,
            "bbox": list(self.box),
            "iscrowd": 0,
            "score": self.score,
            "score_low": None if math.isnan(self.low) else self.low,
            "iou_predicted": self.iou_predicted,
            "point_coords": [list(place) for place, _ in self.clicks],
            "point_labels": [label for _, label in self.clicks],
            "policy": self.policy,
        }

    def to_yolo(self, class_id: int = 0) -> str:
        """The lines of a YOLO segmentation file; none where nothing was found. YOLO has no holes: they are filled."""
        return "".join(f"{line}\n" for line in to_yolo_lines(self.mask, class_id))

    def to_label_studio(self, from_name: str = "mask", to_name: str = "image") -> dict[str, Any]:
        """A prediction of Label Studio's: ``{"model_version", "score", "result"}``, its mask as a brush.

        :param from_name: name of the ``BrushLabels`` tag in the project's configuration
        :param to_name: name of its ``Image`` tag
        """
        return {
            "model_version": self.policy or "alignsam_sb3",
            "score": self.score,
            "result": self.to_label_studio_results(from_name, to_name),
        }

    def to_label_studio_results(self, from_name: str = "mask", to_name: str = "image") -> list[dict[str, Any]]:
        """The regions of :meth:`to_label_studio`: one, or none where nothing was found."""
        if not self.found:
            return []
        region = {
            "id": f"{self.image_id}-{self.category}",
            "from_name": from_name,
            "to_name": to_name,
            "type": "brushlabels",
            "original_height": self.size[0],
            "original_width": self.size[1],
            "image_rotation": 0,
            "score": self.score,
            "value": {"format": "rle", "rle": to_label_studio_rle(self.mask), "brushlabels": [self.category]},
        }
        return [region]

    def to_supervision(self, class_id: int = 0) -> "supervision.Detections":
        """The mask as ``supervision.Detections``; none where nothing was found.

        :raises ImportError: the package is missing
        """
        return AnnotationSet((self,), (self.category,)).to_supervision(class_ids={self.category: class_id})

    def save_png(self, path: str | Path) -> None:
        """Write the mask as an image of 0 and 255, making its folder."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.mask.astype(np.uint8) * 255).save(path, format="PNG")

    def corrected(self, mask: Mask, clicks: Sequence[Click]) -> "Annotation":
        """The same with a mask that a person answers for: it is taken as right."""
        made = tuple(((int(x), int(y)), int(label)) for (x, y), label in clicks)
        present = bool(mask.any())
        return replace(self, rle=to_coco_rle(mask)["counts"], present=present, score=1.0, low=1.0, clicks=made)


@dataclass(frozen=True)
class AnnotationSet:
    """Annotations of one image or of many, with the order of the categories that numbers stand for.

    :param annotations: in the order of the images
    :param categories: all that were looked for
    :raises ValueError: an annotation is of another category
    """

    annotations: tuple[Annotation, ...]
    categories: tuple[str, ...]

    def __post_init__(self) -> None:
        for annotation in self.annotations:
            if annotation.category not in self.categories:
                raise ValueError(nearest("category", annotation.category, self.categories))

    def __len__(self) -> int:
        return len(self.annotations)

    def __iter__(self) -> Iterator[Annotation]:
        return iter(self.annotations)

    def to_coco(self) -> dict[str, Any]:
        """A whole COCO file: images in their order, numbered from 1, those without objects included."""
        sizes = {a.image_id: a.size for a in self.annotations}
        numbers = {name: k for k, name in enumerate(sizes, 1)}
        found = [a for a in self.annotations if a.found]
        return {
            "images": [{"id": numbers[n], "file_name": n, "height": h, "width": w} for n, (h, w) in sizes.items()],
            "annotations": [
                a.to_coco(k, numbers[a.image_id], self.categories.index(a.category) + 1) for k, a in enumerate(found, 1)
            ],
            "categories": coco_categories(self.categories),
        }

    def to_supervision(self, class_ids: Mapping[str, int] | None = None) -> "supervision.Detections":
        """All masks of one image as ``supervision.Detections``.

        :param class_ids: numbers of the categories; by default their places
        :raises ImportError: the package is missing
        :raises ValueError: the annotations are of images of several sizes
        """
        try:
            import supervision
        except ImportError as error:
            raise ImportError("to_supervision() needs the package supervision: pip install supervision") from error
        found = [a for a in self.annotations if a.found]
        if not found:
            return supervision.Detections.empty()
        if len({a.image_id for a in found}) > 1:
            raise ValueError("supervision.Detections are those of one image: take the annotations image by image")
        numbers = class_ids or {name: k for k, name in enumerate(self.categories)}
        corners = [(x, y, x + w, y + h) for x, y, w, h in (a.box for a in found)]
        return supervision.Detections(
            xyxy=np.array(corners, np.float32),
            mask=np.stack([a.mask for a in found]),
            confidence=np.array([a.score for a in found], np.float32),
            class_id=np.array([numbers[a.category] for a in found]),
            data={"class_name": np.array([a.category for a in found])},
        )


def coco_categories(names: Sequence[str]) -> list[dict[str, Any]]:
    """COCO's list of categories, numbered from 1."""
    return [{"id": k, "name": name} for k, name in enumerate(names, 1)]
