"""Several data sets as one: every image once, categories by name, and nothing learned that is for evaluation."""

import numpy as np
import pytest
from PIL import Image

from alignsam_sb3.datasets import Together, ToyScenes, load_dataset, parts_of
from alignsam_sb3.datasets.seen import hash_in


def mask_folder(root, scenes):
    """Toy scenes as photos and masks."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for k, sample in enumerate(scenes):
        Image.fromarray(sample.image).save(root / "images" / f"{k}.png")
        Image.fromarray(np.uint8(sample.target(0)) * 255).save(root / "masks" / f"{k}.png")
    return f"mask_folder:{root}"


def test_categories_of_one_name_are_one_and_masks_stay_with_their_image():
    shapes, salient = ToyScenes("semantic", n_images=12), ToyScenes("saliency", n_images=3)
    both = Together([salient, shapes, ToyScenes("saliency", n_images=2, seed=5)])
    assert both.categories == (*salient.categories, *shapes.categories) and len(both) == 17
    for index, (part, row) in {0: (salient, 0), 5: (shapes, 2), 16: (ToyScenes("saliency", n_images=2, seed=5), 1)}.items():
        for name in part.categories:
            theirs = part[row].target(part.categories.index(name))
            assert (both[index].target(both.categories.index(name)) == theirs).all()
        assert hash_in(both, index) == hash_in(part, row)
    assert both.images_by_category[0].tolist() == [0, 1, 2, 15, 16]
    for own, theirs in zip(both.images_by_category[1:], shapes.images_by_category, strict=True):
        assert own.tolist() == (theirs + 3).tolist()
    assert len({both[i].image_id for i in range(len(both))}) == 17


def test_what_any_part_holds_out_is_learned_from_in_none(tmp_path, caplog):
    scenes = [ToyScenes("saliency", n_images=10)[k] for k in range(10)]
    first, again = (
        mask_folder(tmp_path / "a", scenes),
        mask_folder(tmp_path / "b", scenes[3:] + scenes[:3]),
    )  # other folds, same photos
    train, held_out = (load_dataset(f"{first}+{again}", split) for split in ("train", "eval"))
    hashes = [{hash_in(data, i) for i in range(len(data))} for data in (train, held_out)]
    assert not hashes[0] & hashes[1] and len(held_out) == 4 and len(hashes[0]) == 10 - len(hashes[1])
    assert "left out of training" in caplog.text


def test_options_go_to_those_that_have_them(tmp_path):
    others = ToyScenes("saliency", n_images=10, seed=5)
    spec = "toy:saliency+" + mask_folder(tmp_path, [others[k] for k in range(10)])
    both = load_dataset(spec, n_images=4, folds=2)
    assert len(both) == 4 + 5 and both.categories == ("salient object", "object")
    with pytest.raises(ValueError, match="did you mean 'n_images'"):
        load_dataset(spec, n_image=4)


def test_objects_of_categories_that_nobody_asked_for_are_left_out():
    shapes = ToyScenes("semantic", n_images=20)
    both = Together([shapes, ToyScenes("saliency", n_images=20)], categories=("disc",))
    disc = shapes.categories.index("disc")
    assert both.categories == ("disc",) and both.images_by_category[0].tolist() == shapes.images_by_category[disc].tolist()
    first = both.images_by_category[0][0]
    assert (both[first].target(0) == shapes[first].target(disc)).all() and not len(both[25].masks)


def test_its_fingerprint_changes_with_the_parts():
    prints = {load_dataset(s, n_images=3).fingerprint for s in ("toy:saliency+toy:blur", "toy:blur+toy:saliency")}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("spec", "parts"),
    [("coco:a+b", ["coco:a+b"]), ("coco:a+b+toy:blur", ["coco:a+b", "toy:blur"]), ("toy:blur", ["toy:blur"])],
)
def test_a_plus_within_a_path_is_none(spec, parts):
    assert parts_of(spec) == parts
