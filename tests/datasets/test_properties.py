"""Whatever small data set is written, in whatever layout: the same photos, masks, categories and splits are read back."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from writers import WRITERS, Picture, Thing

from alignsam_sb3.datasets import load_dataset

NAMES = st.sampled_from(["leaf", "dog, small", "Käfer", "left ventricle", "x1", "stem (old)"])
FOLDERS = st.sampled_from(["a", "job 1", "seq-02"])
STEMS = ["0001", "benign (4)", "img_7", "Ölfleck", "x%20y", "frame.12"]


@st.composite
def pictures(draw):
    """Two to six images, of both splits, with one to three objects that touch nowhere."""
    made = []
    used = draw(st.lists(st.tuples(FOLDERS, st.sampled_from(STEMS)), min_size=2, max_size=6, unique=True))
    for k, (folder, stem) in enumerate(used):
        size = (draw(st.integers(24, 40)), draw(st.integers(36, 60)))
        column = size[1] // 3
        things = []
        for j in range(draw(st.integers(1, 3))):
            x0 = j * column + draw(st.integers(0, 2))
            y0 = draw(st.integers(0, size[0] - 8))
            x1 = draw(st.integers(x0 + 4, (j + 1) * column - 2))
            y1 = draw(st.integers(y0 + 4, size[0]))
            things.append(Thing(draw(NAMES), (x0, y0, x1, y1)))
        made.append(Picture(("train", "val")[k % 2], folder, stem, size, 100 + k, tuple(things)))
    return made


def check(writer, world, choose):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "set"
        root.mkdir()
        spec, options = writer(root, world, choose)
        if writer.__name__ == "masks":  # these have one category
            one = [tuple(Thing("object", t.box) for t in p.things) for p in world]
            world = [Picture(p.split, p.folder, p.stem, p.size, p.seed, t) for p, t in zip(world, one, strict=True)]
        by_pixels = {p.pixels.tobytes(): p for p in world}
        read = {}
        for split in ("train", "eval"):
            data = load_dataset(spec, split, min_area=0.0, **options)
            found = [data[i] for i in range(len(data))]
            assert not [reason for reason in data.skipped if not reason.startswith("objects: none")], data.skipped
            for sample in found:
                picture = by_pixels[sample.image.tobytes()]
                assert picture.seed not in read, "an image in both splits"
                read[picture.seed] = split
                shown = {data.categories[c] for c in sample.category_ids}
                assert shown == {t.category for t in picture.things}
                for category in shown:
                    got = sample.target(data.categories.index(category))
                    assert (got == picture.of(category)).all(), (category, np.argwhere(got != picture.of(category))[:4])
                for c in np.unique(sample.category_ids):
                    valid = sample.valid_for(int(c))
                    assert valid is None or valid[sample.target(int(c))].all()
        assert len(read) == len(world)
        if "folds" not in options:
            assert read == {p.seed: {"train": "train", "val": "eval"}[p.split] for p in world}


def examples(count):
    unhurried = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=unhurried)


@pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.__name__)
@given(world=pictures(), data=st.data())
@examples(30)
def test_what_is_written_is_read(writer, world, data):
    check(writer, world, lambda choices: data.draw(st.sampled_from(list(choices))))


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.__name__)
@given(world=pictures(), data=st.data())
@examples(500)
def test_what_is_written_is_read_at_length(writer, world, data):
    check(writer, world, lambda choices: data.draw(st.sampled_from(list(choices))))
