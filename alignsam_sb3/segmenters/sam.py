"""Any ``segment_anything.modeling.Sam``, decoding different images in one call."""

from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import numpy as np
import torch as th
from numpy.typing import NDArray
from PIL import Image
from segment_anything.modeling import Sam
from timm.utils.model import reparameterize_model
from torch.nn import functional as F

from alignsam_sb3.compiling import compiled_for_shapes
from alignsam_sb3.fingerprints import digest
from alignsam_sb3.frame import Frame
from alignsam_sb3.names import nearest
from alignsam_sb3.segmenters.base import MaskPrediction, PromptableSegmenter, pooled
from alignsam_sb3.segmenters.decoder import OnnxDecoder, all_masks, embed_prompts

PREPROCESSING_VERSION = 1
OPTIONS = {
    "bf16": "bfloat16 where allowed, in encoder and decoder; on CUDA the decoder uses it anyway",
    "fp32": "single precision throughout, on CUDA, too",
    "compile": "the decoder as compiled graphs, one for each number of points; on CUDA so anyway",
    "eager": "the decoder as it is, on CUDA, too",
    "channels_last": "the encoder's memory layout",
    "fuse": "the encoder's parallel branches and norms folded into one convolution each (RepViT, EdgeSAM; tiny always is)",
    "onnx": "the decoder in onnxruntime, on the CPU",
}
"""What may stand behind a ``?`` in a segmenter's name; docs/speed.md says what each brings and costs."""
ONLY_THE_DECODER = frozenset({"onnx", "fp32", "compile", "eager"})
"""Options that change no embedding, and so no bank."""

COMPILED_FROM = 64
"""Images in a batch from which compiling pays on CUDA: each batch size and number of points takes some seconds once."""

Decoder = Callable[..., tuple[th.Tensor, th.Tensor]]
"""Sparse prompts (B, T, C), dense prompts with the image embedding in them (B, C, h, w) and finer features, where the model
has some, to all masks and their IoU."""


class SamSegmenter(PromptableSegmenter):
    """A frozen SAM.

    Agrees with ``segment_anything.SamPredictor`` on the same image and points; unlike it, ``decode`` takes clicks on many
    images at once.

    :param sam: the model; it is set to eval mode, without gradients
    :param device: where it runs; ``"auto"`` takes CUDA where there is one
    :param name: for messages; what stands before a colon goes into the fingerprint, too
    :param options: of :data:`OPTIONS`, ways to be faster that change numbers a little; none by default, but that the embedded
        ``tiny`` is always folded (``fuse``)
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
        if "fuse" in self.options or name.partition(":")[0] == "tiny":  # whose numbers change by less than a bank can hold
            self.sam.image_encoder = reparameterize_model(self.sam.image_encoder).requires_grad_(False)
        self._layout = th.channels_last if "channels_last" in self.options else th.contiguous_format
        self.sam.image_encoder.to(memory_format=self._layout)
        on_cuda = self.device.type == "cuda"
        self._decodes_in_bf16 = "bf16" in self.options or (on_cuda and "fp32" not in self.options)
        compiled = "compile" in self.options or (on_cuda and "eager" not in self.options)
        self._compiled, self._compiled_from = compiled_for_shapes(all_masks), 1 if "compile" in self.options else COMPILED_FROM
        self._decoder: Decoder = self._compiled_decoder if compiled else self._torch_decoder
        if "onnx" in self.options:
            self._decoder = OnnxDecoder(self.sam)

    @property
    def fingerprint(self) -> str:
        """Changes with the model, a weight, the preprocessing, and the options that change embeddings."""
        return "-".join([self.name.split(":")[0].split("?")[0], *sorted(self.options - ONLY_THE_DECODER), self._digest])

    def _autocast(self, enabled: bool) -> th.autocast:
        return th.autocast(self.device.type, th.bfloat16, enabled=enabled)

    @property
    def img_size(self) -> int:
        """Side of the frame in pixels."""
        return int(self.sam.image_encoder.img_size)

    @property
    def learned_boxes(self) -> bool:
        return bool(self._fine_shapes) or not self.name.startswith("tiny")  # the first one was fitted on clicks alone

    @property
    def frame(self) -> Frame:
        return Frame(self.img_size)

    @property
    def feature_shapes(self) -> dict[str, tuple[int, ...]]:
        encoder = self.sam.prompt_encoder
        height, width = encoder.image_embedding_size
        return {**self._fine_shapes, "embeddings": (int(encoder.embed_dim), int(height), int(width))}

    @property
    def mask_side(self) -> int:
        return (8 if self._fine_shapes else 4) * self.embedding_shape[1]

    @property
    def _fine_shapes(self) -> dict[str, tuple[int, ...]]:
        return getattr(self.sam.image_encoder, "fine_shapes", {})

    @cached_property
    def _image_pe(self) -> th.Tensor:
        with th.no_grad():
            pe: th.Tensor = self.sam.prompt_encoder.get_dense_pe()
        return pe

    def _pixels(self, image: NDArray[np.uint8]) -> th.Tensor:
        """Resize, normalise, then pad right and below: (3, img_size, img_size)."""
        height, width = self.frame.extent((image.shape[0], image.shape[1]))
        resized = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        pixels = th.as_tensor(resized, device=self.device).permute(2, 0, 1).float()
        normal = (pixels - self.sam.pixel_mean) / self.sam.pixel_std
        return F.pad(normal, (0, self.img_size - width, 0, self.img_size - height))

    def encode_group(self, images: Sequence[NDArray[np.uint8]]) -> dict[str, th.Tensor]:
        batch = th.stack([self._pixels(image) for image in images]).contiguous(memory_format=self._layout)
        with self._autocast("bf16" in self.options):
            encoder = self.sam.image_encoder
            seen = encoder.features(batch) if self._fine_shapes else {"embeddings": encoder(batch)}
        return {name: x.float().contiguous() for name, x in seen.items()}

    def decode_group(
        self,
        features: dict[str, th.Tensor],
        point_coords: th.Tensor | None,
        point_labels: th.Tensor | None,
        boxes: th.Tensor | None,
        mask_inputs: th.Tensor | None,
        multimask_output: bool,
    ) -> MaskPrediction:
        encoder = self.sam.prompt_encoder
        sparse = embed_prompts(encoder, point_coords, point_labels, boxes)
        if mask_inputs is None:
            dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1) + features["embeddings"]
        else:
            masks = pooled(mask_inputs, 4 * self.embedding_shape[1])
            dense = encoder.mask_downscaling(masks[:, None]) + features["embeddings"]
        logits, iou = self._decoder(sparse, dense, *(features[name] for name in self._fine_shapes))
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return MaskPrediction(logits[:, chosen], iou[:, chosen])

    def _torch_decoder(
        self, *given: th.Tensor, masks_of: Callable[..., tuple[th.Tensor, th.Tensor]] = all_masks
    ) -> tuple[th.Tensor, th.Tensor]:
        with self._autocast(self._decodes_in_bf16):
            logits, iou = masks_of(self.sam.mask_decoder, self._image_pe, *given)
        return logits.float(), iou.float()

    def _compiled_decoder(self, *given: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """The same in one compiled graph for each of a few batch sizes: a large batch is filled up to a power of two."""
        count = len(given[0])
        if count < self._compiled_from:
            return self._torch_decoder(*given)
        missing = (1 << (count - 1).bit_length()) - count
        if missing:
            given = tuple(th.cat([x, x[-1:].expand(missing, *x.shape[1:])]) for x in given)
        logits, iou = self._torch_decoder(*given, masks_of=self._compiled)
        return logits[:count], iou[:count]
