"""Playing on many machines: each actor has a policy and frozen models of its own."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from alignsam_sb3.actors import Actors
from alignsam_sb3.annotate.run import Found
from alignsam_sb3.annotate.stream import Player, Read
from alignsam_sb3.predictor import Predictor


def players(policy: str | Path, categories: tuple[str, ...], address: str = "") -> Actors[list[Read], list[Found]]:
    """Actors that play batches of photos.

    :param policy: a policy's zip, which is sent to them; a segmenter that it names by a path must be on every machine
    :param categories: what is looked for
    :param address: of a running cluster, see :class:`~alignsam_sb3.actors.Actors`
    """
    return Actors(partial(_player, Path(policy).expanduser().read_bytes(), categories), address)


def _player(policy: bytes, categories: tuple[str, ...], device: str) -> Callable[[list[Read]], list[Found]]:
    """What plays batches with a policy, of which it has the bytes of the zip."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "policy.zip"
        path.write_bytes(policy)
        return Player(Predictor.load(path, device=device), categories).play
