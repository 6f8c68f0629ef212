"""Small data sets written as tools write them, independently of how they are read: pycocotools, Pillow and documented formats.

A writer takes a folder, what is in the images, and a source of choices; it returns the spec and the options to read it with.
"""

import base64
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as rle


@dataclass(frozen=True)
class Thing:
    """An object: a rectangle of whole pixels, the last ones excluded."""

    category: str
    box: tuple[int, int, int, int]  # x0, y0, x1, y1

    def mask(self, size):
        found = np.zeros(size, bool)
        x0, y0, x1, y1 = self.box
        found[y0:y1, x0:x1] = True
        return found

    def corners(self, last=0):
        x0, y0, x1, y1 = self.box
        x1, y1 = x1 - last, y1 - last
        return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


@dataclass(frozen=True)
class Picture:
    split: str
    folder: str
    stem: str
    size: tuple[int, int]
    seed: int
    things: tuple[Thing, ...]

    @property
    def pixels(self):
        return np.random.default_rng(self.seed).integers(0, 255, (*self.size, 3), dtype=np.uint8)

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.pixels).save(path)

    def of(self, category):
        return np.any([t.mask(self.size) for t in self.things if t.category == category], axis=0)


def categories(pictures):
    return sorted({t.category for p in pictures for t in p.things})


def _coco(pictures, names, file_name, choose, segmentation):
    """The content of a COCO file; ids as tools number them."""
    as_id = choose([int, str, float])
    first, gap = choose([0, 1]), choose([1, 7])
    ids = {name: first + gap * k for k, name in enumerate(names)}
    restart = choose([False, True])
    images, notes = [], []
    for k, picture in enumerate(pictures):
        images.append({"id": k + first, "file_name": file_name(picture), "width": picture.size[1], "height": picture.size[0]})
        for j, thing in enumerate(picture.things):
            note = {"id": (j if restart else len(notes)) + first, "image_id": as_id(k + first), "iscrowd": 0}
            notes.append(note | {"category_id": ids[thing.category], "segmentation": segmentation(thing, picture.size)})
    return {"images": images, "annotations": notes, "categories": [{"id": i, "name": n} for n, i in ids.items()]}


def _polygon(thing, size):
    return [[v for corner in thing.corners() for v in corner]]


def _packed(thing, size):
    coded = rle.encode(np.asfortranarray(thing.mask(size).astype(np.uint8)))
    return {"size": list(size), "counts": coded["counts"].decode()}


def _counts(thing, size):
    flat = thing.mask(size).flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(size), "counts": runs if not flat[0] else [0, *runs]}


def _written(path, content, choose):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((b"\xef\xbb\xbf" if choose([False, True]) else b"") + json.dumps(content, ensure_ascii=False).encode())


def coco_benchmark(root, pictures, choose):
    segmentation = choose([_polygon, _packed, _counts])
    year, inner = choose(["2017", "2014", ""]), choose(["", "images"])
    for split in ("train", "val"):
        own = [p for p in pictures if p.split == split]
        for p in own:
            p.save(root / inner / f"{split}{year}" / p.folder / f"{p.stem}.png")
        content = _coco(
            own, categories(pictures), lambda p: (Path(p.folder) / f"{p.stem}.png").as_posix(), choose, segmentation
        )
        _written(root / "annotations" / f"instances_{split}{year}.json", content, choose)
    return f"coco:{root}", {"max_instances": None}


def coco_roboflow(root, pictures, choose):
    held_out = choose(["valid", "test"])
    for split, folder in (("train", "train"), ("val", held_out)):
        own = [p for p in pictures if p.split == split]
        for p in own:
            p.save(root / folder / f"{p.folder}_{p.stem}.png")
        content = _coco(own, categories(pictures), lambda p: f"{p.folder}_{p.stem}.png", choose, _polygon)
        _written(root / folder / "_annotations.coco.json", content, choose)
    return f"coco:{_zipped(root, choose)}", {"max_instances": None}


def coco_label_studio(root, pictures, choose):
    written = {
        "as is": "images/{}",
        "backslash": "images\\{}",
        "absolute": "C:\\data\\images\\{}",
        "url": "../../data/images/{}",
    }
    name = written[choose(sorted(written))]
    for p in pictures:
        p.save(root / "images" / f"{p.folder}_{p.stem}.png")
    content = _coco(pictures, categories(pictures), lambda p: name.format(f"{p.folder}_{p.stem}.png"), choose, _packed)
    _written(root / "result.json", content, choose)
    return f"coco:{_zipped(root, choose)}", {"max_instances": None, "folds": 2}


def panoptic(root, pictures, choose):
    names = categories(pictures)
    for split in ("train", "val"):
        images, notes = [], []
        for k, p in enumerate(p for p in pictures if p.split == split):
            p.save(root / f"{split}2017" / f"{p.folder}_{p.stem}.png")
            ids = np.zeros(p.size, np.int64)
            segments = []
            for j, thing in enumerate(p.things):
                number = 1 + 300 * j + 70000 * (j == 1)
                ids[thing.mask(p.size)] = number
                segments.append({"id": number, "category_id": names.index(thing.category) + 1, "iscrowd": 0})
            path = root / "annotations" / f"panoptic_{split}2017" / f"{p.folder}_{p.stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.dstack([ids % 256, ids // 256 % 256, ids // 65536]).astype(np.uint8)).save(path)
            images.append({"id": k, "file_name": path.name, "width": p.size[1], "height": p.size[0]})
            notes.append({"image_id": k, "file_name": path.name, "segments_info": segments})
        kinds = [{"id": k + 1, "name": n, "isthing": 1} for k, n in enumerate(names)]
        content = {"images": images, "annotations": notes, "categories": kinds}
        _written(root / "annotations" / f"panoptic_{split}2017.json", content, choose)
    return f"coco:{root}", {"max_instances": None}


def _zipped(root, choose):
    if not choose([False, True]):
        return root
    target = root.with_name(f"{root.name}.zip")
    above = choose(["", "export/"])
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.write(path, above + path.relative_to(root).as_posix())
    return target


def _binary(mask, choose):
    """A mask in one of the modes in which masks are found."""
    kind = choose(["L", "1", "01", "P", "RGB", "red", "alpha", "I;16"])
    if kind == "P":
        image = Image.fromarray(mask.astype(np.uint8))
        image = image.convert("P")
        image.putpalette([0, 0, 0, 128, 0, 0])
        image.frombytes(mask.astype(np.uint8).tobytes())
        return image
    if kind == "alpha":
        return Image.fromarray(np.dstack([np.full((*mask.shape, 3), 9, np.uint8), np.where(mask, 255, 0).astype(np.uint8)]))
    if kind == "red":
        return Image.fromarray(np.dstack([mask * 200, mask * 0, mask * 30]).astype(np.uint8))
    grey = Image.fromarray((mask * (1 if kind == "01" else 255)).astype(np.uint16 if kind == "I;16" else np.uint8))
    return grey.convert(kind) if kind in ("1", "RGB") else grey


def masks(root, pictures, choose):
    """One category, a mask for each photo or one for each object, in any of the usual places."""
    place = choose(["split/kind", "kind/split", "kind_split", "beside"])
    suffix = choose(["_mask", "_gt", "-label", "_segmentation", "_GT"]) if place == "beside" else choose(["", "_mask", "_seg"])
    apart = suffix and choose([False, True])
    state = choose([0, 1])
    for p in pictures:
        split = p.split if state else {"train": "Training", "val": "validation"}[p.split]
        paths = {
            "split/kind": (root / split / "images" / p.folder, root / split / "masks" / p.folder),
            "kind/split": (root / "JPEGImages" / split / p.folder, root / "Annotations" / split / p.folder),
            "kind_split": (root / f"{split}_images" / p.folder, root / f"{split}_masks" / p.folder),
            "beside": (root / split / p.folder,) * 2,
        }[place]
        p.save(paths[0] / f"{p.stem}.png")
        paths[1].mkdir(parents=True, exist_ok=True)
        whole = [np.any([t.mask(p.size) for t in p.things], axis=0)]
        for k, mask in enumerate([t.mask(p.size) for t in p.things] if apart else whole):
            _same(root, mask, choose).save(paths[1] / f"{p.stem}{suffix}{f'_{k}' if k else ''}.png")
    return f"mask_folder:{root}", {}


def class_folders(root, pictures, choose):
    """A mask for each category that a photo shows, in a folder that is called so."""
    names = categories(pictures)
    inner = choose([False, True])
    for p in pictures:
        p.save(root / p.split / "images" / p.folder / f"{p.stem}.png")
        for name in sorted({t.category for t in p.things}):
            parts = (p.folder, name) if inner else (name, p.folder)
            place = root.joinpath(p.split, "masks", *parts)
            place.mkdir(parents=True, exist_ok=True)
            _same(root, p.of(name), choose).save(place / f"{p.stem}.png")
    return f"mask_folder:{root}", {"category": names[0]} if len(names) == 1 else {}


_MODES = {}


def _same(root, mask, choose):
    """All masks of a folder in one mode."""
    mode = _MODES.setdefault(str(root), choose(range(8)))
    kinds = ["L", "1", "01", "P", "RGB", "red", "alpha", "I;16"]
    return _binary(mask, lambda _: kinds[mode])


def _colours(names):
    return {name: (10 + 37 * k % 240, 200 - 11 * k % 190, 5 + 80 * k % 250) for k, name in enumerate(names)}


def label_map(root, pictures, choose):
    """Label images of several categories: by number with Roboflow's table, or by colour with CVAT's."""
    names = categories(pictures)
    coloured = choose([False, True])
    for p in pictures:
        base = root / p.split / "images" / f"{p.folder}_{p.stem}.png"
        p.save(base)
        path = root / p.split / "masks" / base.name
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = np.zeros((*p.size, 3) if coloured else p.size, np.uint8)
        for t in p.things:
            labels[t.mask(p.size)] = _colours(names)[t.category] if coloured else names.index(t.category) + 1
        Image.fromarray(labels).save(path)
    if coloured:
        lines = [f"{name}:{','.join(map(str, c))}::" for name, c in _colours(names).items()]
        (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", "background:0,0,0::", *lines]))
    else:
        rows = ["Pixel Value, Class", "0, background", *(f'{k + 1}, "{name}"' for k, name in enumerate(names))]
        (root / "_classes.csv").write_text("\n".join(rows).replace(', "', ',"'))
    return f"mask_folder:{root}", {}


def voc_cvat(root, pictures, choose):
    """CVAT's "segmentation mask": VOC's layout with colours of its own, every object a colour in SegmentationObject."""
    names = categories(pictures)
    lists = {"train": [], "val": []}
    for p in pictures:
        name = f"{p.folder}/{p.stem}"
        p.save(root / "JPEGImages" / f"{name}.png")
        layers = {
            "SegmentationClass": np.zeros((*p.size, 3), np.uint8),
            "SegmentationObject": np.zeros((*p.size, 3), np.uint8),
        }
        for k, t in enumerate(p.things):
            layers["SegmentationClass"][t.mask(p.size)] = _colours(names)[t.category]
            layers["SegmentationObject"][t.mask(p.size)] = (90, 10 * k + 1, 3)
        for folder, layer in layers.items():
            (root / folder / p.folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(layer).save(root / folder / f"{name}.png")
        lists[p.split].append(name)
    folder = root / "ImageSets" / "Segmentation"
    folder.mkdir(parents=True)
    for split, listed in lists.items():
        (folder / f"{split}.txt").write_text("\n".join(listed) + "\n")
    lines = [f"{name}:{','.join(map(str, c))}::" for name, c in _colours(names).items()]
    (root / "labelmap.txt").write_text("\n".join(["background:0,0,0::", *lines]))
    return f"voc:{_zipped(root, choose)}", {}


def _png(mask):
    held = io.BytesIO()
    Image.fromarray(mask).save(held, "PNG")
    return base64.b64encode(held.getvalue()).decode()


def labelme(root, pictures, choose):
    """LabelMe: what it draws of each shape is drawn here by Pillow, as LabelMe does it."""
    inside = choose([False, True])
    for p in pictures:
        folder = root / p.split / p.folder
        folder.mkdir(parents=True, exist_ok=True)
        shapes = []
        for k, t in enumerate(p.things):
            x0, y0, x1, y1 = t.box
            kind = choose(["polygon", "rectangle", "four", "mask"])
            corners = t.corners(last=1)
            points = (
                [corners[2], corners[0]] if kind == "rectangle" else [corners[0], corners[2]] if kind == "mask" else corners
            )
            shape = {"label": t.category, "points": points, "shape_type": {"four": "rectangle"}.get(kind, kind)}
            drawn = Image.new("L", p.size[::-1])
            ImageDraw.Draw(drawn).polygon([tuple(c) for c in corners], outline=1, fill=1)
            assert (np.array(drawn).astype(bool) == t.mask(p.size)).all()
            shape |= {"mask": _png(np.ones((y1 - y0, x1 - x0), bool))} if kind == "mask" else {}
            shapes.append(shape | {"group_id": choose([None, k]), "flags": {}})
        content = {"version": "5.5.0", "shapes": shapes, "imagePath": f"{p.stem}.png", "imageData": None}
        content |= {"imageHeight": p.size[0], "imageWidth": p.size[1]}
        if inside:
            content["imageData"] = _png(p.pixels)
        else:
            p.save(folder / f"{p.stem}.png")
        _written(folder / f"{p.stem}.json", content, choose)
    return f"labelme:{root}", {}


def yolo(root, pictures, choose):
    names = categories(pictures)
    by_split = choose([False, True])
    for p in pictures:
        place = [Path(p.split) / kind if by_split else Path(kind) / p.split for kind in ("images", "labels")]
        p.save(root / place[0] / p.folder / f"{p.stem}.png")
        path = root / place[1] / p.folder / f"{p.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for t in p.things:
            values = [v / side for corner in t.corners() for v, side in zip(corner, p.size[::-1], strict=True)]
            lines.append(f"{names.index(t.category)} " + " ".join(map(repr, values)))
        path.write_text("\n".join(lines))
    listed = "\n".join(f"  {k}: {json.dumps(name)}" for k, name in enumerate(names))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{listed}\n", "utf-8")
    return f"yolo:{root}", {}


WRITERS = [coco_benchmark, coco_roboflow, coco_label_studio, panoptic, masks, class_folders, label_map, voc_cvat, labelme]
WRITERS += [yolo]
