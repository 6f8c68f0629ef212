"""Policy, SAM and CLIP as ONNX files that run without torch, and an example that clicks with onnxruntime alone."""

import importlib.util
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch as th
from segment_anything.modeling import Sam
from torch import nn
from torch.nn import functional as F

from alignsam_sb3.choice import ANSWERS, LAST
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.frame import PADDING
from alignsam_sb3.predictor import Predictor
from alignsam_sb3.segmenters import SamSegmenter
from alignsam_sb3.segmenters.base import pooled
from alignsam_sb3.segmenters.decoder import all_masks, embed_prompts
from alignsam_sb3.semantics import ClipSurgery
from alignsam_sb3.semantics.clip_surgery import feature_surgery, similarity_maps, surgery_tokens

logger = logging.getLogger(__name__)

EXAMPLE = Path(__file__).parent / "assets" / "onnx_example.py"


class _Encoder(nn.Module):
    """A photo in SAM's frame to its features by name, in the order of ``names``."""

    def __init__(self, sam: Sam, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.names = sam.image_encoder, list(names)

    def forward(self, pixels: th.Tensor) -> tuple[th.Tensor, ...]:
        if len(self.names) == 1:
            return (self.encoder(pixels),)
        seen = self.encoder.features(pixels)
        return tuple(seen[name] for name in self.names)


class _Decoder(nn.Module):
    """Features, clicks and the last logits to the candidate that SAM prefers, enlarged to the frame, too."""

    image_pe: th.Tensor

    def __init__(self, sam: Sam, names: Sequence[str]) -> None:
        super().__init__()
        self.prompts, self.decoder, self.side = sam.prompt_encoder, sam.mask_decoder, int(sam.image_encoder.img_size)
        self.names = list(names)
        self.register_buffer("image_pe", sam.prompt_encoder.get_dense_pe().detach())

    def forward(
        self, coords: th.Tensor, labels: th.Tensor, last: th.Tensor, is_first: th.Tensor, *features: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        seen = dict(zip(self.names, features, strict=True))
        embedding, fine = seen["embeddings"], [seen[name] for name in self.names if name != "embeddings"]
        sparse = embed_prompts(self.prompts, coords, labels, None)
        nothing = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1)
        fed = self.prompts.mask_downscaling(pooled(last, 4 * embedding.shape[-1])[:, None])
        dense = embedding + th.where(is_first, nothing, fed)
        logits, iou = all_masks(self.decoder, self.image_pe, sparse, dense, *fine)
        best = iou[:, 1:].argmax(1) + 1
        chosen = th.gather(logits, 1, best[:, None, None, None].expand(-1, 1, *logits.shape[2:]))
        large = F.interpolate(chosen, (self.side, self.side), mode="bilinear", align_corners=False)
        return chosen[:, 0], iou.gather(1, best[:, None])[:, 0], large[:, 0]


class _Language(nn.Module):
    """A photo squashed to CLIP's square to its maps in SAM's frame."""

    features: th.Tensor
    empty: th.Tensor

    def __init__(self, clip: ClipSurgery, texts: Sequence[str], cells: int) -> None:
        super().__init__()
        self.visual, self.n_dual, self.grid, self.cells = clip.clip.visual, clip.n_dual, clip.grid, cells
        self.alone = len(texts) == 1
        self.register_buffer("features", clip.text_features(texts).detach().clone())
        self.register_buffer("empty", clip.text_features([""]).detach().clone())

    def forward(self, pixels: th.Tensor, extent: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """``extent`` (2,): height and width that the photo takes up in the frame, as shares of its side."""
        tokens = F.normalize(surgery_tokens(self.visual, pixels, self.n_dual)[0], dim=-1)
        similarity = feature_surgery(tokens, self.features, self.empty if self.alone else None)
        cosines = (tokens @ self.features.T)[:, 1:].transpose(1, 2).reshape(len(tokens), -1, *self.grid)
        places = (th.arange(self.cells) + 0.5) / self.cells
        y, x = places / extent[0], places / extent[1]
        at = th.stack([(2 * x - 1).expand(self.cells, -1), (2 * y - 1)[:, None].expand(-1, self.cells)], dim=-1)[None]
        off = (y >= 1)[:, None] | (x >= 1)[None, :]
        framed = [
            F.grid_sample(maps, at, mode="bilinear", padding_mode="border", align_corners=False).masked_fill(off, PADDING)
            for maps in (similarity_maps(similarity[:, 1:], self.grid), cosines)
        ]
        return framed[0], framed[1]


class _Policy(nn.Module):
    """An observation to the logits of the actions."""

    def __init__(self, policy: Any, names: Sequence[str]) -> None:  # noqa: ANN401 (SB3's, with more than its type says)
        super().__init__()
        self.policy, self.names = policy, list(names)

    def forward(self, *values: th.Tensor) -> th.Tensor:
        features = self.policy.extract_features(dict(zip(self.names, values, strict=True)))
        features = features[0] if isinstance(features, tuple) else features
        logits: th.Tensor = self.policy.action_net(self.policy.mlp_extractor.forward_actor(features))
        return logits


def export_onnx(predict: Predictor, folder: Path) -> list[Path]:
    """Write ``encoder``, ``decoder``, ``policy`` and ``language.onnx``, ``config.json`` and ``example.py``.

    A policy without a language prior has no ``language.onnx``.

    :return: what was written
    :raises ImportError: the packages of the extra are missing
    :raises ValueError: the policy does more than click by its own labels, or its segmenter is no SAM
    """
    try:
        import onnxscript  # noqa: F401 (torch.onnx.export needs it)
    except ImportError as error:
        raise ImportError("export needs more packages: pip install 'alignsam_sb3[onnx]'") from error
    segmenter, task = predict.segmenter, predict.task
    odd = [f"{name}={value!r}" for name, value in _odd(predict).items()]
    if odd or not isinstance(segmenter, SamSegmenter):
        raise ValueError(
            "only policies that click by themselves for a SAM can be exported, and this one has "
            + (", ".join(odd) or segmenter.name)
        )
    if predict.answer != LAST:
        logger.warning(
            "the files hand out %s, not %s, which calibration chose and alignsam annotate takes",
            ANSWERS[LAST],
            ANSWERS[predict.answer],
        )
    folder.mkdir(parents=True, exist_ok=True)
    sam, side = segmenter.sam.cpu(), segmenter.img_size
    many, m, cells = th.export.Dim("clicks", min=1, max=64), segmenter.mask_side, segmenter.embedding_shape[1]
    names, features = list(segmenter.feature_shapes), [th.rand(1, *shape) for shape in segmenter.feature_shapes.values()]
    clicks = (th.rand(1, 3, 2) * side, th.ones(1, 3, dtype=th.int64), th.rand(1, m, m), th.tensor(False))
    shapes: tuple[Any, ...] = ({1: many}, {1: many}, {}, {}, tuple({} for _ in names))
    _write(_Encoder(sam, names), (th.rand(1, 3, side, side),), folder / "encoder.onnx", ["pixels"], names)
    given = ["coords", "labels", "last", "is_first", *names]
    _write(_Decoder(sam, names), (*clicks, *features), folder / "decoder.onnx", given, ["logits", "iou", "large"], shapes)
    written = [folder / "encoder.onnx", folder / "decoder.onnx"]
    if predict.clip is not None:
        texts = [task.prompts.get(name, name) for name in predict.categories]
        size = predict.clip.image_size
        photo = (th.rand(1, 3, size, size), th.tensor([1.0, 0.75]))
        maps = ["similarity_maps", "cosine_maps"]
        _write(_Language(predict.clip, texts, cells), photo, folder / "language.onnx", ["pixels", "extent"], maps)
        written.append(folder / "language.onnx")
    spaces = dict(sorted(predict.model.observation_space.spaces.items()))  # type: ignore[attr-defined]
    observed = tuple(th.as_tensor(space.sample())[None] for space in spaces.values())
    policy = predict.model.policy.cpu()
    _write(_Policy(policy, list(spaces)), observed, folder / "policy.onnx", list(spaces), ["action_logits"])
    (folder / "config.json").write_text(json.dumps(_config(predict, spaces), indent=1))
    (folder / "example.py").write_text(EXAMPLE.read_text())
    return [*written, folder / "policy.onnx", folder / "config.json", folder / "example.py"]


def measure_latency(predict: Predictor, folder: Path, photos: int) -> str:
    """Milliseconds that one photo and one category take, in torch and in the files that :func:`export_onnx` wrote.

    :param photos: how many are tried, toy scenes of 640 x 480
    """
    spec = importlib.util.spec_from_file_location("example", folder / "example.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    scenes, category = ToyScenes("semantic", "eval", n_images=photos), predict.categories[0]
    times: dict[str, list[float]] = {"torch": [], "onnxruntime": []}
    for k in range(photos):
        photo = cv2.resize(scenes[k].image, (640, 480)).astype(np.uint8)
        for name, segment in (("torch", predict), ("onnxruntime", example.segment)):
            began = time.perf_counter()
            segment(photo, category)
            times[name].append(1000 * (time.perf_counter() - began))
    rows = [f"| {name} | {np.median(t):.0f} | {np.quantile(t, 0.9):.0f} |" for name, t in times.items()]
    return "\n".join(["| a photo, ms | median | 90 % below |", "|---|---|---|", *rows])


def _odd(predict: Predictor) -> dict[str, Any]:
    """What a policy does beside clicking until it is done."""
    task = predict.task
    asked = {"labels": task.labels != "agent", "srm": task.srm, "initial_pair": task.initial_pair}
    asked |= {"box": task.box is not None, "remove": task.remove, "absent": task.absent > 0}
    return {name: getattr(task, name) for name, used in asked.items() if used}


def _write(
    module: nn.Module,
    given: tuple[th.Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...] | None = None,
) -> None:
    options: dict[str, Any] = {"dynamic_shapes": shapes, "external_data": False, "verbose": False, "optimize": True}
    with th.no_grad():
        th.onnx.export(module.eval(), given, path, input_names=inputs, output_names=outputs, **options)


def _config(predict: Predictor, spaces: Mapping[str, Any]) -> dict[str, Any]:
    """What the example must know."""
    segmenter = predict.segmenter
    assert isinstance(segmenter, SamSegmenter)
    described = {
        "categories": list(predict.categories),
        "clicks": predict.task.max_steps,
        "done": predict.task.done,
        "patches": predict.task.patches,
        "side": segmenter.img_size,
        "mask_side": segmenter.mask_side,
        "picture": int(spaces["image"].shape[1]),
        "mean": segmenter.sam.pixel_mean.flatten().tolist(),
        "std": segmenter.sam.pixel_std.flatten().tolist(),
    }
    if predict.clip is not None:
        clip = predict.clip
        described["language"] = {
            "side": clip.image_size,
            "mean": clip._mean.flatten().tolist(),
            "std": clip._std.flatten().tolist(),
        }
    return described
