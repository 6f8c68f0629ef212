"""SAM, SAM 2 (and 2.1), EdgeTAM and SAM 3's tracker as the transformers library has them, behind this package's contract.

The library runs the network and prepares the pixels; points, boxes and the way back to the image are the frame's. Its
forward takes a batch of different images with one prompt each, so that a batch says what each image alone would.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.frame import Frame
from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters.base import MaskPrediction, PromptableSegmenter
from alignsam_sb3.segmenters.pretrained import (
    chosen_device,
    fingerprint,
    library,
    load_image_processor,
    load_model,
    obtain_folder,
    read_config,
)

logger = logging.getLogger(__name__)

RANDOM = "random"
PREPROCESSING_VERSION = 1
OPTIONS = {"bf16": "bfloat16 where autocast allows it, in encoder and decoder"}
"""What may stand behind a ``?``."""
IMAGES_AT_ONCE = 64
"""Images that a GPU decodes in one call: the fine features alone take 17 MB each in single precision."""


@dataclass(frozen=True)
class Family:
    """What the library calls a kind of SAM.

    :param model: its class
    :param config: the class of its configuration
    :param processor: the class that prepares its pixels
    :param fine: names of the features that are finer than the embedding, the finest first
    :param vision: what the library's default configuration of the encoder lacks
    """

    model: str
    config: str
    processor: str
    fine: tuple[str, ...] = ("high_res_0", "high_res_1")
    vision: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features in the order in which the model has them."""
        return (*self.fine, "embeddings")

    @property
    def squash(self) -> bool:
        """SAM keeps the aspect ratio, the later ones do not."""
        return bool(self.fine)


_REPVIT = {
    "model_type": "timm_wrapper",
    "architecture": "repvit_m1",
    "num_classes": 1000,
    "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
}
_SAM = Family("SamModel", "SamConfig", "SamImageProcessor", fine=())
_SAM2 = Family("Sam2Model", "Sam2Config", "Sam2ImageProcessor")
_EDGETAM = Family("EdgeTamModel", "EdgeTamConfig", "Sam2ImageProcessor", vision={"backbone_config": _REPVIT})
_SAM3 = Family("Sam3TrackerModel", "Sam3TrackerConfig", "Sam3ImageProcessor")
FAMILIES: dict[str, Family] = {
    "sam": _SAM,
    "sam2": _SAM2,
    "sam2_video": _SAM2,  # as the released repositories say
    "edgetam": _EDGETAM,
    "edgetam_video": _EDGETAM,
    "sam3_tracker": _SAM3,
    "sam3_video": _SAM3,  # facebook/sam3: detector and tracker in one file
}
"""By ``model_type`` of ``config.json``."""
REFUSED = {
    "sam_hq": "transformers' SAM-HQ is left out: its decoder enlarges the image embedding as it was before the transformer, "
    "transposed, so its masks are not SAM-HQ's",
    "sam3": "SAM 3's detector is asked in words: use it as a text segmenter, sam3:/folder",
}


class HfSegmenter(PromptableSegmenter):
    """A frozen SAM of the transformers library.

    With ``multimask_output=False`` SAM 2 and later do as the library does. Where the single mask is not stable, they give the
    best of the three candidates, for each image by itself. Not stable: of the pixels above -0.05, fewer than 98 % are above
    0.05.

    :param model: as :func:`load_model` gives it
    :param processor: the library's image processor, set to the model's size
    :param config: what ``config.json`` says
    :param name: for messages
    :param options: of :data:`OPTIONS`
    :raises ValueError: an option is unknown, or the model's grids do not fit each other
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        processor: Any,  # noqa: ANN401
        config: Mapping[str, Any],
        name: str = "hf",
        options: Collection[str] = (),
    ) -> None:
        for option in options:
            if option not in OPTIONS:
                raise ValueError(nearest("option of a transformers segmenter", option, OPTIONS))
        self.model, self.processor, self.name = model, processor, name
        self.device = th.device(model.device)
        self.options = frozenset(options)
        self.family = FAMILIES[config["model_type"]]
        self._frame = Frame(image_side(model.config), self.family.squash)
        self._shapes = _feature_shapes(model.config, self.family)
        self._check_grids()
        self._digest = fingerprint(model, processor, config, self._frame.side, PREPROCESSING_VERSION)

    def _check_grids(self) -> None:
        """The contract and the library's prompt encoder both want logits four times as fine as the embedding."""
        grid = tuple(int(n) for n in self.model.prompt_encoder.image_embedding_size)
        finest = next(iter(self._shapes.values()))[1:]
        wanted = grid if not self.family.fine else (4 * grid[0], 4 * grid[1])
        if self.embedding_shape[1:] != grid or finest != wanted:
            raise ValueError(
                f"{self.name!r} has features {self._shapes} for prompts on a grid {grid}: backbone_feature_sizes, image_size "
                "and patch_size in its config.json do not fit each other"
            )

    @property
    def fingerprint(self) -> str:
        return "-".join(["hf", self.family.model, *sorted(self.options), self._digest])

    @property
    def frame(self) -> Frame:
        return self._frame

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        return self._shapes

    @property
    def at_once(self) -> int:
        return min(super().at_once, IMAGES_AT_ONCE)

    def _autocast(self) -> th.autocast:
        return th.autocast(self.device.type, th.bfloat16, enabled="bf16" in self.options)

    def _pixels(self, images: Sequence[NDArray[np.uint8]]) -> th.Tensor:
        """Pixel values (B, 3, side, side), as the library's processor gives them."""
        own = [np.require(image, np.uint8, "W") for image in images]  # the library would warn of one that is read-only
        thick = own if self.family.squash else [_thick(image, self._frame.side) for image in own]
        found = self.processor(
            images=thick, input_data_format="channels_last", return_tensors="pt", device=self.device
        )  # an image of 3 rows would be taken for channels first
        pixels: th.Tensor = found["pixel_values"].to(self.device)
        return pixels

    def encode_group(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, th.Tensor]:
        pixels = self._pixels(images)
        with self._autocast():
            found = self.model.get_image_embeddings(pixels)
        return {n: x.float() for n, x in zip(self.family.names, found if self.family.fine else [found], strict=True)}

    def decode_group(
        self,
        features: dict[str, th.Tensor],
        point_coords: th.Tensor | None,
        point_labels: th.Tensor | None,
        boxes: th.Tensor | None,
        mask_inputs: th.Tensor | None,
        multimask_output: bool,
    ) -> MaskPrediction:
        given: dict[str, th.Tensor] = {}  # one prompt for each image: the library's second dimension
        if point_coords is not None and point_labels is not None:
            given |= {"input_points": point_coords[:, None], "input_labels": point_labels[:, None]}
        if boxes is not None:
            given["input_boxes"] = boxes.reshape(-1, 1, 4)
        if mask_inputs is not None:
            given["input_masks"] = mask_inputs[:, None]
        levels = [features[name] for name in self.family.names]
        with self._autocast():
            answer = self.model(
                image_embeddings=levels if self.family.fine else levels[0], multimask_output=multimask_output, **given
            )
        return MaskPrediction(answer.pred_masks[:, 0].float(), answer.iou_scores[:, 0].float())


def image_side(config: Any) -> int:  # noqa: ANN401
    """Side of the square that a model sees, in pixels.

    :param config: of a model of :data:`FAMILIES`
    :raises ValueError: it is no square
    """
    size = config.prompt_encoder_config.image_size
    sides = {int(size)} if isinstance(size, int) else {int(side) for side in size}
    if len(sides) != 1:
        raise ValueError(f"image_size is {size}: a square was expected")
    return sides.pop()


def _feature_shapes(config: Any, family: Family) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    """Of the arrays that the library's ``get_image_embeddings`` gives for one image."""
    vision = config.vision_config
    if not family.fine:
        grid = int(vision.image_size) // int(vision.patch_size)
        return {"embeddings": (int(vision.output_channels), grid, grid)}
    width = int(config.mask_decoder_config.hidden_size)
    channels = (width // 8, width // 4, int(vision.fpn_hidden_size))
    sizes = [(int(size[0]), int(size[1])) for size in vision.backbone_feature_sizes]
    return {name: (c, *size) for name, c, size in zip(family.names, channels, sizes, strict=True)}


def _thick(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image of which at least one row and one column are left when its long side is scaled to ``side``.

    Of a thinner one the library would make nothing, and fail; its rows or columns are repeated.
    """
    longest = max(image.shape[:2])
    for axis in (0, 1):
        times = 1
        while int(image.shape[axis] * times * (side / longest) + 0.5) < 1:
            times += 1
        image = np.repeat(image, times, axis) if times > 1 else image
    return image


def load_hf(where: str, device: str | th.device = "auto", options: Collection[str] = ()) -> HfSegmenter:
    """Load a segmenter of the transformers library.

    :param where: a folder as ``save_pretrained`` leaves it, or ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` of the Hub.
        ``KIND:random`` has random weights in full size, to try how things fit and how long they take
    :param device: ``"auto"`` takes CUDA where there is one
    :param options: of :data:`OPTIONS`
    :raises FileNotFoundError: there is no such folder or repository
    :raises PermissionError: the repository is gated
    :raises ConnectionError: it cannot be downloaded
    :raises ValueError: it is no SAM of a known kind, or damaged
    :raises ImportError: ``transformers`` is missing or too old
    """
    kind, _, weights = where.partition(":")
    folder: Path | None = None
    if weights == RANDOM:
        config, model = _random_model(kind, chosen_device(device))
    else:
        folder = obtain_folder(where, "hf")
        config = read_config(folder, FAMILIES, REFUSED)
        model = load_model(FAMILIES[config["model_type"]].model, folder, chosen_device(device))
    family, side = FAMILIES[config["model_type"]], image_side(model.config)
    square = {"height": side, "width": side}
    sizes = {"size": square} if family.squash else {"size": {"longest_edge": side}, "pad_size": square}
    processor = load_image_processor(family.processor, folder, **sizes)
    return HfSegmenter(model, processor, config, f"hf:{where}", options)


def _random_model(kind: str, device: th.device) -> tuple[dict[str, Any], Any]:
    """Configuration and model: the library's defaults, which are SAM's ViT-B, SAM 2.1's smallest, EdgeTAM and SAM 3."""
    if kind not in FAMILIES:
        raise ValueError(nearest("kind of SAM", kind, FAMILIES))
    family = FAMILIES[kind]
    logger.warning("segmenter hf:%s:%s has random weights: it segments nothing", kind, RANDOM)
    config = library(family.config)(**({"vision_config": dict(family.vision)} if family.vision else {}))
    with th.random.fork_rng(devices=[]):
        th.manual_seed(0)
        model = library(family.model)(config).eval().requires_grad_(False).to(device)
    return {"model_type": kind}, model
