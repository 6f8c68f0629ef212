"""Work on many machines: actors of Ray, each with frozen models of its own. What they answer is the same as here."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from itertools import cycle
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlsplit

WAITING = 2
"""Batches that are sent to each actor before its first answer is waited for."""
RETRIES = 3
"""Actors that may die of one batch before the run ends."""
PATIENCE = 10
"""Seconds in which a cluster must take a connection."""

Batch = TypeVar("Batch")
Answer = TypeVar("Answer")


class Actors(Generic[Batch, Answer]):
    """Actors of Ray that answer batches: one for each GPU, or for each core where there is no GPU.

    Batches are made here and sent. An actor that dies is started again, here or elsewhere, and gets its batches again.

    :param make: makes what answers a batch, on a device (``"cuda"`` or ``"cpu"``). It is sent to the actors, where the
        package must be installed, too
    :param address: of a running cluster; empty for ``RAY_ADDRESS`` or, without one, a cluster of this machine alone. A
        process that has called ``ray.init`` stays where it is
    :raises ImportError: Ray is missing
    :raises ConnectionError: there is no cluster at the address
    """

    def __init__(self, make: Callable[[str], Callable[[Batch], Answer]], address: str = "") -> None:
        try:
            import ray
        except ImportError as error:
            raise ImportError("many machines need one more package: pip install 'alignsam_sb3[ray]'") from error
        self._ray = ray
        self._joined = not ray.is_initialized()
        if self._joined:
            _reach(address or os.environ.get("RAY_ADDRESS", ""))
            quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "warning"}
            ray.init(address=address or None, **quiet)
        gpus, cores = (int(ray.cluster_resources().get(name, 0)) for name in ("GPU", "CPU"))
        options = {"num_gpus": 1, "num_cpus": 0} if gpus else {"num_cpus": 1}
        actor = ray.remote(max_restarts=-1, max_task_retries=RETRIES, **options)(_Actor)
        self._make = [ray.put(make)]  # in a list it is not sent with each batch; an actor that is new fetches it
        self.actors = [actor.remote("cuda" if gpus else "cpu") for _ in range(gpus or cores)]

    def __call__(self, batches: Iterator[Batch]) -> Iterator[Answer]:
        """What is answered to each batch, in order.

        :raises RuntimeError: a batch cannot be answered, or actors die again and again
        """
        waiting: deque[Any] = deque()
        for batch, actor in zip(batches, cycle(self.actors), strict=False):
            waiting.append(actor.answer.remote(self._make, batch))
            if len(waiting) >= WAITING * len(self.actors):
                yield self._answer(waiting.popleft())
        while waiting:
            yield self._answer(waiting.popleft())

    def _answer(self, reference: Any) -> Answer:  # noqa: ANN401 (Ray's own)
        try:
            answer: Answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"{error.cause} (on the machine {error.ip})") from error.cause
        except self._ray.exceptions.RayError as error:
            raise RuntimeError(f"the cluster does not answer: {str(error).splitlines()[0]}") from error
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.actors.clear()  # they end with the last that knows them
        if self._joined:
            self._ray.shutdown()


def _reach(address: str) -> None:
    """Say at once that nothing listens at an address: Ray itself tries for many minutes, without a word.

    :param address: ``HOST:PORT`` or ``ray://HOST:PORT``; words of Ray's own (``auto``, ``local``) are left to it
    :raises ConnectionError: nothing listens there
    :raises ValueError: the port is no number
    """
    at = urlsplit(address if "://" in address else f"//{address}")
    try:
        port = at.port
    except ValueError as error:
        raise ValueError(f"{address!r} is no address of a Ray cluster ({error}): write HOST:PORT") from error
    if at.hostname is None or port is None:
        return
    try:
        socket.create_connection((at.hostname, port), PATIENCE).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): give the address that `ray start --head` "
            "said, or none for this machine alone"
        ) from error


class _Actor:
    """What answers batches, in a process of its own; made with the first batch, so that an error names its reason."""

    def __init__(self, device: str) -> None:
        import torch as th

        th.set_num_threads(1)  # there is an actor for each core
        self._device = device
        self._ask: Callable[[Any], Any] | None = None

    def answer(self, make: list[Any], batch: Any) -> Any:  # noqa: ANN401 (Ray's reference, the caller's batches)
        if self._ask is None:
            import ray

            self._ask = ray.get(make[0])(self._device)
        return self._ask(batch)
