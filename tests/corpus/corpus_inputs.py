"""Bad inputs for every loader and command, made when they are needed: what it is, how it is made and read, what should come.

``REFUSED``: an error that explains. ``SKIPPED``: it is read, and what could not be is counted with a reason. ``RIGHT``: it is
read, as it should be. An input may have several: which one depends on what its format can notice.
"""

import copy
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch as th
from PIL import Image
from safetensors.torch import save_file

REFUSED, SKIPPED, RIGHT = "refused", "skipped", "right"
ANY = (REFUSED, SKIPPED)


@dataclass(frozen=True)
class Input:
    """One bad input.

    :param run: makes it in a folder and reads it; returns what was skipped, if anything
    """

    what: str
    run: Callable[[Path], object]
    expected: tuple[str, ...]


SIZE = (24, 32)  # height, width
SQUARE = [4, 4, 20, 4, 20, 16, 4, 16]
HUGE = "9" * 5000


def photo(path, size=SIZE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **options)
    return path


def mask(path, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(SIZE, np.uint8)
    pixels[4:16, 4:20] = value
    Image.fromarray(pixels).save(path)
    return path


def described(spec, **options):
    """Read all of a data set; what it skipped."""
    from alignsam_sb3.datasets import load_dataset
    from alignsam_sb3.datasets.describe import describe

    return describe(load_dataset(spec, "all", **options), None).skipped


# Images -----------------------------------------------------------------------------------------------------------------


def flipped(content):
    out = bytearray(content)
    for k in range(len(out) // 2, len(out) // 2 + 20):
        out[k % len(out)] ^= 0xFF
    return bytes(out)


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


# Annotations in JSON ------------------------------------------------------------------------------------------------------


def coco_content():
    images = [{"id": k, "file_name": f"{k}.png", "height": SIZE[0], "width": SIZE[1]} for k in (1, 2)]
    annotations = [
        {"id": k, "image_id": k, "category_id": 1, "segmentation": [SQUARE], "area": 192, "iscrowd": 0, "bbox": [4, 4, 16, 12]}
        for k in (1, 2)
    ]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}


def written(root, content):
    """A COCO folder with this annotation file, which may be bytes."""
    for k in (1, 2):
        photo(root / "images" / f"{k}.png")
    path = root / "annotations.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return root


def coco(change):
    def run(folder):
        content = coco_content()
        changed = change(content)
        root = written(folder / "data", content if changed is None else changed)
        return described(f"coco:{root}")

    return run


def polygons(change):
    def run(folder):
        content = [{"image": f"{k}.png", "mask": [SQUARE]} for k in (1, 2)]
        changed = change(content)
        return described(f"polygons:{written(folder / 'data', content if changed is None else changed)}")

    return run


def labelme(change):
    def run(folder):
        root = folder / "data"
        for k in (1, 2):
            photo(root / f"{k}.png")
            shape = {"label": "cat", "points": [[4, 4], [20, 4], [20, 16]], "shape_type": "polygon", "group_id": None}
            content = {"imagePath": f"{k}.png", "imageHeight": 24, "imageWidth": 32, "shapes": [shape], "imageData": None}
            changed = change(content) if k == 2 else None
            content = content if changed is None else changed
            (root / f"{k}.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return described(f"labelme:{root}")

    return run


def placed(*places, value):
    """Put a value at a place of nested containers."""

    def change(content):
        inner = content
        for place in places[:-1]:
            inner = inner[place]
        inner[places[-1]] = value

    return change


def without(*places):
    def change(content):
        inner = content
        for place in places[:-1]:
            inner = inner[place]
        del inner[places[-1]]

    return change


BYTES = {
    "empty": b"",
    "no JSON": b"{'images': []",
    "half": json.dumps(coco_content()).encode()[:200],
    "not text": b"\xff\xfe\x00\x80" * 9,
    "nested 100,000 deep": b"[" * 100_000,
    "a number": b"7",
    "a list": b"[]",
    "a text": b'"text"',
    "null": b"null",
    "an empty object": b"{}",
    "zeros": bytes(100),
}
STRANGE = {
    "null": None,
    "a text": "text",
    "a list": [],
    "an object": {},
    "a number": 7,
    "minus one": -1,
    "of 5,000 digits": HUGE,
    "true": True,
    "a fraction": 1.5,
}
COCO_FIELDS = (("images",), ("annotations",), ("categories",))
COCO_INNER = (
    ("images", 1, "file_name"),
    ("images", 1, "id"),
    ("annotations", 1, "segmentation"),
    ("annotations", 1, "image_id"),
    ("annotations", 1, "category_id"),
    ("categories", 0, "name"),
    ("categories", 0, "id"),
)
SEGMENTATIONS = {
    "infinite": [[1e308 * 10, 4, 20, 4, 20, 16]],
    "far away": [[1e15, 4, 20, 1e15, 20, 16]],
    "negative": [[-9, -9, -2, -9, -2, -2]],
    "of two numbers": [[4, 4]],
    "of an odd count": [[4, 4, 20, 4, 20]],
    "of texts": [["a", "b", "c", "d", "e", "f"]],
    "nested too deeply": [[[[4, 4]]]],
    "an RLE of another size": {"size": [9, 9], "counts": [0, 81]},
    "an RLE that is too long": {"size": list(SIZE), "counts": [0, 10**9]},
    "an RLE that is too short": {"size": list(SIZE), "counts": [5]},
    "an RLE of nonsense": {"size": list(SIZE), "counts": "~~~\x01"},
    "an RLE without a size": {"counts": "abc"},
    "an RLE of a negative run": {"size": list(SIZE), "counts": [-5, 5]},
    "an RLE of a huge size": {"size": [10**9, 10**9], "counts": [0]},
}
NAMES = {
    "absolute": "/etc/hostname",
    "climbing": "../../../../etc/hostname",
    "with a zero": "a\0b.png",
    "very long": "x" * 5000 + ".png",
    "missing": "nosuch.png",
    "empty": "",
    "a folder": ".",
    "surrogates": "\ud800.png",
}


def json_inputs():
    for kind, made in {"coco": coco, "polygons": polygons, "labelme": labelme}.items():
        for name, content in BYTES.items():
            expected = (*ANY, RIGHT) if kind == "polygons" and name == "half" else ANY
            yield Input(f"{kind}: a file that is {name}", made(lambda _, content=content: content), expected)
    for places in COCO_FIELDS:
        yield Input(f"coco: no {places[0]}", coco(without(*places)), ANY)
        for name in ("null", "a text", "an object", "a number"):
            yield Input(f"coco: {places[0]} is {name}", coco(placed(*places, value=STRANGE[name])), ANY)
    for places in COCO_INNER:
        where = ".".join(map(str, places))
        yield Input(f"coco: no {where}", coco(without(*places)), (*ANY, RIGHT) if places[-1] == "name" else ANY)
        for name in ("null", "a list", "an object", "minus one", "of 5,000 digits"):
            expected = (*ANY, RIGHT) if places[-1] == "name" or places == ("images", 1, "id") else ANY
            yield Input(f"coco: {where} is {name}", coco(placed(*places, value=STRANGE[name])), expected)


def shape_inputs():
    for name, value in SEGMENTATIONS.items():
        yield Input(f"coco: a segmentation {name}", coco(placed("annotations", 1, "segmentation", value=value)), ANY)
    for name, value in NAMES.items():
        yield Input(f"coco: a file name {name}", coco(placed("images", 1, "file_name", value=value)), ANY)
        yield Input(f"polygons: a file name {name}", polygons(placed(1, "image", value=value)), ANY)
        yield Input(f"labelme: an imagePath {name}", labelme(placed("imagePath", value=value)), (*ANY, RIGHT))
    for name, value in SEGMENTATIONS.items():
        if isinstance(value, list):
            yield Input(f"polygons: a mask {name}", polygons(placed(1, "mask", value=value)), ANY)
    for name in ("null", "a text", "a number", "minus one", "true"):
        yield Input(f"polygons: a mask that is {name}", polygons(placed(1, "mask", value=STRANGE[name])), ANY)
        yield Input(f"polygons: an entry that is {name}", polygons(placed(1, value=STRANGE[name])), ANY)
        yield Input(f"labelme: shapes that are {name}", labelme(placed("shapes", value=STRANGE[name])), ANY)
        yield Input(f"labelme: a shape that is {name}", labelme(placed("shapes", 0, value=STRANGE[name])), ANY)
        yield Input(f"labelme: points that are {name}", labelme(placed("shapes", 0, "points", value=STRANGE[name])), ANY)
    yield Input("labelme: an unknown shape", labelme(placed("shapes", 0, "shape_type", value="heptagon")), ANY)
    yield Input("labelme: infinite points", labelme(placed("shapes", 0, "points", value=[[1e309, 1], [2, 2], [3, 1]])), ANY)


# Labels in text and trees of folders ----------------------------------------------------------------------------------------


YOLO_LINES = {
    "text": "cat here",
    "one number": "0",
    "NaN": "0 nan nan nan nan nan nan",
    "pixels": "0 4 4 20 4 20 16",
    "a box": "0 .5 .5 .2 .2",
    "odd": "0 .1 .1 .5 .1 .5",
    "an unknown class": "9 .1 .1 .5 .1 .5 .5",
    "infinite": "0 inf 0 0 0 1 1",
    "a negative class": "-1 .1 .1 .5 .1 .5 .5",
    "bytes": b"\xff\xfe\x80\x00",
    "a fractional class": "0.5 .1 .1 .5 .1 .5 .5",
}
YOLO_NAMES = {
    "empty": b"",
    "no YAML": b"{{{",
    "a list": b"[1]",
    "without names": b"nc: 1",
    "names are a number": b"names: 7",
    "a command": b"names: !!python/object/apply:os.system ['touch pwned']",
    "not text": b"\xff\xfe\x80\x81",
}


def yolo(line=None, names=b"names: [cat]"):
    def run(folder):
        root = folder / "data"
        for k in (1, 2):
            photo(root / "images" / f"{k}.png")
            text = "0 .1 .1 .6 .1 .6 .7" if k == 1 or line is None else line
            path = root / "labels" / f"{k}.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        (root / "data.yaml").write_bytes(names)
        found = described(f"yolo:{root}")
        assert not Path("pwned").exists()
        return found

    return run


def nothing_there(kind, name):
    def run(folder):
        root = folder / "data"
        if name == "an empty folder":
            root.mkdir()
        elif name == "a file":
            root.write_text("text")
        elif name == "folders only":
            (root / "images").mkdir(parents=True)
            (root / "annotations").mkdir()
        elif name == "images only":
            photo(root / "images" / "1.png")
        return described(f"{kind}:{root}")

    return run


def tree_inputs():
    for name, line in YOLO_LINES.items():
        yield Input(f"yolo: a line that is {name}", yolo(line), ANY)
    for name, content in YOLO_NAMES.items():
        yield Input(f"yolo: a data.yaml that is {name}", yolo(names=content), (REFUSED,))
    kinds = ("coco", "mask_folder", "polygons", "voc", "ade20k", "ade20k_full", "cityscapes", "oxford_pets", "labelme", "yolo")
    for kind in (*kinds, "images"):
        for name in ("nothing", "an empty folder", "a file", "folders only", "images only"):
            if (kind, name) != ("images", "images only"):
                yield Input(f"{kind}: {name}", nothing_there(kind, name), (REFUSED,))


# Words: specs and options ---------------------------------------------------------------------------------------------------


def opened(spec, **options):
    return lambda folder: described(spec, **options) and None


def task(**options):
    def run(folder):
        from alignsam_sb3.task import Task

        Task.from_kwargs(**options)

    return run


def made(**options):
    def run(folder):
        import gymnasium as gym

        gym.make("SamSeg-v0", **{"dataset_kwargs": {"n_images": 2}, "device": "cpu", "clip": None, **options}).reset()

    return run


def words_inputs():
    specs = [
        "",
        ":",
        "toy",
        "toy:",
        "toy:nosuch",
        "coc:x",
        "coco",
        "coco:",
        "http://x.y/z",
        "toy:saliency:nosuch",
        "toy\0:x",
        "a" * 5000,
    ]
    for spec in specs:
        yield Input(f"data set {spec[:30]!r}", opened(spec), (REFUSED,))
    for options in (
        {"n_images": 0},
        {"n_images": -1},
        {"n_images": "many"},
        {"n_images": 1.5},
        {"min_area": 2},
        {"min_area": -1},
        {"nimages": 3},
        {"min_area": "big"},
        {"n_images": None},
        {"categories": ["nosuch"]},
        {"folds": 0},
    ):
        yield Input(f"toy:saliency with {options}", opened("toy:saliency", **options), (REFUSED,))
    for options in (
        {"max_steps": 0},
        {"max_steps": -1},
        {"max_steps": 10**7},
        {"labels": "agnet"},
        {"box": "clop"},
        {"bank": "gpu"},
        {"on_error": "ignore"},
        {"reward": "dice"},
        {"split": "eval", "labels": "oracle-train-only"},
        {"nosuch": 1},
        {"clip": None, "box": "clip"},
        {"clip": None, "prompts": {"a": "b"}},
        {"initial_pair": True, "remove": True},
        {"max_steps": "many"},
        {"dataset_kwargs": 7},
        {"prompts": 7},
    ):
        yield Input(f"a task with {options}", task(**options), (REFUSED,))
    for options in (
        {"patches": 0},
        {"patches": -3},
        {"patches": "many"},
        {"segmenter": "tinny"},
        {"segmenter": ""},
        {"segmenter": "vit_b"},
        {"segmenter": "vit_b:/nowhere.pth"},
        {"clip": "tinny"},
        {"clip": "openai:/nowhere.pt"},
        {"clip": ""},
        {"device": "gpu"},
        {"reward_network": "/nowhere"},
        {"dataset": "toy:nosuch"},
        {"split": "nosuch"},
        {"prompts": {"nosuch": "x"}, "clip": "tiny"},
    ):
        yield Input(f"SamSeg-v0 with {options}", made(**options), (REFUSED,))


# Weights ------------------------------------------------------------------------------------------------------------------


class Touch:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("pwned"),)


def torch_file(path, content):
    th.save(content, path)


WEIGHTS = {
    "nothing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no weights"),
    "a web page": lambda path: path.write_bytes(b"<html>404</html>"),
    "an LFS pointer": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
    "a folder": lambda path: path.mkdir(),
    "an empty dict": lambda path: torch_file(path, {}),
    "a list": lambda path: torch_file(path, [1, 2]),
    "one tensor": lambda path: torch_file(path, th.ones(3)),
    "other names": lambda path: torch_file(path, {"a": th.ones(3)}),
    "a pickle that writes": lambda path: torch_file(path, {"a": Touch()}),
    "half": lambda path: (torch_file(path, {"a": th.ones(999)}), path.write_bytes(path.read_bytes()[:2000])),
    "safetensors of another model": lambda path: save_file({"a": th.ones(3)}, path),
}


def weights(load):
    def of(make):
        def run(folder):
            path = folder / "weights.pth"
            make(path)
            try:
                load(path)
            finally:
                assert not Path("pwned").exists()

        return run

    return of


def load_sam(path):
    from alignsam_sb3.segmenters import load_segmenter

    load_segmenter(f"vit_b:{path}", "cpu")


def load_openai(path):
    from alignsam_sb3.semantics import load_clip

    load_clip(f"openai:{path}", "cpu")


def load_reward(path):
    from alignsam_sb3.rewards.network.scorer import load_scorer

    load_scorer(path, "cpu")


def load_zip(path):
    from alignsam_sb3.policies import SamMaskablePPO

    SamMaskablePPO.load(path, device="cpu")


def load_predictor(path):
    from alignsam_sb3.predictor import Predictor

    Predictor.load(path, device="cpu")


def weights_inputs():
    loaders = {
        "sam": load_sam,
        "clip": load_openai,
        "reward network": load_reward,
        "policy": load_zip,
        "predictor": load_predictor,
    }
    for kind, load in loaders.items():
        for name, make in WEIGHTS.items():
            yield Input(f"{kind} weights that are {name}", weights(load)(make), (REFUSED,))


# Commands -----------------------------------------------------------------------------------------------------------------


def alignsam(*words):
    def run(folder):
        from alignsam_sb3.cli import main

        (folder / "photos").mkdir()
        code = main([word.format(folder=folder) for word in words])
        if code:
            raise SystemExit(code)

    return run


def zoo(*words):
    def run(folder):
        from alignsam_sb3.zoo import _translate

        _translate("train", list(words))

    return run


def module(name, *words):
    def run(folder):
        import importlib

        code = importlib.import_module(name).main([word.format(folder=folder) for word in words])
        if code:
            raise SystemExit(code)

    return run


FIT = ("fit", "--out", "{folder}/out", "--dataset", "toy:saliency", "--device", "cpu")


def command_inputs():
    for words in (
        ("trian",),
        ("annotate",),
        ("annotate", "/nowhere", "--policy", "/nowhere.zip", "--out", "{folder}/o"),
        ("describe",),
        ("describe", "nosuch:x"),
        ("describe", "toy:saliency", "--dataset-kwargs", "n_images"),
        ("describe", "toy:saliency", "--dataset-kwargs", "n=1"),
        ("describe", "coco:/nowhere"),
        ("cache", "empty"),
        ("push", "/nowhere.zip", "nobody"),
        ("export", "--policy", "/nowhere.zip", "--onnx", "x"),
        ("calibrate", "--policy", "/nowhere.zip", "--labelled", "coco:/nowhere"),
        ("review", "/nowhere", "--policy", "/nowhere.zip"),
        ("evaluate", "--policy", "/nowhere.zip"),
        ("evaluate",),
        ("play", "--policy", "/nowhere.zip"),
        ("benchmark", "--policy", "/nowhere.zip", "--images", "0"),
    ):
        yield Input(f"alignsam {' '.join(words)[:60]}", alignsam(*words), (REFUSED,))
    for words in (
        ("-n", "0"),
        ("-n", "-5"),
        ("-n", "many"),
        ("--warm-start", "-5"),
        ("--warm-start", "x"),
        ("--env-kwargs", "a"),
        ("--env-kwargs", "a:open('x')"),
        ("--env-kwargs", "a:__import__('os')"),
        ("--hyperparams", "n_steps:2**99"),
        ("--env-kwargs", "dataset_kwargs:{}", "--categories", "cat"),
    ):
        yield Input(f"train {' '.join(words)}", zoo(*words), (REFUSED,))
    network = "alignsam_sb3.rewards.network.__main__"
    for words in (
        ("--steps", "0"),
        ("--steps", "-1"),
        ("--images", "0"),
        ("--images", "-3"),
        ("--batch", "0"),
        ("--batch", "-1"),
        ("--lr", "0"),
        ("--lr", "-1"),
        ("--lr", "nan"),
        ("--lr", "inf"),
        ("--steps", "many"),
    ):
        yield Input(f"fit {' '.join(words)}", module(network, *FIT, *words), (REFUSED,))
    yield Input(
        "evaluation --episodes 0",
        module("alignsam_sb3.evaluation.__main__", "--policy", "x.zip", "--episodes", "0"),
        (REFUSED,),
    )


# Banks --------------------------------------------------------------------------------------------------------------------


def all_of(path, change):
    path.write_bytes(change(path.read_bytes()))


BANKS = {
    "bytes flipped in rows": lambda f: all_of(f / "embeddings.f16", flipped),
    "rows cut short": lambda f: all_of(f / "embeddings.f16", lambda c: c[: len(c) // 2]),
    "rows empty": lambda f: all_of(f / "embeddings.f16", lambda c: b""),
    "rows zeros": lambda f: all_of(f / "embeddings.f16", lambda c: bytes(len(c))),
    "rows gone": lambda f: (f / "embeddings.f16").unlink(),
    "records flipped": lambda f: all_of(f / "records", flipped),
    "records cut": lambda f: all_of(f / "records", lambda c: c[: len(c) // 2]),
    "records ones": lambda f: all_of(f / "records", lambda c: b"\1" * len(c)),
    "records gone": lambda f: (f / "records").unlink(),
    "bank.json empty": lambda f: all_of(f / "bank.json", lambda c: b""),
    "bank.json half": lambda f: all_of(f / "bank.json", lambda c: c[: len(c) // 2]),
    "bank.json a list": lambda f: all_of(f / "bank.json", lambda c: b"[]"),
    "bank.json gone": lambda f: (f / "bank.json").unlink(),
    "bank.json of others": lambda f: all_of(f / "bank.json", lambda c: c.replace(b"-4-", b"-5-")),
    "skipped.json nonsense": lambda f: (f / "skipped.json").write_bytes(b"\xff{"),
}


def bank(damage):
    def run(folder):
        from alignsam_sb3.datasets import ToyScenes
        from alignsam_sb3.features import FeatureBank, SegmenterSource
        from alignsam_sb3.segmenters import load_segmenter

        def rows():
            found = FeatureBank(
                ToyScenes("saliency", "train", n_images=4), SegmenterSource(load_segmenter("tiny", "cpu")), folder / "bank"
            )
            return np.stack([copy.deepcopy(found[i]["embeddings"]) for i in range(4)])

        expected = rows()
        damage(folder / "bank")
        assert np.allclose(rows(), expected, atol=2e-3), "other rows than before the damage, and not a word"

    return run


def bank_inputs():
    for name, damage in BANKS.items():
        yield Input(f"a bank with {name}", bank(damage), (RIGHT, REFUSED))


INPUTS = [
    *image_inputs(),
    *json_inputs(),
    *shape_inputs(),
    *tree_inputs(),
    *words_inputs(),
    *weights_inputs(),
    *command_inputs(),
    *bank_inputs(),
]
