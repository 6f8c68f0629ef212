import numpy as np
import pytest
from PIL import Image

from alignsam_sb3.datasets.images import UnreadableImageError, read_rgb

GREY = np.linspace(0, 255, 20 * 30).reshape(20, 30).astype(np.uint8)
COLOUR = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def test_greyscale_has_three_equal_channels(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.repeat(GREY[..., None], 3, 2))


def test_sixteen_bit_is_scaled_to_eight(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png")[..., 0], GREY)


def test_transparent_pixels_lie_on_white(tmp_path):
    rgba = np.dstack([COLOUR, np.full((20, 30), 255, np.uint8)])
    rgba[0, 0, 3] = 0
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.png")
    read = read_rgb(tmp_path / "a.png")
    assert read[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(read[1:], COLOUR[1:])


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (30, 20), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = read_rgb(tmp_path / "a.jpg")[5, 5]
    assert red > 180 > 60 > max(green, blue)


def test_palette_images(tmp_path):
    Image.fromarray(GREY).convert("P").save(tmp_path / "a.png")
    assert read_rgb(tmp_path / "a.png").shape == (20, 30, 3)


def test_exif_is_read_in_the_orientation_that_the_annotation_describes(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(COLOUR).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "a.png", (20, 30)), COLOUR)
    assert np.array_equal(read_rgb(tmp_path / "a.png", (30, 20)), np.rot90(COLOUR, -1))
    assert read_rgb(tmp_path / "a.png").shape == (30, 20, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "empty"), (b"hello", "UnidentifiedImageError")],
)
def test_what_is_no_image_is_named(tmp_path, content, message):
    path = tmp_path / "broken.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableImageError, match=f"broken.jpg.*{message}"):
        read_rgb(path)


def test_truncated_images_are_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    whole = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableImageError, match="truncated"):
        read_rgb(tmp_path / "a.jpg")


def test_another_size_than_the_annotation_is_refused(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(UnreadableImageError, match=r"30x20 but its annotation says 31x20"):
        read_rgb(tmp_path / "a.png", (20, 31))
