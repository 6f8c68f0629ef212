"""Finding and reading a CLIP that is named by one string."""

import os
import re
from functools import lru_cache
from pathlib import Path

import open_clip
import torch as th
from open_clip.model import CLIP, build_model_from_openai_state_dict
from open_clip.pretrained import download_pretrained, download_pretrained_from_url

from alignsam_sb3.names import nearest
from alignsam_sb3.semantics.clip_surgery import check_tower
from alignsam_sb3.semantics.language import ClipSurgery
from alignsam_sb3.semantics.tiny import ASSET, load_tiny_clip
from alignsam_sb3.weights import load_strictly, read_weights

_SIZES = ("input_resolution", "context_length", "vocab_size")  # numbers that OpenAI keeps among the weights
_LANDMARK = "visual.conv1.weight"
_EXAMPLES = "tiny, ViT-B-16-quickgelu:openai, ViT-B-16:/path/to/weights.safetensors, openai:/path/to/ViT-B-16.pt"


@lru_cache(maxsize=4)
def load_clip(spec: str = "tiny", device: str = "auto") -> ClipSurgery:
    """Load a CLIP once per process, in single precision.

    :param spec: ``tiny``, or ``MODEL:TAG`` or ``MODEL:PATH`` in open_clip's names. ``openai:PATH`` is a file in OpenAI's
        layout; its weights tell its architecture. ``@SIZE`` at the end sets the side of the input in pixels. In
        ``ViT-B-16-quickgelu:openai@512`` it makes finer maps, as the authors of CLIP Surgery use for SAM
    :param device: ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    :raises ValueError: there is no such model or tag, or the file does not fit it
    :raises FileNotFoundError: there is no such file, or none in the cache while ``HF_HUB_OFFLINE`` is set
    :raises ConnectionError: the weights cannot be downloaded
    """
    bare, size = _split_size(spec)
    name, _, where = bare.partition(":")
    if name == "tiny":
        clip, config, known = load_tiny_clip(Path(where).expanduser() if where else ASSET)
        return ClipSurgery(clip, open_clip.get_tokenizer("ViT-B-16"), size, config.n_dual, device, spec, known)
    clip = _read_openai(_existing(where, name)) if name == "openai" else _load_open_clip(name, where)
    return ClipSurgery(clip, open_clip.get_tokenizer("ViT-B-16"), size, device=device, name=spec)


def _split_size(spec: str) -> tuple[str, int | None]:
    match = re.fullmatch(r"(.+)@(\d+)", spec)
    return (match[1], int(match[2])) if match else (spec, None)


def _existing(where: str, name: str) -> Path:
    path = Path(where).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no weights of CLIP {name!r} at {where!r}; a CLIP is named like {_EXAMPLES}")
    return path


def _load_open_clip(name: str, where: str) -> CLIP:
    """A model that open_clip knows, with the weights of a tag or a file; refused before download if surgery cannot use it."""
    if name not in open_clip.list_models():
        raise ValueError(nearest("CLIP model", name, ["tiny", "openai", *open_clip.list_models()]))
    tags = open_clip.list_pretrained_tags_by_model(name)
    looks_like_path = "/" in where or Path(where).suffix != ""
    if where not in tags and not looks_like_path:
        raise ValueError(nearest(f"weights of {name}", where, tags) + f"; or give a file: {name}:/path/to/weights")
    described = dict(open_clip.get_model_config(name))
    custom = described.pop("custom_text", False)
    vision, text = described["vision_cfg"], described["text_cfg"]
    if custom or "hf_model_name" in text or "hf_tokenizer_name" in text or "timm_model_name" in vision:
        raise ValueError(f"{name} is no plain CLIP with open_clip's own towers and tokenizer, as ViT-B-16-quickgelu is")
    config = open_clip.get_pretrained_cfg(name, where) if where in tags else {}
    if where not in tags:
        _existing(where, name)
    with th.device("meta"):
        check_tower(CLIP(**described).visual)
    path = _fetch(name, where, config) if where in tags else _existing(where, name)
    weights, is_openai = _read_weights(path)
    described["quick_gelu"] = described.get("quick_gelu", False) or bool(config.get("quick_gelu")) or is_openai
    model = CLIP(**described)
    load_strictly(model, weights, path, name, "CLIP model")
    for key in ("mean", "std"):
        if key in config:
            setattr(model.visual, f"image_{key}", config[key])
    return model


def _fetch(name: str, tag: str, config: dict[str, str]) -> Path:
    """The file of a tag, from a cache or the network; OpenAI's own are checked against the sha256 in their address."""
    offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    instead = f"fetch them on another machine and give the file: {name}:/path/to/weights"
    url = config.get("url", "")
    in_cache = (Path("~/.cache/clip").expanduser() / Path(url).name).is_file()
    try:
        if "openaipublic" in url and (in_cache or not offline):
            return Path(download_pretrained_from_url(url))
        return Path(download_pretrained(config))
    except Exception as error:  # urllib, requests, huggingface_hub: each has its own
        said = f"{type(error).__name__}: {error}"
        if offline:
            raise FileNotFoundError(
                f"the weights of {name}:{tag} are in no cache, and HF_HUB_OFFLINE forbids to download them ({said}): {instead}"
            ) from error
        raise ConnectionError(f"the weights of {name}:{tag} cannot be downloaded ({said}): {instead}") from error


def _read_weights(path: Path) -> tuple[dict[str, th.Tensor], bool]:
    """A state dict in single precision, and whether it is in OpenAI's own layout; nothing in the file is run."""
    weights = read_weights(path, _LANDMARK)
    is_openai = any(key in weights for key in _SIZES)
    return {k: v.float() if isinstance(v, th.Tensor) else v for k, v in weights.items() if k not in _SIZES}, is_openai


def _read_openai(path: Path) -> CLIP:
    """A model in OpenAI's layout, the architecture read off its weights; QuickGELU, as all of OpenAI's."""
    weights, _ = _read_weights(path)
    try:
        model = build_model_from_openai_state_dict(dict(weights), cast_dtype=th.float32)
    except (KeyError, RuntimeError, AssertionError, ZeroDivisionError, AttributeError) as error:
        raise ValueError(f"{path} is no CLIP in OpenAI's layout ({error}): name its architecture, MODEL:{path}") from error
    model = model.float()
    load_strictly(model, weights, path, "openai", "CLIP model")  # once more: building rounded the weights to half precision
    return model
