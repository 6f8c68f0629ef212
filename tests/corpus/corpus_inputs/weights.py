"""Files of weights, and policies."""

from pathlib import Path

import torch as th
from safetensors.torch import save_file

from corpus_inputs.base import REFUSED, Input


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
