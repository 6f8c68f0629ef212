"""The table of public checkpoints: where they are, what they must hash to, and under which licence they come.

python -m alignsam_sb3.segmenters.checkpoints list
python -m alignsam_sb3.segmenters.checkpoints download mobile_sam
python -m alignsam_sb3.segmenters.checkpoints verify /models/sam_vit_b_01ec64.pth

Files go to ``checkpoints/`` in the cache (``ALIGNSAM_CACHE`` moves it); ``ALIGNSAM_OFFLINE=1`` forbids downloads. A download
that was cut starts again; a file appears under its name only when it is whole and has the right hash. Where no hash is
published, the first download's is remembered (``pins.json``) and later ones must match it.
"""

import argparse
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests

from alignsam_sb3.files import cache_folder, write_json
from alignsam_sb3.names import nearest

logger = logging.getLogger(__name__)

TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Checkpoint:
    """A file that somebody has published.

    :param size: in bytes; None where it is not known
    :param sha256: None where it is not known: the first download's is remembered
    :param source: the project it belongs to
    """

    name: str
    url: str
    size: int | None
    sha256: str | None
    licence: str
    source: str

    @property
    def file_name(self) -> str:
        """Its name on disk."""
        return Path(urlsplit(self.url).path).name

    @property
    def path(self) -> Path:
        """Where it lies once it is downloaded."""
        return folder() / self.file_name


_META = "https://dl.fbaipublicfiles.com/segment_anything/"
_SAM = "https://github.com/facebookresearch/segment-anything"
_REPVIT, _MOBILE = "https://github.com/THU-MIG/RepViT", "https://github.com/ChaoningZhang/MobileSAM"
_TINY, _EDGE = "https://github.com/xinghaochen/TinySAM", "https://github.com/chongzhou96/EdgeSAM"
_MOBILE_FILE = "https://raw.githubusercontent.com/ChaoningZhang/MobileSAM/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/"

CHECKPOINTS: dict[str, Checkpoint] = {
    c.name: c
    for c in (
        Checkpoint(
            "vit_b",
            _META + "sam_vit_b_01ec64.pth",
            375_042_383,
            "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            "Apache-2.0",
            _SAM,
        ),
        Checkpoint(
            "vit_l",
            _META + "sam_vit_l_0b3195.pth",
            1_249_524_607,
            "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            "Apache-2.0",
            _SAM,
        ),
        Checkpoint(
            "vit_h",
            _META + "sam_vit_h_4b8939.pth",
            2_564_550_879,
            "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            "Apache-2.0",
            _SAM,
        ),
        Checkpoint(
            "mobile_sam",
            _MOBILE_FILE + "mobile_sam.pt",
            40_728_226,
            "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
            "Apache-2.0",
            _MOBILE,
        ),
        Checkpoint("repvit", _REPVIT + "/releases/download/v1.0/repvit_sam.pt", None, None, "Apache-2.0", _REPVIT),
        Checkpoint("tinysam", _TINY + "/releases/download/3.0/tinysam_42.3.pth", None, None, "Apache-2.0", _TINY),
        Checkpoint(
            "edge_sam",
            "https://huggingface.co/spaces/chongzhou/EdgeSAM/resolve/main/weights/edge_sam_3x.pth",
            None,
            None,
            "S-Lab 1.0: NON-COMMERCIAL use only",
            _EDGE,
        ),
    )
}


def folder() -> Path:
    """Where checkpoints are kept."""
    return cache_folder() / "checkpoints"


def _pins() -> dict[str, str]:
    path = folder() / "pins.json"
    found: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def known_hash(checkpoint: Checkpoint) -> str | None:
    """Its sha256: the published one, else that of the first download on this machine, else None."""
    return checkpoint.sha256 or _pins().get(checkpoint.name)


def obtain(name: str, offline: bool | None = None) -> Path:
    """The checkpoint of that name, checked; downloaded first where it is not there yet.

    :param offline: never download; by default what ``ALIGNSAM_OFFLINE`` says
    :raises ValueError: there is no such checkpoint, or the file has another hash
    :raises FileNotFoundError: it is not there, and downloads are forbidden
    :raises ConnectionError: it cannot be downloaded
    """
    if name not in CHECKPOINTS:
        raise ValueError(nearest("checkpoint", name, CHECKPOINTS))
    checkpoint = CHECKPOINTS[name]
    if offline is None:
        offline = os.environ.get("ALIGNSAM_OFFLINE", "0") not in ("", "0")
    if not checkpoint.path.is_file():
        if offline:
            raise FileNotFoundError(
                f"no checkpoint of {name!r} at {checkpoint.path}, and ALIGNSAM_OFFLINE forbids downloads: copy "
                f"{checkpoint.url} there, or write {name}:/path/to/{checkpoint.file_name}"
            )
        if "NON-COMMERCIAL" in checkpoint.licence:
            print(f"{name}: licence {checkpoint.licence} ({checkpoint.source})", file=sys.stderr)
        _download(checkpoint)
    _check(checkpoint)
    return checkpoint.path


def _download(checkpoint: Checkpoint) -> None:
    """Download to a temporary file beside the target, check, and only then give it its name."""
    progress = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
    expected = known_hash(checkpoint)
    pooch.utils.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(checkpoint.url, expected and f"sha256:{expected}", checkpoint.file_name, folder(), downloader=progress)
    except ValueError as error:
        raise ValueError(
            f"what {checkpoint.url} gives is not the known checkpoint {checkpoint.name!r}; it was removed and is not used. "
            f"Expected sha256 {expected} ({error})"
        ) from error
    except requests.RequestException as error:
        raise ConnectionError(
            f"cannot download {checkpoint.url} ({type(error).__name__}: {error}). Run it again, or bring the file to "
            f"{checkpoint.path}"
        ) from error


def _check(checkpoint: Checkpoint) -> None:
    """Refuse a file that is not what it should be; remember the hash of one that nobody has published."""
    size = checkpoint.path.stat().st_size
    if checkpoint.size is not None and size != checkpoint.size:
        raise ValueError(
            f"{checkpoint.path} has {size} bytes, not the {checkpoint.size} of {checkpoint.name!r}: delete it and run again"
        )
    found, expected = pooch.file_hash(str(checkpoint.path)), known_hash(checkpoint)
    if expected is None:
        write_json(folder() / "pins.json", {**_pins(), checkpoint.name: found})
        logger.warning("no sha256 of %r is published; that of this file is remembered: %s", checkpoint.name, found)
    elif found != expected:
        raise ValueError(
            f"{checkpoint.path} has sha256 {found}, not the {expected} of {checkpoint.name!r}: delete it and run again"
        )


def verify(path: Path) -> str:
    """Which known checkpoint a file is.

    :raises FileNotFoundError: there is no such file
    :raises ValueError: it is none of them
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    found = pooch.file_hash(str(path))
    for checkpoint in CHECKPOINTS.values():
        if known_hash(checkpoint) == found:
            return f"{path} is {checkpoint.name} ({checkpoint.source}, {checkpoint.licence}), sha256 {found}"
    same = [c for c in CHECKPOINTS.values() if c.file_name == path.name]
    if same and known_hash(same[0]):
        raise ValueError(f"{path} is named like {same[0].name} but its sha256 is {found}, not {known_hash(same[0])}")
    raise ValueError(f"{path} is no known checkpoint (sha256 {found}); known are: {', '.join(CHECKPOINTS)}")


def table() -> str:
    """All checkpoints as text, a line each."""
    lines = [f"{'name':<12}{'MB':>7}  {'here':<5}{'sha256':<13} {'licence':<36} url"]
    for c in CHECKPOINTS.values():
        size = f"{c.size / 1e6:.0f}" if c.size else "?"
        known = known_hash(c)
        said = known[:12] if known else "first use"
        lines.append(f"{c.name:<12}{size:>7}  {'yes' if c.path.is_file() else '-':<5}{said:<13} {c.licence:<36} {c.url}")
    return "\n".join([*lines, f"kept in {folder()}"])


def main(argv: list[str] | None = None) -> int:
    """Command line; 1 where something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m alignsam_sb3.segmenters.checkpoints",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is")
    commands.add_parser("download", help="download and check").add_argument("name", help="as list shows it")
    commands.add_parser("verify", help="say which one a file is").add_argument("path", type=Path)
    args = parser.parse_args(argv)
    try:
        if args.command == "list":
            print(table())
        elif args.command == "download":
            path = obtain(args.name)
            print(f"{path}\nuse it: --segmenter {args.name}")
        else:
            print(verify(args.path))
    except (ValueError, OSError) as error:  # a ConnectionError is an OSError, and so is a full disk
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
