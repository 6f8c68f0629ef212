"""SAM's mask decoder for a batch of different images, in torch or in onnxruntime."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam
from torch import nn
from torch.nn import functional as F

from alignsam_sb3.segmenters.fine import FineMaskDecoder


def all_masks(
    decoder: MaskDecoder, image_pe: th.Tensor, sparse: th.Tensor, dense: th.Tensor, *fine: th.Tensor
) -> tuple[th.Tensor, th.Tensor]:
    """All of SAM's masks: the one for clear prompts first, then the candidates for ambiguous ones.

    The package's decoder repeats one image embedding over all prompts and adds the dense prompt; each image's embedding
    folded into its dense prompt gives the same sum for different images.

    :param image_pe: (1, C, h, w)
    :param sparse: (B, T, C)
    :param dense: (B, C, h, w), the image embedding added
    :param fine: the finer features of a :class:`~alignsam_sb3.segmenters.fine.FineMaskDecoder`
    :return: logits (B, 1 + M, m, m) and predicted IoU (B, 1 + M)
    """
    if isinstance(decoder, FineMaskDecoder):
        return decoder.masks_of(image_pe, sparse, dense, fine)
    logits, iou = decoder.predict_masks(
        image_embeddings=th.zeros_like(dense[:1]),
        image_pe=image_pe,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    return logits, iou


def embed_prompts(
    encoder: PromptEncoder, point_coords: th.Tensor | None, point_labels: th.Tensor | None, boxes: th.Tensor | None
) -> th.Tensor:
    """SAM's tokens of points and boxes, (B, T, C), by indexing a table.

    The package's own encoder selects by boolean masks, which makes a GPU wait. The sums are the same.

    :param point_coords: (B, N, 2) in pixels of the frame
    :param point_labels: (B, N) 1, 0, or -1 for a point that is none
    :param boxes: (B, 2, 2) corners in pixels of the frame
    """
    table = th.cat([encoder.not_a_point_embed.weight, *(e.weight for e in encoder.point_embeddings)])
    tokens = []
    if point_coords is not None and point_labels is not None:
        if boxes is None:  # SAM then adds a point that is none
            point_coords = F.pad(point_coords, (0, 0, 0, 1))
            point_labels = F.pad(point_labels, (0, 1), value=-1)
        places = encoder.pe_layer.forward_with_coords(point_coords + 0.5, encoder.input_image_size)
        tokens.append(places * (point_labels >= 0)[..., None] + table[point_labels.long() + 1])
    if boxes is not None:
        tokens.append(encoder.pe_layer.forward_with_coords(boxes + 0.5, encoder.input_image_size) + table[3:5])
    return th.cat(tokens, dim=1)


class _Exported(nn.Module):
    """The decoder as it is exported: its position encoding is a constant."""

    image_pe: th.Tensor

    def __init__(self, decoder: MaskDecoder, image_pe: th.Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        self.register_buffer("image_pe", image_pe)

    def forward(self, sparse: th.Tensor, dense: th.Tensor, *fine: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return all_masks(self.decoder, self.image_pe, sparse, dense, *fine)


class OnnxDecoder:
    """The same in onnxruntime, exported when it is made (some seconds); any number of images and points.

    :raises ImportError: the packages of the ``onnx`` extra are missing
    """

    def __init__(self, sam: Sam) -> None:
        try:
            import onnxruntime
            import onnxscript  # noqa: F401 (torch.onnx.export needs it)
        except ImportError as error:
            raise ImportError(
                "the option 'onnx' of a segmenter needs more packages: pip install 'alignsam_sb3[onnx]'"
            ) from error
        with th.no_grad():
            image_pe = sam.prompt_encoder.get_dense_pe().cpu()
        width, side = image_pe.shape[1], image_pe.shape[-1]
        images, tokens = th.export.Dim("images", min=1), th.export.Dim("tokens", min=1)
        shapes = getattr(sam.image_encoder, "fine_shapes", {})
        self._names = ["sparse", "dense", *shapes]
        fine = tuple(th.zeros(3, *shape) for shape in shapes.values())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "decoder.onnx"
            th.onnx.export(
                _Exported(sam.mask_decoder.cpu(), image_pe).eval(),
                (th.zeros(3, 4, width), th.zeros(3, width, side, side), *fine),
                path,
                input_names=self._names,
                output_names=["logits", "iou"],
                dynamic_shapes=({0: images, 1: tokens}, {0: images}, tuple({0: images} for _ in fine)),
                external_data=False,
                verbose=False,
            )
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = th.get_num_threads()
            self._session: Any = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def __call__(self, *given: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Sparse prompts (B, T, C), dense ones (B, C, h, w) and finer features to what :func:`all_masks` gives."""
        inputs = {name: np.ascontiguousarray(x.cpu().numpy()) for name, x in zip(self._names, given, strict=True)}
        logits, iou = self._session.run(None, inputs)
        return th.from_numpy(logits), th.from_numpy(iou)
