"""Damaged and odd images and masks."""

import io
import shutil

import numpy as np
from PIL import Image

from corpus_inputs.base import ANY, REFUSED, RIGHT, SIZE, SKIPPED, Input, described, mask, photo

DAMAGES = {
    "empty": lambda content: b"",
    "text": lambda content: b"this is no image",
    "a web page": lambda content: b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "only its beginning": lambda content: content[:20],
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "PostScript": lambda content: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n",
}
FORMATS = ("png", "jpg", "bmp", "webp", "tif")


def image_inputs():
    for kind in ("images", "mask_folder"):
        for format in FORMATS:
            for name, damage in DAMAGES.items():
                yield Input(f"{kind}: a .{format} that is {name}", one_damaged(kind, f"bad.{format}", damage), (SKIPPED,))
        for name, make in ODD_IMAGES.items():
            yield Input(f"{kind}: an image that is {name}", one_odd(kind, make), (*ANY, RIGHT) if "link" in name else ANY)
    yield Input("mask_folder: all masks damaged", all_masks_damaged, (SKIPPED, REFUSED))
    for name, damage in DAMAGES.items():
        yield Input(f"mask_folder: a mask that is {name}", one_mask_damaged(damage), (SKIPPED,))
    for name, value in {"of one grey": 128, "all background": 0}.items():
        yield Input(f"mask_folder: a mask {name}", one_mask_of(value), (*ANY, RIGHT))


def base(kind, folder):
    root = folder / "data"
    pictures = root if kind == "images" else root / "images"
    for k in range(3):
        photo(pictures / f"good{k}.png")
        if kind == "mask_folder":
            mask(root / "masks" / f"good{k}.png")
    return root, pictures


def one_damaged(kind, name, damage):
    def run(folder):
        root, pictures = base(kind, folder)
        memory = io.BytesIO()
        suffix = {"jpg": "JPEG", "tif": "TIFF"}.get(name.split(".")[1], name.split(".")[1].upper())
        pixels = np.random.default_rng(1).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(memory, suffix)
        (pictures / name).write_bytes(damage(memory.getvalue()))
        mask(root / "masks" / "bad.png")
        if kind == "images":
            shutil.rmtree(root / "masks")
        return described(f"{kind}:{root}")

    return run


def bomb(path):
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


ODD_IMAGES = {
    "a folder": lambda path: path.mkdir(),
    "a link to nothing": lambda path: path.symlink_to("nowhere.png"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "60,000 pixels wide and high": bomb,
}


def one_odd(kind, make):
    def run(folder):
        root, pictures = base(kind, folder)
        make(pictures / "odd.png")
        if kind == "mask_folder":
            mask(root / "masks" / "odd.png")
        found = described(f"{kind}:{root}")
        if not found and (pictures / "odd.png").is_dir():
            raise ValueError("a folder is no image, and nobody looks for it") from None
        return found

    return run


def all_masks_damaged(folder):
    root, _ = base("mask_folder", folder)
    for path in (root / "masks").iterdir():
        path.write_bytes(b"no mask")
    return described(f"mask_folder:{root}")


def one_mask_damaged(damage):
    def run(folder):
        root, pictures = base("mask_folder", folder)
        photo(pictures / "bad.png")
        path = mask(root / "masks" / "bad.png")
        path.write_bytes(damage(path.read_bytes()))
        return described(f"mask_folder:{root}")

    return run


def one_mask_of(value):
    def run(folder):
        root, pictures = base("mask_folder", folder)
        photo(pictures / "flat.png")
        Image.fromarray(np.full(SIZE, value, np.uint8)).save(root / "masks" / "flat.png")
        return described(f"mask_folder:{root}")

    return run
