"""Models of the transformers library, from a folder or from the Hub: tensors only, no code, and no weight left random."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch as th

from alignsam_sb3.files import parse_json
from alignsam_sb3.fingerprints import digest
from alignsam_sb3.names import nearest

EXTRA = 'pip install "alignsam_sb3[hf]"'
FILES = ("*.json", "*.safetensors", "merges.txt")
"""What is downloaded of a repository: never a pickle, never code."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def offline() -> bool:
    """Whether ``ALIGNSAM_OFFLINE`` or ``HF_HUB_OFFLINE`` forbids downloads."""
    said = (os.environ.get(name, "0") for name in ("ALIGNSAM_OFFLINE", "HF_HUB_OFFLINE"))
    return any(value.lower() not in ("", "0", "false", "no", "off") for value in said)


def obtain_folder(where: str, kind: str) -> Path:
    """A folder that holds ``config.json`` and safetensors, downloaded first where ``where`` names a repository.

    :param where: a folder, or ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` of the Hub
    :param kind: what stands before the colon, for messages
    :raises FileNotFoundError: there is no such folder or repository, or it may not be downloaded
    :raises PermissionError: its licence must be accepted first
    :raises ConnectionError: it cannot be downloaded
    :raises ValueError: that is no name of a repository, or there are only pickled weights
    """
    folder = Path(where).expanduser()
    if not where or not folder.is_dir():
        if not where or where.startswith((".", "/", "~")):
            raise FileNotFoundError(
                f"no folder at {where!r}: expected {kind}:/folder with config.json and model.safetensors, or "
                f"{kind}:OWNER/NAME of a repository of the Hugging Face Hub"
            )
        folder = _download(where, kind)
    names = sorted(path.name for path in folder.iterdir())
    if "config.json" not in names:
        raise FileNotFoundError(f"{folder} holds no config.json: is it what save_pretrained or the Hub gives? It has {names}")
    if not any(name.endswith(".safetensors") for name in names):
        pickles = [name for name in names if name.endswith(PICKLES)]
        only = f", only pickled weights ({pickles[0]}), which could run code: convert them with safetensors"
        raise ValueError(f"{folder} holds no .safetensors{only if pickles else ''}")
    return folder


def _download(where: str, kind: str) -> Path:
    """The files of a repository, from the Hub or from what it has given before."""
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError as error:
        raise ImportError(f"{kind}:{where} needs more packages: {EXTRA}") from error
    repository, _, revision = where.partition("@")
    page = f"https://huggingface.co/{repository}"
    bring = f"bring its files to a folder and write {kind}:/folder"
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=list(FILES), local_files_only=offline())
        )
    except errors.GatedRepoError as error:  # before RepositoryNotFoundError, its parent
        raise PermissionError(
            f"{repository} is gated: accept its licence at {page}, then run `hf auth login` or set HF_TOKEN; or {bring}"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"no repository {where!r} on the Hub that you may read: see {page}; a private one needs `hf auth login`"
        ) from error
    except errors.HFValidationError as error:
        raise ValueError(f"{where!r} is neither a folder nor OWNER/NAME of a repository: {error}") from error
    except errors.LocalEntryNotFoundError as error:
        if offline():
            raise FileNotFoundError(
                f"{repository} has not been downloaded yet, and ALIGNSAM_OFFLINE or HF_HUB_OFFLINE forbids it: unset it, or "
                f"{bring}"
            ) from error
        raise ConnectionError(f"cannot download {page} ({error}). Run it again, or {bring}") from error
    except OSError as error:  # the Hub's other errors are OSErrors, and so is a full disk
        raise ConnectionError(f"cannot download {page} ({type(error).__name__}: {error}). Run it again, or {bring}") from error


def read_config(folder: Path, known: Collection[str], refused: Mapping[str, str]) -> dict[str, Any]:
    """What ``config.json`` says.

    :param known: values of ``model_type`` that can be loaded
    :param refused: others, with the reason
    :raises ValueError: it is no JSON, or the model is of another type
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = parse_json(path.read_text())
        model_type = config["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no configuration of a model ({type(error).__name__}: {error})") from error
    if model_type in refused:
        raise ValueError(f"{path} has model_type {model_type!r}: {refused[model_type]}")
    if model_type not in known:
        raise ValueError(f"{path}: {nearest('model_type', model_type, known)}")
    return config


def load_model(model_class: str, folder: Path, device: str | th.device) -> Any:  # noqa: ANN401 (the library is untyped)
    """A model in eval mode, in single precision and without gradients.

    :param model_class: its name in ``transformers``
    :raises ImportError: ``transformers`` is missing or too old
    :raises ValueError: the weights do not fit the configuration, or one is NaN or infinite
    """
    found_class = library(model_class)
    try:
        model, info = found_class.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            dtype=th.float32,
            attn_implementation="sdpa",  # a configuration may name a kernel of the Hub, which is code
            output_loading_info=True,
        )
    except Exception as error:  # the library raises RuntimeError, OSError, KeyError, SafetensorError, ...
        raise ValueError(f"{folder} holds no {model_class} that can be read ({type(error).__name__}: {error})") from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"the weights in {folder} lack {len(missing)} tensors of a {model_class} (first {missing[0]!r}), which would "
            "stay random: bring all files of the repository"
        )
    broken = [key for key, value in model.state_dict().items() if not th.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"{folder} has NaN or infinite weights ({len(broken)} tensors, first {broken[0]!r}): download it again"
        )
    return model.eval().requires_grad_(False).to(device)


def chosen_device(device: str | th.device) -> th.device:
    """``"auto"`` takes CUDA where there is one."""
    return th.device("cuda" if th.cuda.is_available() else "cpu") if str(device) == "auto" else th.device(device)


def library(name: str) -> Any:  # noqa: ANN401
    """A class of ``transformers``.

    :raises ImportError: it is missing or too old
    """
    try:
        import transformers

        return getattr(transformers, name)
    except (ImportError, AttributeError) as error:
        raise ImportError(f"this model needs {name} of transformers: run {EXTRA}") from error


def load_image_processor(processor_class: str, folder: Path | None, **sizes: object) -> Any:  # noqa: ANN401
    """The library's own preparation of pixels, with the folder's mean, deviation and interpolation where it says them.

    :param folder: None for the library's defaults
    :param sizes: those that the model was built for; they win over what the folder says
    """
    found_class = library(processor_class)
    if folder and any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        return found_class.from_pretrained(folder, local_files_only=True, **sizes)
    return found_class(**sizes)


def fingerprint(model: Any, processor: Any, config: Mapping[str, Any], *said: object) -> str:  # noqa: ANN401
    """Changes with a weight, the configuration or the preparation of pixels, and not with the path or the library's version.

    :param config: what ``config.json`` says
    :param said: whatever else matters, plain values
    """
    volatile = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
    described = json.dumps({key: value for key, value in config.items() if key not in volatile}, sort_keys=True)
    pixels = [str(getattr(processor, key, None)) for key in ("image_mean", "image_std", "resample", "rescale_factor")]
    return digest(model.state_dict(), described, pixels, *said)
