"""Labels in text, and trees of folders."""

from pathlib import Path

from corpus_inputs.base import ANY, REFUSED, Input, described, photo

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
