"""Playing on many machines: actors of Ray, each with a policy and frozen models of its own. What they answer is the same."""

from collections import deque
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from alignsam_sb3.annotate.run import Found
from alignsam_sb3.annotate.stream import Player, Read

WAITING = 2
"""Batches that are sent to each actor before its first answer is waited for."""
RETRIES = 3
"""Actors that may die of one batch before the run ends."""


class Cluster:
    """Actors of Ray that play batches of photos: one for each GPU, or for each core where there is no GPU.

    Photos are read here and sent. An actor that dies is started again, here or elsewhere, and plays its batches again.

    :param policy: a policy's zip, which is sent too; a segmenter that it names by a path must be on every machine
    :param categories: what is looked for
    :param address: of a running cluster; empty for ``RAY_ADDRESS`` or, without one, a cluster of this machine alone. A process
        that has called ``ray.init`` stays where it is
    :raises ImportError: Ray is missing
    :raises ConnectionError: there is no cluster at the address
    """

    def __init__(self, policy: str | Path, categories: tuple[str, ...], address: str = "") -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("many machines need one more package: pip install 'alignsam_sb3[ray]'") from error
        self._ray = ray
        self._joined = not ray.is_initialized()
        if self._joined:
            quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "warning"}
            ray.init(address=address or None, **quiet)
        gpus, cores = (int(ray.cluster_resources().get(name, 0)) for name in ("GPU", "CPU"))
        options = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        actor = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **options)(_Actor)
        self._policy = ray.put(Path(policy).expanduser().read_bytes())  # kept, or no actor could be started again
        device = "cuda" if gpus else "cpu"
        self.actors = [actor.remote(self._policy, device, categories) for _ in range(gpus or cores)]

    def __call__(self, batches: Iterator[list[Read]]) -> Iterator[list[Found]]:
        """What is found of each batch, in order.

        :raises RuntimeError: many photos in a row could not be played, or actors die again and again
        """
        waiting: deque[Any] = deque()
        for batch, actor in zip(batches, cycle(self.actors), strict=False):
            waiting.append(actor.play.remote(batch))
            if len(waiting) >= WAITING * len(self.actors):
                yield self._answer(waiting.popleft())
        while waiting:
            yield self._answer(waiting.popleft())

    def _answer(self, reference: Any) -> list[Found]:  # noqa: ANN401 (Ray's own)
        try:
            found: list[Found] = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self._ray.exceptions.RayError as error:
            raise RuntimeError(f"the cluster does not answer: {str(error).splitlines()[0]}") from error
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.actors.clear()  # they end with the last that knows them
        if self._joined:
            self._ray.shutdown()


class _Actor:
    """A player in a process of its own.

    :param policy: the bytes of a policy's zip
    """

    def __init__(self, policy: bytes, device: str, categories: tuple[str, ...]) -> None:
        import torch as th

        from alignsam_sb3.predictor import Predictor

        th.set_num_threads(1)  # there is an actor for each core
        with TemporaryDirectory() as folder:
            path = Path(folder) / "policy.zip"
            path.write_bytes(policy)
            self._player = Player(Predictor.load(path, device=device), categories)

    def play(self, batch: list[Read]) -> list[Found]:
        return self._player.play(batch)
