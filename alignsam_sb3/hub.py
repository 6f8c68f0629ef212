"""Policies on the Hugging Face Hub: weights as safetensors, all else as JSON, so that nothing needs to be unpickled.

A repository holds ``model.safetensors``, ``policy.json``, perhaps ``calibration.json`` and ``film.gif``, and a model card.
"""

import io
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch as th
from safetensors import SafetensorError
from safetensors.torch import save_file

from alignsam_sb3.calibration import ENTRY, Calibration
from alignsam_sb3.files import cache_folder, parse_json, removed_on_error
from alignsam_sb3.policies import read_recipe
from alignsam_sb3.policies.archive import ENTRY_BYTES, JSON_BYTES, RECIPE, SEEN, PolicyArchive
from alignsam_sb3.policies.stages import saved_stages
from alignsam_sb3.version import __version__
from alignsam_sb3.weights import read_safetensors

WEIGHTS, DESCRIBED, FILM, CARD = "model.safetensors", "policy.json", "film.gif", "README.md"
FORMAT = 1


def to_files(policy: Path, folder: Path) -> None:
    """Take a policy's zip apart into files that need no unpickling; its optimizer's state is left behind.

    :raises ValueError: it is no policy of this package's, was saved in the middle of a stage before PPO, or holds objects
        that plain files cannot
    """
    archive, recipe = PolicyArchive(policy), read_recipe(policy)
    if recipe["not_plain"]:
        raise ValueError(
            f"{policy} was built with {', '.join(recipe['not_plain'])}, which plain files cannot hold: it cannot be "
            "shared safely"
        )
    half = [name for name, stage in saved_stages(archive).items() if 0 < stage.done < stage.of]
    if half:
        raise ValueError(
            f"{policy} was saved in the middle of its {half[0]}, whose optimizer is not shared: finish it first, "
            f"`alignsam train -i {policy}`"
        )
    states = archive.parameters()
    weights = states["policy"]
    described = {
        "format": FORMAT,
        "policy": recipe,
        "optimizer": states["policy.optimizer"]["param_groups"],
        "alignsam_sb3": __version__,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / WEIGHTS)
    (folder / DESCRIBED).write_text(json.dumps(described, indent=1))
    if archive.seen is not None:
        (folder / SEEN).write_text(json.dumps(archive.seen.to_json()))
    calibration = Calibration.read(policy)
    if calibration is not None:
        (folder / ENTRY).write_text(calibration.to_json())


def from_files(folder: Path, policy: Path) -> Path:
    """Put a policy's zip together again from what :func:`to_files` wrote.

    :raises ValueError: the files are something else
    """
    try:
        for name, most in ((DESCRIBED, JSON_BYTES), (WEIGHTS, ENTRY_BYTES)):
            if (folder / name).stat().st_size > most:
                raise ValueError(f"{name} has {(folder / name).stat().st_size:,} bytes, and {most:,} are allowed")
        described = parse_json((folder / DESCRIBED).read_text())
        weights = read_safetensors(folder / WEIGHTS)
        if described["format"] != FORMAT:
            raise ValueError(f"format {described['format']}, made by alignsam_sb3 {described['alignsam_sb3']}")
        groups, policy_json = described["optimizer"], json.dumps(described["policy"])
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no policy of this package's: {Path(error.filename).name} is missing") from error
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no policy that alignsam_sb3 {__version__} can read ({error})") from error
    calibration = folder / ENTRY
    policy.parent.mkdir(parents=True, exist_ok=True)
    part = policy.with_name(f"{policy.name}.{os.getpid()}.part")
    with removed_on_error(part):
        with ZipFile(part, "w") as archive:
            archive.writestr(RECIPE, policy_json)
            archive.writestr("policy.pth", _bytes(weights))
            archive.writestr("policy.optimizer.pth", _bytes({"state": {}, "param_groups": groups}))
            if (folder / SEEN).is_file():
                archive.writestr(SEEN, (folder / SEEN).read_text())
            if calibration.is_file():
                archive.writestr(ENTRY, Calibration.from_json(calibration.read_text()).to_json())
        if PolicyArchive(part).recipe is None:
            raise ValueError(f"{folder} holds no policy of this package's: its {DESCRIBED} does not say how it was built")
        part.replace(policy)
    return policy


def _bytes(values: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    th.save(dict(values), buffer)
    return buffer.getvalue()


def model_card(repo: str, recipe: Mapping[str, Any], evaluation: Path | None, film: bool, calibrated: bool) -> str:
    """The page that people see first.

    :param evaluation: a folder that ``alignsam evaluate`` wrote; its table, versions and command are shown
    """
    env = recipe["env"]
    said = [
        "---",
        "library_name: stable-baselines3",
        "tags: [reinforcement-learning, image-segmentation, segment-anything, stable-baselines3, alignsam_sb3]",
        "---",
        f"# {repo}",
        "A policy that clicks for a frozen Segment Anything, trained with "
        f"[alignsam_sb3](https://pypi.org/project/alignsam-sb3/) {__version__} ({recipe['algorithm']}, {recipe['policy']}).",
        "```python\nfrom alignsam_sb3 import Predictor\n\n"
        f'predict = Predictor.from_hub("{repo}")\nfound = predict("photo.jpg", "{_example(recipe)}")\n'
        "found.mask, found.score, found.clicks\n```",
        "Weights are safetensors and everything else is JSON: nothing is unpickled.",
        f"| trained on | segmenter | language prior | clicks |\n|---|---|---|---|\n"
        f"| {env.get('dataset')} | {env.get('segmenter')} | {env.get('clip')} | {env.get('max_steps')} |",
    ]
    if calibrated:
        said.append("Its calibration comes with it: each mask has a predicted Dice and a lower bound.")
    if film:
        said.append(f"![an episode]({FILM})")
    if evaluation is not None:
        said += _measured(evaluation)
    return "\n\n".join(["\n".join(said[:4]), *said[4:]]) + "\n"


def _example(recipe: Mapping[str, Any]) -> str:
    categories = recipe["env"].get("dataset_kwargs", {}).get("categories") or ["dog"]
    return str(categories if isinstance(categories, str) else categories[0])


def _measured(evaluation: Path) -> list[str]:
    """The evaluation's table beside what it was made with.

    :raises FileNotFoundError: the folder holds no evaluation
    """
    table, results = evaluation / "table.md", evaluation / "results.json"
    if not table.is_file() or not results.is_file():
        raise FileNotFoundError(
            f"no evaluation in {evaluation}: make one with `alignsam evaluate --policy ... --out {evaluation}`"
        )
    described = json.loads(results.read_text())
    command = described["command"] if isinstance(described["command"], str) else " ".join(map(str, described["command"]))
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    return [
        f"## Measured\n\n{described['episodes']} episodes on `{described['data']}`, seed {described['seed']}; means after the "
        "last click with a 95 % interval, then Dice after each click.",
        table.read_text().strip(),
        f"```\n{command}\n```",
        f"Versions: {versions}",
    ]


def push(
    policy: str | Path,
    repo: str,
    evaluation: str | Path | None = None,
    film: str | Path | None = None,
    private: bool = False,
    endpoint: str | None = None,
) -> str:
    """Upload a policy.

    :param repo: ``user/name``; it is made if it does not exist
    :param evaluation: a folder that ``alignsam evaluate`` wrote, for the model card
    :param film: a GIF for the model card
    :param endpoint: of another server than the Hub
    :return: the address of the repository
    :raises ConnectionError: the Hub cannot be reached, or refuses
    """
    from huggingface_hub import HfApi

    policy = Path(policy)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        to_files(policy, folder)
        if film is not None:
            shutil.copyfile(film, folder / FILM)
        measured = None if evaluation is None else Path(evaluation)
        card = model_card(repo, read_recipe(policy), measured, film is not None, (folder / ENTRY).is_file())
        (folder / CARD).write_text(card)
        api = HfApi(endpoint=endpoint, library_name="alignsam_sb3", library_version=__version__)
        with _explained(f"alignsam push {policy} {repo}"):
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"alignsam_sb3 {__version__}")
    return str(address)


def pull(repo: str, out: str | Path | None = None, revision: str | None = None, endpoint: str | None = None) -> Path:
    """Download a policy; what was downloaded before is found without a connection.

    :param out: where the zip goes; by default the cache
    :param revision: a branch, tag or commit
    :param endpoint: of another server than the Hub
    :raises ConnectionError: the Hub cannot be reached, or has no such policy
    :raises ValueError: what is there is no policy of this package's
    """
    from huggingface_hub import snapshot_download

    if repo.count("/") != 1:
        raise ValueError(f"a policy on the Hub is called user/name, got {repo!r}")
    with _explained(f"alignsam pull {repo}"):
        wanted = [WEIGHTS, DESCRIBED, SEEN, ENTRY]
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=wanted, endpoint=endpoint))
    default = cache_folder() / "policies" / f"{repo.replace('/', '--')}-{folder.name[:12]}.zip"
    return from_files(folder, default if out is None else Path(out))


class _explained:
    """Whatever goes wrong on the way to the Hub becomes one line that names the command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalEntryNotFoundError,
            OfflineModeIsEnabled,
            RepositoryNotFoundError,
        )

        if isinstance(error, RepositoryNotFoundError):
            raise ConnectionError(
                f"the Hub has no such repository, or it is private: check the name, log in with `hf auth login`, then "
                f"`{self._command}`"
            ) from error
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            raise ConnectionError(f"the Hub refused ({error}): log in with `hf auth login`, then `{self._command}`") from error
        unconnected = any(
            kind.__name__ == "TransportError" for kind in type(error).__mro__
        )  # httpx's, whichever package it is
        if unconnected or isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | OSError):
            raise ConnectionError(
                f"the Hub cannot be reached ({error}): run `{self._command}` where there is a connection, and copy the zip"
            ) from error
