"""Statements mean the objects they should, and say so in words that the tokenizer is asked for."""

import numpy as np
import pytest

from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.datasets.toy.captions import (
    MIN_AREA,
    Statement,
    Thing,
    all_phrases,
    describe,
    draw_statement,
    plural,
)

DISC = Thing(1, "disc", "red", "striped", "small", "left", False, (0.2, 0.5))
BOX = Thing(2, "box", "blue", "smooth", "large", "right", True, (0.8, 0.5))
RED_BOX = Thing(3, "box", "red", "smooth", "small", "top", False, (0.5, 0.1))
SCENE = [DISC, BOX, RED_BOX]


@pytest.mark.parametrize(
    ("statement", "phrase", "meant"),
    [
        (Statement("disc"), "disc", [DISC]),
        (Statement("box"), "box", [BOX, RED_BOX]),
        (Statement("star"), "star", []),
        (Statement(colour="red"), "red object", [DISC, RED_BOX]),
        (Statement("box", colour="red", texture="smooth"), "red smooth box", [RED_BOX]),
        (Statement("box", count=2), "boxes", [BOX, RED_BOX]),
        (Statement("box", count=1), "box", []),
        (Statement("disc", place="left"), "disc on the left", [DISC]),
        (Statement("disc", place="top"), "disc at the top", []),
        (Statement("disc", relation=("left of", "box")), "disc left of a box", [DISC]),
        (Statement("box", relation=("above", "disc")), "box above a disc", [RED_BOX]),
        (Statement("box", relation=("left of", "disc")), "box left of a disc", []),
        (Statement(salient=True), "salient object", [BOX]),
        (Statement(size="small"), "small object", [DISC, RED_BOX]),
        (Statement(), "object", SCENE),
    ],
)
def test_a_statement_means_its_objects(statement, phrase, meant):
    assert statement.phrase() == phrase
    assert statement.meant(SCENE) == meant
    assert statement.holds(SCENE) == bool(meant)


def test_a_negated_statement_is_true_where_nothing_fits():
    assert Statement("star", negated=True).holds(SCENE)
    assert not Statement("box", negated=True).holds(SCENE)
    assert Statement("star", negated=True).meant(SCENE) == []


def test_plurals():
    assert [plural(n) for n in ("disc", "box", "cross", "star")] == ["discs", "boxes", "crosses", "stars"]


def test_scenes_are_described_by_what_is_seen():
    scenes = ToyScenes("semantic", "train", 20)
    for i in range(20):
        scene = scenes.scene(i)
        things = describe(scene.image, scene.labels, scene.shapes, scene.textures, scene.salient)
        areas = np.bincount(scene.labels.ravel(), minlength=9) / scene.labels.size
        assert [t.k for t in things] == [k for k in range(1, len(scene.shapes) + 1) if areas[k] >= MIN_AREA]
        assert all(t.category == scene.shapes[t.k - 1] and t.texture == scene.textures[t.k - 1] for t in things)


def test_colours_are_named():
    labels = np.ones((8, 8), np.uint8)
    for colour, name in {(220, 30, 30): "red", (30, 60, 220): "blue", (30, 200, 40): "green", (120, 122, 119): "grey"}.items():
        image = np.full((8, 8, 3), colour, np.uint8)
        assert describe(image, labels, ["disc"], ["smooth"], 0)[0].colour == name


def test_most_drawn_statements_are_true_and_all_words_are_known():
    rng = np.random.default_rng(0)
    known = {word for phrase in all_phrases() for word in phrase.split()}
    drawn = [draw_statement(rng, SCENE) for _ in range(400)]
    assert 0.6 < np.mean([s.holds(SCENE) for s in drawn]) < 0.95
    words = {word for s in drawn for word in s.sentence(rng, ["{}"]).replace(".", "").split()}
    assert words <= known | {"a", "of", "is"}
