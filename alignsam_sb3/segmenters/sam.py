"""Any ``segment_anything.modeling.Sam``, decoding different images in one call."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import numpy as np
import torch as th
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from timm.utils.model import reparameterize_model
from torch.nn import functional as F

from alignsam_sb3.fingerprints import digest
from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters.base import MaskPrediction, PointPrompts, frame_size
from alignsam_sb3.segmenters.decoder import OnnxDecoder, all_masks

PREPROCESSING_VERSION = 1
OPTIONS = {
    "bf16": "bfloat16 where allowed, in encoder and decoder",
    "channels_last": "the encoder's memory layout",
    "fuse": "the encoder's parallel branches and norms folded into one convolution each (RepViT, EdgeSAM, tiny)",
    "onnx": "the decoder in onnxruntime, on the CPU",
}
"""What may stand behind a ``?`` in a segmenter's name; README has what each brings and costs."""

Decoder = Callable[[th.Tensor, th.Tensor], tuple[th.Tensor, th.Tensor]]
"""Sparse prompts (B, T, C) and dense prompts with the image embedding in them (B, C, h, w) to all masks and their IoU."""


class SamSegmenter:
    """A frozen SAM.

    Agrees with ``segment_anything.SamPredictor`` on the same image and points; unlike it, ``decode`` takes clicks on many
    images at once. Episodes are grouped by their number of points rather than padded to one length, since a padding
    token takes part in the decoder's attention and changes the masks.

    :param sam: the model; it is set to eval mode, without gradients
    :param device: where it runs; ``"auto"`` takes CUDA where there is one
    :param name: for messages; what stands before a colon goes into the fingerprint, too
    :param options: of :data:`OPTIONS`, ways to be faster that change numbers a little; none by default
    :raises ValueError: a weight is NaN or infinite, or an option is unknown
    """

    def __init__(self, sam: Sam, device: str | th.device = "auto", name: str = "sam", options: Collection[str] = ()) -> None:
        for option in options:
            if option not in OPTIONS:
                raise ValueError(nearest("option of a segmenter", option, OPTIONS))
        if str(device) == "auto":
            device = "cuda" if th.cuda.is_available() else "cpu"
        self.device = th.device(device)
        self.name = name
        broken = [key for key, value in sam.state_dict().items() if not th.isfinite(value).all()]
        if broken:
            raise ValueError(
                f"segmenter {name!r} has NaN or infinite weights ({len(broken)} tensors, first {broken[0]!r}): "
                "the checkpoint is damaged or its training diverged; download or fit it again"
            )
        self.sam = sam.eval().requires_grad_(False).to(self.device)
        self.options = frozenset(options)
        pixels = [self.sam.pixel_mean.flatten().tolist(), self.sam.pixel_std.flatten().tolist()]
        self._digest = digest(self.sam.state_dict(), self.img_size, pixels, PREPROCESSING_VERSION)  # before anything is fused
        if "fuse" in self.options:
            self.sam.image_encoder = reparameterize_model(self.sam.image_encoder)
        self._layout = th.channels_last if "channels_last" in self.options else th.contiguous_format
        self.sam.image_encoder.to(memory_format=self._layout)
        self._decoder: Decoder = OnnxDecoder(self.sam) if "onnx" in self.options else self._torch_decoder

    @property
    def fingerprint(self) -> str:
        """Changes with the model, a weight, the preprocessing, and the options that change embeddings."""
        return "-".join([self.name.split(":")[0].split("?")[0], *sorted(self.options - {"onnx"}), self._digest])

    def _autocast(self) -> th.autocast:
        return th.autocast(self.device.type, th.bfloat16, enabled="bf16" in self.options)

    @property
    def img_size(self) -> int:
        return int(self.sam.image_encoder.img_size)

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        encoder = self.sam.prompt_encoder
        height, width = encoder.image_embedding_size
        return int(encoder.embed_dim), int(height), int(width)

    @cached_property
    def _image_pe(self) -> th.Tensor:
        with th.no_grad():
            pe: th.Tensor = self.sam.prompt_encoder.get_dense_pe()
        return pe

    def _to_frame(self, image: NDArray[np.uint8]) -> th.Tensor:
        """Resize, normalise, then pad right and below: (3, img_size, img_size)."""
        height, width = frame_size((image.shape[0], image.shape[1]), self.img_size)
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        pixels = th.as_tensor(resized, device=self.device).permute(2, 0, 1).float()
        normal = (pixels - self.sam.pixel_mean) / self.sam.pixel_std
        return F.pad(normal, (0, self.img_size - width, 0, self.img_size - height))

    @th.no_grad()
    def encode(self, images: Sequence[NDArray[np.uint8]]) -> th.Tensor:
        """Embed RGB images (H_i, W_i, 3) uint8 of any sizes.

        :return: (B, C, h, w) float32
        """
        batch = th.stack([self._to_frame(image) for image in images]).contiguous(memory_format=self._layout)
        with self._autocast():
            embeddings: th.Tensor = self.sam.image_encoder(batch)
        return embeddings.float().contiguous()

    @th.no_grad()
    def decode(self, embeddings: th.Tensor, prompts: PointPrompts, multimask_output: bool = True) -> MaskPrediction:
        """Answer the prompts of B different images.

        :param embeddings: (B, C, h, w)
        :param multimask_output: three candidates for each image rather than one
        :return: logits (B, M, 4h, 4w) and predicted IoU (B, M)
        """
        if tuple(embeddings.shape[1:]) != self.embedding_shape or len(embeddings) != len(prompts):
            raise ValueError(
                f"expected embeddings ({len(prompts)}, {', '.join(map(str, self.embedding_shape))}) for {len(prompts)} "
                f"prompts to {self.name!r}, got {tuple(embeddings.shape)}: were they encoded by another segmenter?"
            )
        masks = prompts.mask_inputs or [None] * len(prompts)
        groups: dict[tuple[int, bool], list[int]] = defaultdict(list)
        for i, labels in enumerate(prompts.point_labels):
            groups[len(labels), masks[i] is not None].append(i)
        embeddings = embeddings.to(self.device, th.float32)
        answers: list[tuple[th.Tensor, th.Tensor]] = [(th.empty(0), th.empty(0))] * len(prompts)
        for (_, fed_back), rows in groups.items():
            fed = [m for m in (masks[i] for i in rows) if m is not None] if fed_back else None
            logits, iou = self._decode_group(embeddings[rows], prompts, rows, fed, multimask_output)
            for k, i in enumerate(rows):
                answers[i] = (logits[k], iou[k])
        return MaskPrediction(th.stack([a[0] for a in answers]), th.stack([a[1] for a in answers]))

    def _decode_group(
        self, embeddings: th.Tensor, prompts: PointPrompts, rows: list[int], fed: list[th.Tensor] | None, multimask: bool
    ) -> tuple[th.Tensor, th.Tensor]:
        """Decode images that have the same number of points, with or without mask input.

        The package's decoder repeats one image embedding over all prompts and adds the dense prompt; folding each
        image's embedding into the dense prompt gives the same sum for different images.
        """
        coords = np.stack([self._coords_in_frame(prompts.point_coords[i], prompts.original_sizes[i]) for i in rows])
        labels = np.stack([prompts.point_labels[i] for i in rows])
        points = (th.as_tensor(coords, device=self.device), th.as_tensor(labels, device=self.device))
        dense_in = None if fed is None else th.stack(fed).to(self.device, th.float32)[:, None]
        sparse, dense = self.sam.prompt_encoder(points=points, boxes=None, masks=dense_in)
        logits, iou = self._decoder(sparse, dense + embeddings)
        return (logits[:, 1:], iou[:, 1:]) if multimask else (logits[:, :1], iou[:, :1])

    def _torch_decoder(self, sparse: th.Tensor, dense: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        with self._autocast():
            logits, iou = all_masks(self.sam.mask_decoder, self._image_pe, sparse, dense)
        return logits.float(), iou.float()

    def _coords_in_frame(self, coords: NDArray[np.float32], original_size: tuple[int, int]) -> NDArray[np.float32]:
        new_h, new_w = frame_size(original_size, self.img_size)
        scale = np.array([new_w / original_size[1], new_h / original_size[0]])
        scaled: NDArray[np.float32] = (np.asarray(coords, np.float64) * scale).astype(np.float32)
        return scaled

    def postprocess(self, logits: th.Tensor, original_size: tuple[int, int]) -> th.Tensor:
        """Undo the frame: enlarge to it, cut the padding off, resize to the image (bilinear, as SAM does).

        :param logits: (..., 4h, 4w), all of images of ``original_size``
        :return: (..., H, W)
        """
        flat = logits.reshape(-1, 1, *logits.shape[-2:])
        full = F.interpolate(flat, (self.img_size, self.img_size), mode="bilinear", align_corners=False)
        height, width = frame_size(original_size, self.img_size)
        cut = full[..., :height, :width]
        if (height, width) != original_size:
            cut = F.interpolate(cut, original_size, mode="bilinear", align_corners=False)
        return cut.reshape(*logits.shape[:-2], *original_size)
