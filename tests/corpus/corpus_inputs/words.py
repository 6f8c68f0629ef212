"""Words: specs and options."""

from corpus_inputs.base import REFUSED, Input, described


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
