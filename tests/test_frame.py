"""Images, frames and cells: padding and squashing, both ways, whatever the size."""

import numpy as np
import pytest
import torch as th
from segment_anything.utils.transforms import ResizeLongestSide

from alignsam_sb3.frame import PADDING, CellGrid, Frame

SIZES = [(128, 128), (60, 90), (375, 500), (500, 375), (1, 1), (3, 1000), (1000, 3), (1, 7)]
FRAMES = [Frame(128), Frame(128, squash=True), Frame(1024)]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_and_points_are_segment_anythings(size):
    frame, theirs = Frame(1024), ResizeLongestSide(1024)
    assert frame.extent(size) == theirs.get_preprocess_shape(*size, 1024)
    points = np.random.default_rng(0).random((1, 9, 2)) * size[::-1]
    ours = frame.to_frame(th.from_numpy(points), np.array([size]))
    assert ours.dtype == th.float32
    assert np.allclose(ours.numpy(), theirs.apply_coords(points, size), atol=1e-3)


def test_a_thin_image_keeps_a_row_and_an_empty_one_is_refused():
    assert Frame(128).extent((3, 1000)) == (1, 128)  # rounding alone would give 0
    assert Frame(128, squash=True).extent((3, 1000)) == (128, 128)
    assert Frame(1024).extent((3, 1000), 16) == (1, 16)
    for frame in FRAMES:
        with pytest.raises(ValueError, match="an image of 5x0 pixels has nothing to segment"):
            frame.extent((0, 5))


@pytest.mark.parametrize("frame", FRAMES)
def test_every_image_of_a_batch_has_its_own_scale(frame):
    sizes = np.array([(60, 90), (90, 60), (1, 1)])
    corners = th.tensor([[[90.0, 60.0]], [[60.0, 90.0]], [[1.0, 1.0]]])
    reached = frame.to_frame(corners, sizes)[:, 0].tolist()
    assert reached == [list(frame.extent((h, w))[::-1]) for h, w in sizes]


@pytest.mark.parametrize("frame", FRAMES[:2])
@pytest.mark.parametrize("size", SIZES)
def test_a_picture_fills_its_extent_and_the_rest_is_black(frame, size):
    picture = frame.picture(np.full((*size, 3), 200, np.uint8))
    height, width = frame.extent(size)
    assert picture.shape == (128, 128, 3)
    assert (picture[:height, :width] == 200).all()
    assert not picture[height:].any()
    assert not picture[:, width:].any()
    inside = frame.inside(np.array([size, (128, 128)]), 128)
    assert np.array_equal(inside[0], picture[..., 0] > 0)
    assert inside[1].all()


@pytest.mark.parametrize("frame", FRAMES[:2])
@pytest.mark.parametrize("size", SIZES)
def test_a_mask_goes_to_cells_and_comes_back(frame, size):
    mask, (height, width) = np.zeros(size, bool), frame.extent(size)
    rows = size[0] if height == 1 else max(size[0] // 2, 1)  # what is one cell thick is all or nothing
    columns = size[1] if width == 1 else max(size[1] // 3, 1)
    mask[:rows, :columns] = True
    cells = frame.cells(mask, 128)
    assert cells.shape == (128, 128)
    assert not cells[height:].any()
    assert not cells[:, width:].any()
    assert cells[:height, :width].mean() / 255 == pytest.approx(mask.mean(), abs=0.03)
    back = frame.restore(th.from_numpy(cells / 255.0).float()[None, None], size)
    assert back.shape == (1, 1, *size)
    assert ((back[0, 0].numpy() > 0.5) == mask).mean() > 0.97


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (33, 100), (100, 100)])
def test_logits_come_back_as_segment_anythings_do(size):
    from segment_anything.modeling import Sam

    class Shell:
        class image_encoder:
            img_size = 128

    frame, logits = Frame(128), th.randn(2, 1, 32, 32, generator=th.Generator().manual_seed(0))
    theirs = Sam.postprocess_masks(Shell(), logits, frame.extent(size), size)
    assert th.allclose(frame.restore(logits, size), theirs, atol=1e-6)


@pytest.mark.parametrize("frame", FRAMES[:2])
@pytest.mark.parametrize("size", [(60, 90), (90, 60), (3, 1000), (128, 128)])
def test_a_place_in_a_squashed_map_is_the_same_place_in_the_frame(frame, size):
    """A ramp along each axis of the image: each cell holds its centre's share of the image, or the padding's number."""
    y, x = np.meshgrid((np.arange(40) + 0.5) / 40, (np.arange(40) + 0.5) / 40, indexing="ij")
    framed = frame.from_squashed(np.stack([x, y]).astype(np.float32), size, (16, 16))
    height, width = frame.extent(size)
    centres = (np.arange(16) + 0.5) * 128 / 16
    on = (centres < height)[:, None] & (centres < width)[None]
    assert (framed[:, ~on] == PADDING).all()
    for axis, extent, values in ((1, width, framed[0]), (0, height, framed[1])):
        wanted = np.clip(centres / extent, 0.0125, 0.9875)
        wanted = np.broadcast_to(wanted[None] if axis else wanted[:, None], (16, 16))
        assert np.allclose(values[on], wanted[on], atol=1e-4)


# Cells to click


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("patches", [2, 8, 32])
@pytest.mark.parametrize("frame", FRAMES[:2])
def test_every_clickable_cell_is_clicked_inside_the_image_and_found_again(frame, size, patches):
    grid = CellGrid(frame, patches)
    clickable = np.flatnonzero(grid.on_image(size))
    assert len(clickable)
    places = grid.centres(size)[clickable]
    assert (places >= 0).all()
    assert (places < size[::-1]).all()
    assert [grid.cell_at(tuple(place), size) for place in places.tolist()] == clickable.tolist()
    assert len(np.unique(places, axis=0)) == len(places)


def test_cells_in_the_padding_cannot_be_clicked():
    grid = CellGrid(Frame(128), 4)
    assert grid.on_image((50, 100)).reshape(4, 4).tolist() == [[True] * 4] * 2 + [[False] * 4] * 2
    assert grid.on_image((100, 60)).reshape(4, 4).tolist() == [[True] * 3 + [False]] * 4
    assert grid.on_image((1, 1)).sum() == 1
    assert CellGrid(Frame(128, squash=True), 4).on_image((50, 100)).all()


def test_a_cell_that_the_border_cuts_is_clicked_in_the_middle_of_what_is_left():
    grid = CellGrid(Frame(128), 4)  # cells of 25 pixels; the last one that an image of 60 rows reaches has 10 of them
    assert grid.on_image((60, 100)).reshape(4, 4)[2].all()
    assert grid.centres((60, 100)).reshape(4, 4, 2)[2, :, 1].tolist() == [55] * 4
    assert grid.centres((60, 100)).reshape(4, 4, 2)[:2, 0, 1].tolist() == [12, 37]
    assert grid.centres((100, 60)).reshape(4, 4, 2)[0, :, 0].tolist()[:3] == [12, 37, 55]


def test_a_map_is_read_where_its_cells_are_clicked():
    """Each cell of a map holds its own number: what is sampled is the number of the cell under the click's pixel."""
    for frame, size in ((Frame(128), (60, 90)), (Frame(128), (90, 60)), (Frame(128, squash=True), (60, 90))):
        grid, values = CellGrid(frame, 8), np.arange(32.0 * 32).reshape(32, 32)
        sampled = grid.sample(values, size)
        x, y = (grid.centres(size) + 0.5).T
        height, width = frame.reaches(size)
        wanted = values[(y * 32 / height).astype(int), (x * 32 / width).astype(int)]
        assert np.array_equal(sampled, wanted)
        sides = (90, 90) if not frame.squash else (60, 90)  # padding counts, squashing does not
        assert (height, width) == sides


def test_sampling_follows_the_frame_not_the_image():
    """What lies in the right half of a wide image is read in the right half; the longer side says how far cells reach."""
    frame, size = Frame(128), (40, 80)
    image = np.zeros(size, bool)
    image[:, 40:] = True
    grid = CellGrid(frame, 8)
    sampled = grid.sample(frame.cells(image, 32).astype(float), size).reshape(8, 8) > 127
    assert sampled[:4, 4:].all()
    assert not sampled[:, :4].any()


def test_points_outside_and_too_few_patches_are_refused():
    grid = CellGrid(Frame(128), 4)
    for point in ((90, 0), (0, 60), (-1, 3)):
        with pytest.raises(ValueError, match=r"outside the image of 90x60 pixels"):
            grid.cell_at(point, (60, 90))
    with pytest.raises(ValueError, match="patches must be at least 2, got 1"):
        CellGrid(Frame(128), 1)
