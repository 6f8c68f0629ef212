import numpy as np
import pytest

from alignsam_sb3.boxes import box_around, map_box, truth_box
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.segmenters import Prompts
from alignsam_sb3.semantics import load_clip


def rectangle(size, x0, y0, x1, y1):
    mask = np.zeros(size, bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    return mask


def overlap(a, b):
    """IoU of two boxes."""
    width, height = (max(min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + 1, 0) for k in (0, 1))
    areas = [(c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def test_the_box_around_a_mask_holds_its_first_and_last_pixels():
    assert box_around(rectangle((40, 60), 5, 7, 30, 9)) == (5, 7, 30, 9)
    assert box_around(rectangle((40, 60), 59, 39, 59, 39)) == (59, 39, 59, 39)
    assert box_around(np.zeros((4, 5), bool)) is None
    assert truth_box(rectangle((40, 60), 5, 7, 30, 9)) == (5, 7, 30, 9)
    assert truth_box(np.zeros((4, 5), bool), np.random.default_rng(0)) is None


def test_jitter_moves_corners_by_a_tenth_of_the_side_and_never_far():
    rng = np.random.default_rng(0)
    truth = rectangle((1024, 1024), 400, 500, 499, 539)  # sides of 100 and 40
    moved = np.array([truth_box(truth, rng) for _ in range(2000)]) - [400, 500, 499, 539]
    assert np.abs(moved.mean(0)).max() < 1
    assert moved[:, [0, 2]].std() == pytest.approx(9.6, abs=0.5)  # 10, with what is cut off at 20
    assert moved[:, [1, 3]].std() == pytest.approx(4, abs=0.3)
    assert np.abs(moved).max() <= 20
    again = truth_box(truth, np.random.default_rng(0))
    assert again == truth_box(truth, np.random.default_rng(0))
    assert again != truth_box(truth, np.random.default_rng(1))


@pytest.mark.parametrize("size", [(1, 1), (3, 400), (64, 64)])
def test_boxes_stay_in_the_image(size):
    rng = np.random.default_rng(0)
    for _ in range(200):
        truth = rng.random(size) > 0.9
        similarity = rng.random((7, 9)).astype(np.float32)
        for box in (truth_box(truth, rng, jitter=1.0), map_box(similarity, size)):
            if box is not None:
                x0, y0, x1, y1 = box
                assert 0 <= x0 <= x1 <= size[1] - 1
                assert 0 <= y0 <= y1 <= size[0] - 1


def test_a_maps_box_holds_the_most_likely_place_and_what_is_connected_with_it():
    similarity = np.zeros((4, 8), np.float32)
    similarity[1:3, 2:4] = 0.9
    similarity[1, 2] = 1
    similarity[3, 4] = 0.7  # touches a corner
    similarity[0, 7] = 0.95  # likely, and elsewhere
    assert map_box(similarity, (40, 160)) == (40, 10, 99, 39)
    assert map_box(similarity, (40, 160), threshold=0.8) == (40, 10, 79, 29)
    assert map_box(similarity * 0.01 + 0.3, (40, 160)) == (40, 10, 99, 39)  # only the order of places matters, and how far
    assert map_box(np.full((4, 8), 0.5, np.float32), (40, 160)) == (0, 0, 159, 39)


def test_clips_box_finds_salient_objects():
    clip, scenes = load_clip("tiny", "cpu"), ToyScenes("saliency", "train", n_images=10)
    rng, found, anywhere = np.random.default_rng(0), [], []
    for i in range(len(scenes)):
        scene = scenes[i]
        size = scene.image.shape[:2]
        similarity = clip.similarity([scene.image], scenes.categories).maps[0, 0].numpy()
        truth = box_around(scene.masks.any(0))
        found.append(overlap(map_box(similarity, size), truth))
        anywhere.append(overlap(map_box(rng.permuted(similarity, axis=0), size), truth))
    assert np.mean(found) > np.mean(anywhere) + 0.2


def test_a_box_is_a_prompt():
    truth = rectangle((128, 128), 20, 30, 90, 100)
    prompts = Prompts.of(
        [[], []], [[], []], [(128, 128)] * 2, boxes=[truth_box(truth), truth_box(truth, np.random.default_rng(0))]
    )
    assert prompts.boxed.all()
