"""Annotations in JSON: COCO, polygons, LabelMe."""

import json

from corpus_inputs.base import ANY, RIGHT, SIZE, Input, described, photo

SQUARE = [4, 4, 20, 4, 20, 16, 4, 16]
HUGE = "9" * 5000


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
