"""Statements about toy scenes: what they say, which objects they mean, and whether they are true."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.datasets.toy.shapes import SHAPES
from alignsam_sb3.datasets.toy.textures import TEXTURES

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "grey")
_HUE_ENDS = (15, 42, 70, 160, 200, 255, 290, 345)  # degrees: up to where each colour reaches; red again beyond the last
PLACES = ("left", "right", "top", "bottom", "middle")
SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
NUMBERS = ("one", "two", "three", "four")
MIN_AREA = 0.01


@dataclass(frozen=True)
class Thing:
    """What can be said of one object.

    :param centre: (x, y) in fractions of the image
    """

    k: int
    category: str
    colour: str
    texture: str
    size: str
    place: str
    salient: bool
    centre: tuple[float, float]


def describe(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], shapes: Sequence[str], textures: Sequence[str], salient: int
) -> list[Thing]:
    """The objects of a scene that are large enough to be spoken of."""
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    things = []
    for k, (shape, texture) in enumerate(zip(shapes, textures, strict=True), start=1):
        mask = labels == k
        area = float(mask.mean())
        if area < MIN_AREA:
            continue
        y, x = ((axis.mean() + 0.5) / side for axis, side in zip(np.nonzero(mask), labels.shape, strict=True))
        size = SIZES[int(area >= 0.05)]
        things.append(Thing(k, shape, _colour(hsv[mask]), texture, size, _place(x, y), k == salient, (x, y)))
    return things


def _colour(hsv: NDArray[np.float32]) -> str:
    """Name of the mean colour of pixels (M, 3)."""
    angle = np.deg2rad(hsv[:, 0])
    weight = hsv[:, 1] * hsv[:, 2]
    x, y = (weight * np.cos(angle)).mean(), (weight * np.sin(angle)).mean()
    if np.hypot(x, y) < 0.12 * max(float(hsv[:, 2].mean()), 0.05):
        return "grey"
    return COLOURS[int(np.searchsorted(_HUE_ENDS, np.rad2deg(np.arctan2(y, x)) % 360)) % len(_HUE_ENDS)]


def _place(x: float, y: float) -> str:
    if max(abs(x - 0.5), abs(y - 0.5)) < 0.17:
        return "middle"
    if abs(x - 0.5) > abs(y - 0.5):
        return "left" if x < 0.5 else "right"
    return "top" if y < 0.5 else "bottom"


@dataclass(frozen=True)
class Statement:
    """A noun phrase: what is None is not said, and a category of None is "object"."""

    category: str | None = None
    colour: str | None = None
    texture: str | None = None
    size: str | None = None
    place: str | None = None
    salient: bool | None = None
    count: int | None = None
    relation: tuple[str, str] | None = None
    negated: bool = False

    def meant(self, things: Sequence[Thing]) -> list[Thing]:
        """The objects that the statement is about; none where it is not true of the scene, and where it is negated."""
        found = [thing for thing in things if self._fits(thing, things)]
        if self.negated or (self.count is not None and len(found) != self.count):
            return []
        return found

    def holds(self, things: Sequence[Thing]) -> bool:
        """Whether the statement is true of a scene."""
        if self.negated:
            return not any(self._fits(thing, things) for thing in things)
        return bool(self.meant(things))

    def _fits(self, thing: Thing, things: Sequence[Thing]) -> bool:
        said = ((name, getattr(self, name)) for name in ("category", "colour", "texture", "size", "place", "salient"))
        if any(value is not None and getattr(thing, name) != value for name, value in said):
            return False
        return self.relation is None or any(
            other.category == self.relation[1] and other.k != thing.k and _related(self.relation[0], thing, other)
            for other in things
        )

    def phrase(self) -> str:
        """The words, without article: ``"red striped disc on the left"``."""
        noun = self.category or "object"
        if self.count is not None and self.count > 1:
            noun = plural(noun)
        before = ["salient"] if self.salient else []
        before += [word for word in (self.size, self.colour, self.texture) if word]
        after = {None: "", "middle": " in the middle", "top": " at the top", "bottom": " at the bottom"}
        words = " ".join([*before, noun]) + after.get(self.place, f" on the {self.place}")
        return words + (f" {self.relation[0]} a {self.relation[1]}" if self.relation else "")

    def sentence(self, rng: np.random.Generator, templates: Sequence[str]) -> str:
        """The statement in one of the templates; counted and negated ones have their own.

        :param templates: with ``{}`` where the phrase goes
        """
        if self.negated:
            return str(rng.choice(["no {}", "a photo without a {}.", "there is no {} in the scene."])).format(self.phrase())
        if self.count is not None:
            counted = f"{NUMBERS[self.count - 1]} {self.phrase()}"
            return str(rng.choice(["{}", "a photo of {}.", "there are {} in the scene."])).format(counted)
        return str(rng.choice(["{}", "a {}", *templates])).format(self.phrase())


def plural(noun: str) -> str:
    """English plural of the toy categories."""
    return noun + ("es" if noun[-1] in "sx" else "s")


def _related(word: str, thing: Thing, other: Thing) -> bool:
    dx, dy = (a - b for a, b in zip(thing.centre, other.centre, strict=True))
    along = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[word]
    return along > max(0.1, min(abs(dx), abs(dy)))


def draw_statement(rng: np.random.Generator, things: Sequence[Thing]) -> Statement:
    """Something to say of a scene; one in three times a word is exchanged, so that it is (mostly) false."""
    thing = things[int(rng.integers(len(things)))]
    kind = rng.choice(["colour", "texture", "size", "place", "two", "count", "relation", "negated", "salient", "any"])
    said = Statement(category=thing.category)
    if kind in ("colour", "texture", "size", "place"):
        said = replace(said, **{str(kind): getattr(thing, str(kind))}, category=thing.category if rng.random() < 0.7 else None)
    elif kind == "two":
        said = replace(
            said, colour=thing.colour, texture=thing.texture, category=thing.category if rng.random() < 0.7 else None
        )
    elif kind == "count":
        number = sum(t.category == thing.category for t in things)
        said = replace(said, count=min(number, len(NUMBERS)))
    elif kind == "relation":
        others = [(word, o.category) for o in things for word in RELATIONS if o is not thing and _related(word, thing, o)]
        said = replace(said, relation=others[rng.integers(len(others))]) if others else said
    elif kind == "negated":
        said = replace(said, negated=True)
    elif kind == "salient":
        said = replace(said, category=None, salient=True)
    else:
        said = Statement()
    return _distort(rng, said) if rng.random() < 1 / 3 else said


def _distort(rng: np.random.Generator, said: Statement) -> Statement:
    """Exchange one word."""
    choices: dict[str, Sequence[object]] = {
        "category": tuple(SHAPES),
        "colour": COLOURS,
        "texture": tuple(TEXTURES),
        "size": SIZES,
        "place": PLACES,
        "count": range(1, len(NUMBERS) + 1),
    }
    spoken = [f.name for f in fields(said) if f.name in choices and getattr(said, f.name) is not None]
    if not spoken:
        return said
    name = str(rng.choice(spoken))
    return replace(said, **{name: choices[name][int(rng.integers(len(choices[name])))]})  # type: ignore[arg-type]


def all_phrases() -> list[str]:
    """Phrases that together hold every word a statement can use."""
    nouns = [*SHAPES, "object"]
    words: list[Statement] = [Statement(colour=c) for c in COLOURS] + [Statement(texture=t) for t in TEXTURES]
    words += [Statement(size=s) for s in SIZES] + [Statement(place=p) for p in PLACES] + [Statement(salient=True)]
    words += [Statement(relation=(r, "disc")) for r in RELATIONS]
    counted = [f"{number} {plural(noun)}" for number in NUMBERS for noun in nouns]
    return [*nouns, *counted, *(w.phrase() for w in words), "no", "a photo without a", "there are in the scene"]
