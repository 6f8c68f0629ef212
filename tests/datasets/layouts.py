"""Small data sets in every layout, written to a folder: two training and two evaluation images of 60 x 40 pixels or so.

Each writer returns the spec, and where one training image and its labels lie.
"""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as rle

SIZE = (40, 60)
BOX = (slice(10, 30), slice(15, 45))  # where the object is in every image


def photo(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return path


def label_image(path, background, value, border=None, palette=False):
    """A label map with the object in its box and, if asked, a border of one pixel around it."""
    labels = np.full(SIZE, background, np.uint8 if max(value, background) < 256 else np.uint16)
    if border is not None:
        labels[9:31, 14:46] = border
    labels[BOX] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels)
    if palette:
        image = image.convert("P")
        image.putpalette(list(range(256)) * 3)
        image = Image.fromarray(labels, "P") if image.mode != "P" else image
        image.putdata(labels.ravel().tolist())
    image.save(path)
    return path


def polygon():
    return [15, 10, 45, 10, 45, 30, 15, 30]


def coco(root):
    for split in ("train2017", "val2017"):
        images, notes = [], []
        for i in range(2):
            photo(root / split / f"{i}.png", seed=i)
            images.append({"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]})
            mask = np.zeros(SIZE, np.uint8, order="F")
            mask[BOX] = 1
            encoded = rle.encode(mask)
            encoded["counts"] = encoded["counts"].decode()
            notes.append({"id": i + 1, "image_id": i, "category_id": 1, "segmentation": encoded, "iscrowd": 0})
        content = {"images": images, "annotations": notes, "categories": [{"id": 1, "name": "thing"}]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return f"coco:{root}", root / "train2017" / "0.png", None


def mask_folder(root):
    for split in ("train", "test"):
        for i in range(2):
            photo(root / split / "images" / f"{i}.jpg", seed=i)
            label_image(root / split / "masks" / f"{i}_mask.png", 0, 255)
    return f"mask_folder:{root}", root / "train/images/0.jpg", root / "train/masks/0_mask.png"


def polygons(root):
    for split in ("train", "val"):
        entries = []
        for i in range(2):
            photo(root / split / "images" / f"{i}.png", seed=i)
            entries.append({"image": f"{i}.png", "mask": [polygon()]})
        (root / split / "annotations.json").write_text(json.dumps(entries))
    return f"polygons:{root}", root / "train/images/0.png", None


def voc(root):
    lists = root / "VOC2012" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", ("2007_000032", "2007_000039")), ("val", ("2007_000033", "2007_000042"))):
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            photo(root / "VOC2012" / "JPEGImages" / f"{name}.jpg")
            label_image(root / "VOC2012" / "SegmentationClass" / f"{name}.png", 0, 12, border=255, palette=True)
            label_image(root / "VOC2012" / "SegmentationObject" / f"{name}.png", 0, 1, border=255, palette=True)
    base = root / "VOC2012"
    return f"voc:{root}", base / "JPEGImages/2007_000032.jpg", base / "SegmentationClass/2007_000032.png"


def ade20k(root):
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    lines += [f"{k}\t0.1\t1\t1\t0\tthing{k}, other name" for k in range(1, 151)]
    (root / "objectInfo150.txt").write_text("\n".join(lines))
    for split in ("training", "validation"):
        for i in range(2):
            photo(root / "images" / split / f"ADE_{split}_{i}.jpg", seed=i)
            label_image(root / "annotations" / split / f"ADE_{split}_{i}.png", 2, 5, border=0)
    return f"ade20k:{root}", root / "images/training/ADE_training_0.jpg", root / "annotations/training/ADE_training_0.png"


def cityscapes(root):
    for split, first in (("train", 0), ("val", 5)):
        for i in range(first, first + 2):
            stem = f"ulm_{i:06d}_000019"
            photo(root / "leftImg8bit" / split / "ulm" / f"{stem}_leftImg8bit.png", seed=i)
            label_image(root / "gtFine" / split / "ulm" / f"{stem}_gtFine_labelIds.png", 7, 26, border=3)
            label_image(root / "gtFine" / split / "ulm" / f"{stem}_gtFine_instanceIds.png", 7, 26001, border=3)
    stem = "ulm_000000_000019"
    labels = root / f"gtFine/train/ulm/{stem}_gtFine_labelIds.png"
    return f"cityscapes:{root}", root / f"leftImg8bit/train/ulm/{stem}_leftImg8bit.png", labels


def oxford_pets(root):
    (root / "annotations").mkdir(parents=True)
    for split, names in (("trainval", ("Bengal_1", "pug_2")), ("test", ("Sphynx_3", "beagle_4"))):
        (root / "annotations" / f"{split}.txt").write_text("".join(f"{name} 1 1 1\n" for name in names))
        for name in names:
            photo(root / "images" / f"{name}.jpg")
            label_image(root / "annotations" / "trimaps" / f"{name}.png", 2, 1, border=3)
    return f"oxford_pets:{root}", root / "images/Bengal_1.jpg", root / "annotations/trimaps/Bengal_1.png"


def labelme(root):
    for split in ("train", "val"):
        for i in range(2):
            photo(root / split / f"{i}.jpg", seed=i)
            corners = np.reshape(polygon(), (-1, 2)).tolist()
            shapes = [{"label": "thing", "shape_type": "polygon", "points": corners}]
            content = {"imagePath": f"{i}.jpg", "imageHeight": SIZE[0], "imageWidth": SIZE[1], "shapes": shapes}
            (root / split / f"{i}.json").write_text(json.dumps(content))
    return f"labelme:{root}", root / "train/0.jpg", root / "train/0.json"


def yolo(root):
    for split in ("train", "val"):
        for i in range(2):
            photo(root / "images" / split / f"{i}.jpg", seed=i)
            place = root / "labels" / split / f"{i}.txt"
            place.parent.mkdir(parents=True, exist_ok=True)
            corners = [v / SIZE[1 - k % 2] for k, v in enumerate(polygon())]
            place.write_text("1 " + " ".join(f"{v:.6f}" for v in corners) + "\n")
    (root / "data.yaml").write_text("path: ..\ntrain: images/train\nval: images/val\nnames:\n  0: other\n  1: thing\n")
    return f"yolo:{root}", root / "images/train/0.jpg", root / "labels/train/0.txt"


def ade20k_full(root):
    for split in ("training", "validation"):
        for i in range(2):
            base = root / "images/ADE" / split / "urban/street" / f"ADE_{split}_{i}"
            photo(base.with_suffix(".jpg"), seed=i)
            seg = np.zeros((*SIZE, 3), np.uint8)
            seg[9:31, 14:46] = 0
            seg[:9] = seg[31:] = (0, 7, 50)  # R / 10 * 256 + G is the class, B tells objects apart
            seg[BOX] = (10, 44, 200)
            Image.fromarray(seg).save(base.with_name(f"{base.name}_seg.png"))
            named = [("sky", 7), ("thing, other word", 300)]
            objects = [{"id": k, "name": n, "name_ndx": ndx, "parts": {"part_level": 0}} for k, (n, ndx) in enumerate(named)]
            base.with_suffix(".json").write_text(json.dumps({"annotation": {"object": objects}}))
    base = root / "images/ADE/training/urban/street"
    return f"ade20k_full:{root}", base / "ADE_training_0.jpg", base / "ADE_training_0_seg.png"


LAYOUTS = {
    f.__name__: f for f in (coco, mask_folder, polygons, voc, ade20k, cityscapes, oxford_pets, labelme, yolo, ade20k_full)
}
CATEGORY = {"mask_folder": "object", "polygons": "object", "voc": "dog", "ade20k": "thing5", "cityscapes": "car"}
CATEGORY |= {"oxford_pets": "cat", "coco": "thing", "labelme": "thing", "yolo": "thing", "ade20k_full": "thing"}
IGNORES = {"voc", "ade20k", "cityscapes", "oxford_pets", "ade20k_full"}
