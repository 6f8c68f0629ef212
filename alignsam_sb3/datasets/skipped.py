"""What was left out, and why: one report for all data sets."""

from collections.abc import Iterator, Mapping, Sequence
from typing import overload

_KEPT = 100  # names that are kept for each reason; all are counted


class Names(Sequence[str]):
    """The names of what was left out for one reason: ``len`` counts all, and the first hundred can be read."""

    def __init__(self) -> None:
        self.total = 0
        self.first: list[str] = []

    def add(self, name: str) -> None:
        """Count one more."""
        self.total += 1
        if len(self.first) < _KEPT:
            self.first.append(name)

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        return self.first[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.first)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.total == len(other) and self.first == list(other)[:_KEPT]

    def __hash__(self) -> int:
        raise TypeError("names change")

    def __repr__(self) -> str:
        return f"{self.total} x ({', '.join(self.first[:3])}{', ...' if self.total > 3 else ''})"


class Skipped(Mapping[str, Names]):
    """Reasons for which images, objects or files were left out, each with how often and the first names."""

    def __init__(self) -> None:
        self._reasons: dict[str, Names] = {}

    def add(self, reason: str, name: str) -> None:
        """Count one thing that is left out.

        :param reason: "images: ..." or "objects: ..."
        :param name: what it is, as a user finds it
        """
        self._reasons.setdefault(reason, Names()).add(name)

    def add_all(self, reason: str, names: Names) -> None:
        """Take over what another report counted for a reason."""
        own = self._reasons.setdefault(reason, Names())
        own.total += len(names)
        own.first = (own.first + names.first)[:_KEPT]

    def __getitem__(self, reason: str) -> Names:
        return self._reasons[reason]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reasons)

    def __len__(self) -> int:
        return len(self._reasons)

    def lines(self, examples: int = 2) -> list[str]:
        """One line for each reason, most frequent first."""
        ordered = sorted(self._reasons.items(), key=lambda item: -len(item[1]))
        return [f"{len(names)} {reason} ({_examples(names, examples)})" for reason, names in ordered]

    def __str__(self) -> str:
        return "; ".join(self.lines(1)) or "nothing"

    __repr__ = __str__


def _examples(names: Names, most: int) -> str:
    shown = list(dict.fromkeys(names.first))[:most]
    return "first: " + ", ".join(shown)
