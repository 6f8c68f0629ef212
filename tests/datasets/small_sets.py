"""Sets in which every photo is told by its grey value and every mask by its height, so that mix-ups show."""

import json

import numpy as np
from PIL import Image

from alignsam_sb3.datasets import load_dataset

SIZE = (40, 60)


def photo(path, k, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 20 + 12 * k, np.uint8)).save(path, **how)


def rows(k):
    found = np.zeros(SIZE, bool)
    found[2 : 6 + k, 3:23] = True
    return found


def mask(path, k, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(rows(k), value, 0).astype(np.uint8)).save(path)


def outline(k, x=3):
    return [[x, 2], [x + 20, 2], [x + 20, 6 + k], [x, 6 + k]]


def pairs(spec, split="all", **options):
    """For each image its grey value's number and, from the height of its first object, its mask's."""
    data = load_dataset(spec, split, **options)
    samples = [data[i] for i in range(len(data))]
    found = {s.image_id: (round((float(np.median(s.image)) - 20) / 12), int(s.masks[0].any(1).sum()) - 4) for s in samples}
    return found, data.skipped


def labelme(path, k, image="a.jpg", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = {"label": "x", "points": np.add(outline(k), [[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]]).tolist()}
    content = {"shapes": [shape], "imagePath": image, "imageHeight": SIZE[0], "imageWidth": SIZE[1], **more}
    path.write_text(json.dumps(content))


def coco(path, names, heights, **entry):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": k, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for k, name in enumerate(names)]
    starts = [3 + 30 * (name in names[:k]) for k, name in enumerate(names)]  # another place for another entry of an image
    notes = [
        {"image_id": k, "category_id": 1, "segmentation": [np.ravel(outline(heights[k], start)).tolist()], **entry}
        for k, start in enumerate(starts)
    ]
    path.write_text(json.dumps({"images": images, "annotations": notes, "categories": [{"id": 1, "name": "x"}]}))


def yolo(root, names, said=""):
    """Photos and YOLO labels, ``names`` being the paths below ``images/`` without their ending."""
    root.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        photo(root / f"images/{name}.png", k)
        yolo_line(root / f"labels/{name}.txt", k)
    (root / "data.yaml").write_text(f"names: [x]\n{said}")
    return f"yolo:{root}"


def yolo_line(path, k):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"0 {' '.join(map(str, (np.array(outline(k)) / SIZE[::-1]).ravel()))}\n")


def in_folders(root, kind, folders):
    """A set of a kind with these folders (for ``coco`` and ``voc`` files or lists) and the photos in each, by number."""
    for folder, numbers in folders.items():
        for k in numbers:
            place = {"yolo": f"images/{folder}", "voc": "JPEGImages", "coco": "images"}.get(kind, folder)
            photo(root / f"{place}/{k}.png", k)
            _labels(root, kind, folder, k)
        if kind == "polygons":
            entries = [{"image": f"{k}.png", "mask": [np.ravel(outline(k)).tolist()]} for k in numbers]
            (root / folder / "annotations.json").write_text(json.dumps(entries))
        elif kind == "coco":
            coco(root / f"annotations/instances_{folder}.json", [f"{k}.png" for k in numbers], numbers)
        elif kind == "voc":
            path = root / f"ImageSets/Segmentation/{folder}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{k}\n" for k in numbers))
    return f"{kind}:{root}"


def _labels(root, kind, folder, k):
    """What is written of one photo."""
    if kind == "yolo":
        yolo_line(root / f"labels/{folder}/{k}.txt", k)
        (root / "data.yaml").write_text("names: [x]\n")
    elif kind == "voc":
        mask(root / f"SegmentationClass/{k}.png", k, 1)
    elif kind == "labelme":
        labelme(root / f"{folder}/{k}.json", k, f"{k}.png")
    elif kind == "mask_folder":
        mask(root / f"{folder}/{k}_mask.png", k)
