"""Errors that name the nearest valid choice."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

SHOWN = 40  # names that are shown; of more, the nearest


def first_of(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many there are besides.

    >>> first_of(["ring", "star", "disc"], 2)
    'ring, star and 1 more'
    """
    return ", ".join(names[:most]) + f" and {len(names) - most} more" * (len(names) > most)


def nearest(kind: str, given: object, known: Iterable[str]) -> str:
    """Say what was given, what is known, and which known name is meant most likely.

    >>> nearest("reward", "dice_gian", ["paper", "dice_gain"])
    "unknown reward 'dice_gian': did you mean 'dice_gain'? Known: dice_gain, paper"
    """
    names = sorted(known)
    close = get_close_matches(str(given), names, n=1, cutoff=0.4)
    hint = f": did you mean {close[0]!r}?" if close else "."
    if len(names) > SHOWN:
        some = sorted(get_close_matches(str(given), names, n=SHOWN // 2, cutoff=0.0))
        return f"unknown {kind} {given!r}{hint} Known: {', '.join(some)}, and {len(names) - len(some)} more"
    return f"unknown {kind} {given!r}{hint} Known: {', '.join(names)}"
