"""Command lines."""

from corpus_inputs.base import REFUSED, Input


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
        from alignsam_sb3.zoo_options import translate

        translate("train", list(words))

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
