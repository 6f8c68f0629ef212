"""Something else than the agent's last mask is handed out only where labelled images clearly say so."""

import numpy as np
import pytest

from alignsam_sb3.choice import ANSWERS, LEAST_IMAGES, Choice, choose


def dices(values, masks=1):
    """For each image so many masks of the same Dice."""
    return [(f"image {i}", float(v)) for i, v in enumerate(values) for _ in range(masks)]


@pytest.fixture
def last():
    return np.random.default_rng(0).beta(4, 1, 40)


def test_the_best_of_what_is_clearly_better_is_taken(last):
    rng = np.random.default_rng(1)
    compared = {
        "last": dices(last),
        "best IoU": dices(last + rng.normal(0.05, 0.05, 40)),
        "map alone": dices(last + rng.normal(0.1, 0.1, 40)),
        "CLIP points": dices(last - 0.2),
    }
    choice = choose(compared)
    assert choice.answer == "map alone" and choice.images == 40
    assert choice.dices == pytest.approx({name: np.mean([d for _, d in found]) for name, found in compared.items()})
    said = str(choice).splitlines()
    assert said[1].endswith("map alone   <- handed out") and said[-1].endswith("CLIP points")


def test_a_tie_keeps_the_last_mask(last):
    choice = choose({"last": dices(last), "best IoU": dices(last), "steadiest": dices(last[::-1])})
    assert choice.answer == "last" and "last   <- handed out (nothing else is surely better)" in str(choice)


def test_what_is_better_on_two_images_alone_is_luck(last):
    gains = np.zeros(40)
    gains[:2] = 0.5
    assert choose({"last": dices(last), "best IoU": dices(last + gains)}).answer == "last"


def test_noise_seldom_moves_it():
    rng, moved = np.random.default_rng(2), 0
    for _ in range(40):
        last = rng.beta(4, 1, 30)
        moved += choose({name: dices(last + rng.normal(0, 0.1, 30)) for name in ANSWERS}).answer != "last"
    assert moved <= 4


def test_many_masks_of_one_image_are_one_draw():
    """Ten masks that gain together say no more than one."""
    gains = np.array([1] * 13 + [-1] * 7) * 0.1
    few = choose({"last": dices(np.zeros(20)), "best IoU": dices(gains)})
    many = choose({"last": dices(np.zeros(20), 10), "best IoU": dices(gains, 10)})
    assert few.answer == many.answer == "last" and many.images == 20


def test_few_images_keep_the_last_mask_and_say_so():
    short = np.full(LEAST_IMAGES - 1, 0.2)
    choice = choose({"last": dices(short), "best IoU": dices(short + 0.5)})
    assert choice.answer == "last" and f"with fewer than {LEAST_IMAGES} images nothing else is chosen" in str(choice)
    assert choose({"last": [], "best IoU": []}) == Choice("last", {"last": 0, "best IoU": 0}, 0)


def test_what_was_not_compared_is_said_in_words():
    assert str(Choice("map alone")) == "Handed out is the recalibration module's map"
    with pytest.raises(ValueError, match="did you mean 'best IoU'"):
        Choice("best Iou")
