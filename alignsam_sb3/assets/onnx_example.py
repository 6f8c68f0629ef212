"""Segment a photo with onnxruntime, numpy and Pillow alone: python example.py photo.jpg dog mask.png"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).parent
CONFIG = json.loads((HERE / "config.json").read_text())
NETS = {path.stem: onnxruntime.InferenceSession(path) for path in HERE.glob("*.onnx")}


def run(name, **inputs):
    wanted, found = ([x.name for x in some] for some in (NETS[name].get_inputs(), NETS[name].get_outputs()))
    return dict(zip(found, NETS[name].run(None, {k: inputs[k] for k in wanted}), strict=True))


def resized(photo, width, height, how=Image.Resampling.BILINEAR):
    return np.asarray(Image.fromarray(photo).resize((width, height), how))


def framed(photo, side):
    height, width = (max(int(n * side / max(photo.shape[:2]) + 0.5), 1) for n in photo.shape[:2])
    return resized(photo, width, height), (height, width)


def segment(photo, category):
    side, n, size = CONFIG["side"], CONFIG["patches"], np.array(photo.shape[:2])
    small, extent = framed(photo, side)
    pixels, picture = np.zeros((1, 3, side, side), np.float32), np.zeros((1, 3, *[CONFIG["picture"]] * 2), np.uint8)
    pixels[0, :, : extent[0], : extent[1]] = ((small - np.array(CONFIG["mean"])) / np.array(CONFIG["std"])).transpose(2, 0, 1)
    shown, (h, w) = framed(photo, CONFIG["picture"])
    picture[0, :, :h, :w] = shown.transpose(2, 0, 1)
    seen = {"image": picture, "target_category": np.array([CONFIG["categories"].index(category)])}
    features = run("encoder", pixels=pixels)
    seen["sam_image_embeddings"] = features["embeddings"]
    if "language" in CONFIG:
        clip = CONFIG["language"]
        square = resized(photo, clip["side"], clip["side"], Image.Resampling.BICUBIC) / 255
        square = ((square - clip["mean"]) / clip["std"]).transpose(2, 0, 1)[None].astype(np.float32)
        seen |= run("language", pixels=square, extent=np.array(extent, np.float32) / side)
    first, cell = np.arange(n) * max(size) / n, max(size) / n
    centres = [np.minimum((first + np.minimum(first + cell, s)) / 2, s - 1).astype(int) for s in size]  # of rows, of columns
    free = np.logical_and.outer(*[(c / cell).astype(int) == np.arange(n) for c in centres]).ravel()
    low, fine = 4 * features["embeddings"].shape[-1], CONFIG["mask_side"]
    logits, coords, labels = np.zeros((1, fine, fine), np.float32), [], []
    for step in range(CONFIG["clicks"]):
        probability = 1 / (1 + np.exp(-logits))
        seen["sam_pred_mask_prob"] = probability.reshape(1, low, fine // low, low, fine // low).mean((2, 4))
        seen["num_steps"] = np.array([[step]], np.float32)
        stop = [step > 0] * CONFIG["done"]  # the last action ends the episode, after the first click
        seen["action_mask"] = np.concatenate([free, free, stop])[None].astype(np.int8)
        action = int(np.where(seen["action_mask"][0], run("policy", **seen)["action_logits"][0], -np.inf).argmax())
        if action == 2 * n * n:
            break
        row, column = divmod(action % (n * n), n)
        free[action % (n * n)] = False
        coords.append([centres[1][column] * extent[1] / size[1], centres[0][row] * extent[0] / size[0]])
        labels.append(int(action < n * n))
        given = {"coords": np.array([coords], np.float32), "labels": np.array([labels]), "last": logits}
        found = run("decoder", is_first=np.array(step == 0), **given, **features)
        logits = found["logits"]
    mask = resized(found["large"][0, : extent[0], : extent[1]], int(size[1]), int(size[0])) > 0
    return mask, float(found["iou"][0])


if __name__ == "__main__":
    found, score = segment(np.asarray(Image.open(sys.argv[1]).convert("RGB")), sys.argv[2])
    Image.fromarray(found.astype(np.uint8) * 255).save(sys.argv[3])
    print(f"{found.sum()} pixels, IoU predicted by SAM: {score:.2f}")
