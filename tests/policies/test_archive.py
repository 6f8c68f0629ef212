"""Hostile and broken policies: each is refused in one line, quickly, without much memory, and nothing of theirs is run."""

import base64
import io
import json
import pickle
import resource
import struct
import time
import zipfile

import pytest
import torch as th
from alignsam_sb3.envs.vec_env import SamSegVecEnv

from alignsam_sb3.policies import SamMaskablePPO, load_policy, read_recipe


class Writes:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def venv(make_env):
    return SamSegVecEnv([lambda: make_env(max_steps=3)])


@pytest.fixture(scope="module")
def saved(venv, tmp_path_factory):
    """A good policy: the files in it by name."""
    path = tmp_path_factory.mktemp("good") / "policy.zip"
    SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=4, batch_size=4, n_epochs=1, device="cpu").learn(4).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(files, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def torched(content):
    file = io.BytesIO()
    th.save(content, file)
    return file.getvalue()


def told(files, *place, value):
    """The files with one value of the recipe changed."""
    recipe = json.loads(files["alignsam.json"])
    inner = recipe
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return {**files, "alignsam.json": json.dumps(recipe)}


def weights(files, change, name="policy.pth"):
    state = th.load(io.BytesIO(files[name]), weights_only=True)
    return {**files, name: torched(change(state))}


def first(state, value):
    key = next(iter(state))
    return {**state, key: value(state[key])}


def many_entries(count):
    """A directory of so many files, written without them."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    directory = entry * count
    shown = min(count, 0xFFFF)
    return directory + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, shown, shown, len(directory), 0, 0)


def nested(depth):
    return "[" * depth + "]" * depth


WRONG = {
    "not a zip": (lambda f: b"hello", "no zip file"),
    "empty": (lambda f: b"", "no zip file"),
    "cut": (lambda f: zipped(f)[:-100], "no zip file, or was cut"),
    "cut in the middle": (lambda f: zipped(f)[: len(zipped(f)) // 2], "no zip file"),
    "flipped bytes": (lambda f: zipped(f)[:200_000] + b"\xff" * 2000 + zipped(f)[202_000:], "damaged|cannot|not"),
    "climbing name": (lambda f: zipped({**f, "../../evil": b""}), "points out of it"),
    "absolute name": (lambda f: zipped({**f, "/etc/evil": b""}), "points out of it"),
    "windows name": (lambda f: zipped({**f, "C:evil": b""}), "points out of it"),
    "bomb in data": (lambda f: zipped({**f, "data": bytes(200 << 20)}, zipfile.ZIP_DEFLATED), "times as many"),
    "bomb in the recipe": (lambda f: zipped({"alignsam.json": b"1" * (100 << 20)}, zipfile.ZIP_DEFLATED), "times as many"),
    "bomb in weights": (lambda f: zipped({**f, "policy.pth": bytes(200 << 20)}, zipfile.ZIP_DEFLATED), "times as many"),
    "large recipe": (lambda f: zipped({**f, "alignsam.json": b" " * (5 << 20)}), "5,242,880 bytes, and 4,194,304"),
    "100,000 files": (lambda f: many_entries(100_000), "files"),
    "more files than it says": (lambda f: many_entries(1_000), "files"),
    "deep recipe": (lambda f: zipped({**f, "alignsam.json": '{"env": ' + nested(100_000) + "}"}), "no JSON"),
    "deepish recipe": (lambda f: zipped({**f, "alignsam.json": '{"env": ' + nested(100) + "}"}), "nested too deeply"),
    "long number": (lambda f: zipped({**f, "alignsam.json": '{"env": ' + "9" * 100_000 + "}"}), "no JSON"),
    "NaN in the recipe": (lambda f: zipped({**f, "alignsam.json": '{"env": NaN}'}), "NaN is no number"),
    "recipe is a list": (lambda f: zipped({**f, "alignsam.json": "[]"}), "no values by name"),
    "recipe is no text": (lambda f: zipped({**f, "alignsam.json": b"\xff\xfe\x00"}), "no JSON"),
    "empty recipe": (lambda f: zipped({**f, "alignsam.json": "{}"}), "cannot be read without unpickling|another program"),
    "no recipe": (lambda f: zipped({"policy.pth": f["policy.pth"]}), "holds no 'data'"),
    "no weights": (lambda f: zipped({"alignsam.json": f["alignsam.json"]}), "holds no weights"),
    "many clicks": (lambda f: zipped(told(f, "env", "max_steps", value=10**7)), "env.max_steps lies between 1 and 10000"),
    "text for clicks": (lambda f: zipped(told(f, "env", "max_steps", value="9")), "env.max_steps lies between"),
    "many cells": (lambda f: zipped(told(f, "env", "patches", value=100_000)), "env.patches lies between"),
    "many scenes": (lambda f: zipped(told(f, "env", "dataset_kwargs", value={"n_images": 10**9})), "n_images lies between"),
    "many scenes to judge": (
        lambda f: zipped(told(f, "env", "dataset_kwargs", value={"n_images": {"train": 50, "eval": 10**9}})),
        "n_images lies between 1 and 1e[+]07, got 1000000000",
    ),
    "splits of rollouts": (
        lambda f: zipped(told(f, "hyperparameters", "n_steps", value={"train": 8})),
        "n_steps lies between",
    ),
    "splits of splits": (
        lambda f: zipped(told(f, "env", "dataset_kwargs", value={"n_images": {"train": {"eval": 50}}})),
        "n_images lies between",
    ),
    "long rollouts": (lambda f: zipped(told(f, "hyperparameters", "n_steps", value=10**9)), "n_steps lies between"),
    "no schedule": (lambda f: zipped(told(f, "hyperparameters", "clip_range", value={"x": 1})), "a schedule is"),
    "wide policy": (lambda f: zipped(told(f, "policy_kwargs", value={"net_arch": [10**6]})), "policy_kwargs has the number"),
    "many layers": (lambda f: zipped(told(f, "policy_kwargs", value={"net_arch": [64] * 100})), "policy_kwargs has a list"),
    "strange argument": (lambda f: zipped(told(f, "policy_kwargs", value={"nosuch": 1})), "cannot be built"),
    "class by name": (
        lambda f: zipped(told(f, "policy_kwargs", value={"activation_fn": {"class": "os.system"}})),
        "'os.system', which is not read from a file",
    ),
    "strange policy": (lambda f: zipped(told(f, "policy", value="os.system")), "name it yourself"),
    "strange algorithm": (lambda f: zipped(told(f, "algorithm", value="os.system")), "unknown algorithm|saved by os.system"),
    "no arguments": (lambda f: zipped(told(f, "policy_kwargs", value=[1])), "'policy_kwargs' should be a dict"),
    "NaN weights": (lambda f: zipped(weights(f, lambda s: first(s, lambda w: w * float("nan")))), "NaN or infinite weights"),
    "wrong shape": (lambda f: zipped(weights(f, lambda s: first(s, lambda w: w[..., None]))), "1 of another shape"),
    "huge virtual shape": (
        lambda f: zipped(weights(f, lambda s: first(s, lambda w: th.zeros(1).expand(10**7, 10**7)))),
        "reaches beyond its 1 values",
    ),
    "less weights": (lambda f: zipped(weights(f, lambda s: dict(list(s.items())[1:]))), "1 weights missing"),
    "more weights": (lambda f: zipped(weights(f, lambda s: {**s, "more": th.ones(1)})), "1 unknown"),
    "no tensors": (lambda f: zipped(weights(f, lambda s: dict.fromkeys(s, "text"))), "of another shape"),
    "weights are a list": (lambda f: zipped(weights(f, lambda s: [1])), "holds no state dict"),
    "weights are no zip": (lambda f: zipped({**f, "policy.pth": pickle.dumps({})}), "no zip file"),
    "weights are another zip": (lambda f: zipped({**f, "policy.pth": zipped({"a": b"b"})}), "there is no data.pkl"),
    "NaN in the optimizer": (
        lambda f: zipped(
            weights(f, lambda s: {**s, "state": {0: {"exp_avg": th.tensor(float("nan"))}}}, "policy.optimizer.pth")
        ),
        "NaN or infinite",
    ),
    "wrong optimizer": (
        lambda f: zipped(weights(f, lambda s: {**s, "state": {0: {"exp_avg": th.ones(3)}}}, "policy.optimizer.pth")),
        "optimizer's state .* another shape",
    ),
    "endless learning rate": (
        lambda f: zipped(weights(f, lambda s: {**s, "param_groups": [{"lr": float("inf")}]}, "policy.optimizer.pth")),
        "optimizer's settings has the number inf",
    ),
}


def test_an_option_may_differ_between_splits(tmp_path, saved):
    options = {"n_images": {"train": 50, "eval": 300}, "seed": {"train": 1}}
    path = tmp_path / "policy.zip"
    path.write_bytes(zipped(told(saved, "env", "dataset_kwargs", value=options)))
    assert read_recipe(path)["env"]["dataset_kwargs"] == options


@pytest.mark.parametrize("kind", WRONG)
def test_it_is_refused_in_one_line(tmp_path, saved, venv, kind):
    make, message = WRONG[kind]
    path = tmp_path / "policy.zip"
    path.write_bytes(make(saved))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for load in (lambda: load_policy(path, venv), lambda: SamMaskablePPO.load(path, device="cpu")):
        with pytest.raises(ValueError, match=message) as error:
            load()
        assert str(path) in str(error.value)
        assert len(str(error.value).splitlines()[0]) < 1500
    assert time.process_time() - start < 4  # both ways
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


@pytest.mark.slow
def test_a_million_files_are_refused_as_quickly(tmp_path, saved, venv):
    path = tmp_path / "policy.zip"
    path.write_bytes(many_entries(1_000_000))
    start = time.process_time()
    with pytest.raises(ValueError, match="files"):
        load_policy(path, venv)
    assert time.process_time() - start < 2


def test_the_good_one_loads(tmp_path, saved, venv):
    """Packed by another program, and without the optimizer's state too."""
    for k, content in enumerate(
        (zipped(saved), zipped(saved, zipfile.ZIP_DEFLATED), zipped({n: c for n, c in saved.items() if "optimizer" not in n}))
    ):
        path = tmp_path / f"{k}.zip"
        path.write_bytes(content)
        assert load_policy(path, venv).num_timesteps == 4


FIELDS = (
    "observation_space",
    "policy_class",
    "lr_schedule",
    "clip_range",
    "rollout_buffer_class",
    "ep_info_buffer",
    "_logger",
)


@pytest.mark.parametrize("recipe", [True, False])
def test_no_field_is_unpickled(tmp_path, saved, venv, recipe):
    """Every field of ``data`` and every tensor's place holds something that writes a file when it is unpickled."""
    written, path = tmp_path / "written", tmp_path / "policy.zip"
    evil = Writes(written)
    pickled = base64.b64encode(pickle.dumps(evil)).decode()
    data = json.loads(saved["data"])
    data |= {name: {":type:": "x", ":serialized:": pickled} for name in {*data, *FIELDS} - {"recipe"}}
    files = {**saved, "data": json.dumps({**data, "recipe": json.loads(saved["alignsam.json"])})}
    if not recipe:
        del files["alignsam.json"]
    path.write_bytes(zipped(files))
    load_policy(path, venv)
    SamMaskablePPO.load(path, venv)
    read_recipe(path)
    assert not written.exists()
    with pytest.raises(Exception, match=r".*"):  # it is real: the one way that unpickles does write it
        SamMaskablePPO.load(path, venv, trust=True)
    assert written.exists()


@pytest.mark.parametrize("name", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
def test_no_tensor_is_unpickled(tmp_path, saved, venv, name):
    written, path = tmp_path / "written", tmp_path / "policy.zip"
    state = {"evil": Writes(written)}
    for content in (torched(state), torched(Writes(written)), pickle.dumps(Writes(written))):
        path.write_bytes(zipped({**saved, name: content}))
        if name == "pytorch_variables.pth":  # which PPO has none of, and which is not read
            load_policy(path, venv)
        else:
            with pytest.raises(ValueError, match=r"policy\.zip"):
                load_policy(path, venv)
    assert not written.exists()
