"""Checkpoints as training loops write them, and files that claim what they do not hold."""

import argparse
import io
import random
import struct
import time
import zipfile

import pytest
import torch as th
from safetensors.torch import save_file
from torch import nn

from alignsam_sb3.archives import Limits, opened_archive
from alignsam_sb3.fitting import read_checkpoint, write_checkpoint
from alignsam_sb3.torch_archives import Inert, read_torch_archive
from alignsam_sb3.weights import load_strictly, read_weights

STATE = {"a.weight": th.arange(6.0).reshape(2, 3), "a.bias": th.ones(2).half(), "b": th.tensor(3)}


def prefixed(prefix):
    return {prefix + key: value for key, value in STATE.items()}


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        prefixed("module."),
        {"model": STATE, "optimizer": {"state": {0: {"step": th.ones(1)}}}, "epoch": 7},
        {"state_dict": {**prefixed("model."), "loss.weight": th.ones(3)}, "pytorch-lightning_version": "2"},
        {"state_dict": prefixed("module.sam.")},
        {"model": {"state_dict": prefixed("_orig_mod.")}},
        {"model": STATE, "args": argparse.Namespace(lr=1e-4), "best": Evil()},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_what_training_loops_put_around_is_taken_off(tmp_path, content, legacy, capsys):
    if legacy and "args" in content:
        pytest.skip("torch's own reader of its old format refuses what is no tensor")
    th.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    found = read_weights(tmp_path / "w.pth", "a.weight")
    assert found.keys() == STATE.keys()
    assert all(th.equal(found[key], value) for key, value in STATE.items())
    assert capsys.readouterr().out == ""


def test_safetensors_are_unwrapped_too(tmp_path):
    save_file(prefixed("module."), tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.safetensors", "a.weight").keys() == STATE.keys()


def test_two_models_in_one_file_are_named(tmp_path):
    th.save({**prefixed("teacher."), **prefixed("student.")}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"holds 2 models, under 'student.', 'teacher.'"):
        read_weights(tmp_path / "w.pth", "a.weight")


def test_a_whole_module_is_not_run(tmp_path):
    th.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"whole object \(torch.nn.modules.linear Linear\).*torch.save\(model.state_dict"):
        read_weights(tmp_path / "w.pth", "weight")


def test_a_part_of_the_weights_is_no_other_architecture(tmp_path):
    with pytest.raises(ValueError, match=r"holds 1 of the 2 weights of 'small': 1 weights missing \(first \['bias'\]\)"):
        load_strictly(nn.Linear(2, 2), {"weight": th.ones(2, 2)}, tmp_path, "small", "model")


def rewritten(content, change):
    """A file of torch.save with its pickle changed."""
    source, target = io.BytesIO(), io.BytesIO()
    th.save(content, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, change(data) if entry.filename.endswith("data.pkl") else data)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.replace(b"K\x04t", b"J\x00\x00\x00\x30t"), "805306368 values, and has 16 bytes"),  # more than there are
        (lambda p: p.replace(b"K\x04\x85", b"K\x05\x85"), "reaches beyond its 4 values"),
        (lambda p: p.replace(b"K\x01\x85", b"K\x00\x85").replace(b"K\x04\x85", b"J\x00\x00\x00\x30\x85"), "reaches beyond"),
        (lambda p: p.replace(b"K\x00K\x04\x85", b"K\x02K\x04\x85"), "reaches beyond its 4 values"),  # from the third on
        (lambda p: p[:-5], "pickle exhausted"),
        (lambda p: b"(S'ls'\nios\nsystem\n.", "does what files of torch do not do"),
    ],
)
def test_claims_that_the_bytes_do_not_bear_out_are_refused(change, message, capsys):
    plain = rewritten({"a": th.ones(4)}, lambda p: p)
    assert th.equal(read_torch_archive(plain)["a"], th.ones(4))
    file = rewritten({"a": th.ones(4)}, change)
    with pytest.raises(ValueError, match=message):
        read_torch_archive(file)
    assert capsys.readouterr().out == ""


def test_objects_stay_inert():
    file = io.BytesIO()
    th.save([Evil(), argparse.Namespace(x=1)], file)
    assert read_torch_archive(file) == [Inert("__builtin__ print"), Inert("argparse Namespace", {"x": 1})]


def zipped(*entries):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (lambda: zipped(("../a", b"")), "points out of it"),
        (lambda: zipped(("/a", b"")), "points out of it"),
        (lambda: zipped(("a\\b", b"")), "points out of it"),
        (lambda: zipped(("a", bytes(3 * 10**5))), "unpacks .* to 300,000"),
        (lambda: zipped(("a", bytes(range(250)) * 2000)), "500,000 bytes, and 400,000 are allowed"),
        (
            lambda: zipped(*((str(i), random.Random(i).randbytes(2 * 10**5)) for i in range(3))),
            "600,000 bytes, and 500,000 are allowed",
        ),
        (lambda: zipped(*((str(i), b"") for i in range(11))), "claims 11 files"),
        (lambda: io.BytesIO(b"hello"), "no zip file, or was cut"),
        (lambda: io.BytesIO(zipped(("a", b"abc")).getvalue()[:-1]), "no zip file, or was cut"),
    ],
)
def test_archives_beyond_the_limits_are_refused(file, message):
    limits = Limits(entries=10, entry_bytes=400_000, total_bytes=500_000)
    with pytest.raises(ValueError, match=message), opened_archive(file(), limits):
        pass


def test_an_end_that_lies_about_its_number_of_files_is_seen_through():
    content = bytearray(zipped(*((str(i), b"") for i in range(50))).getvalue())
    content[-14:-10] = struct.pack("<HH", 5, 5)
    with (
        pytest.raises(ValueError, match="holds 50 files, and 10 are allowed"),
        opened_archive(io.BytesIO(content), Limits(entries=10)),
    ):
        pass


TWO, STORAGE = b"\x80\x02", b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
MODULE, LISTED = b"c__torch__\nM\n)\x81", b"class M(Module):\n  __parameters__ = []\n"


def doubled(kind):
    """A pickle of a hundred bytes that describes 2 to the power of 40 values, by naming each container twice in the next."""
    first = {"tuple": b"K\x01\x85", "list": b"]", "module": MODULE}[kind]
    for k in range(40):
        put, get = b"q" + bytes([k]), b"h" + bytes([k])
        twice = {
            "tuple": get + b"\x86",
            "list": b"0](" + get + get + b"e",
            "module": b"0" + MODULE + b"}(X\x01\x00\x00\x00a" + get + b"X\x01\x00\x00\x00b" + get + b"ub",
        }[kind]
        first += put + twice
    return first


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (doubled("list"), "values, .* containers in each other"),
        (doubled("module"), "values, .* containers in each other"),
        (b"}" + doubled("tuple") + b"K\x01s", "a tuple as the name of a value"),
        (b"\x8f(" + doubled("tuple") + b"\x90", "a tuple as the name of a value"),
        (b"(" + doubled("tuple") + STORAGE[13:] + b"K\x01tQ", "its pickle refers to"),
        (STORAGE + doubled("tuple") + b"tQ", "is said to have"),
        (b"]q\x00h\x00a", "one that holds itself"),
        (MODULE + b"q\x00}(X\x01\x00\x00\x00ah\x00ub", "one that holds itself"),
        (b"]" * 500_001, "more than 500,000 steps"),
    ],
)
def test_a_small_pickle_that_describes_much_is_refused_at_once(pickle, message):
    file = zipped(("x/code/__torch__.py", LISTED), ("x/data/0", b"0123"), ("x/data.pkl", TWO + pickle + b"."))
    start = time.process_time()
    with pytest.raises(ValueError, match=message) as error:
        read_torch_archive(file, Limits(ratio=10_000))
    assert time.process_time() - start < 2
    assert len(str(error.value)) < 1000


def test_files_of_older_and_other_writers_that_take_ages_are_refused_at_once(tmp_path):
    older, names = tmp_path / "older.pt", tmp_path / "names.safetensors"
    file = io.BytesIO()
    th.save(STATE, file, _use_new_zipfile_serialization=False)
    start = file.getvalue().index(b"}")
    older.write_bytes(file.getvalue()[:start] + b"]" * 10**6 + file.getvalue()[start:])
    names.write_bytes((90 << 20).to_bytes(8, "little") + b'{"a":')
    for path, message in ((older, "more than 500,000 steps"), (names, "names take 94,371,840 bytes")):
        with pytest.raises(ValueError, match=message):
            read_weights(path, "a.weight")


def test_a_damaged_checkpoint_of_a_fit_is_named(tmp_path):
    write_checkpoint({"step": 3}, tmp_path / "checkpoint.pt")
    assert read_checkpoint(tmp_path / "checkpoint.pt") == {"step": 3}
    content = (tmp_path / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged .*delete it, and the fit begins again"):
        read_checkpoint(tmp_path / "checkpoint.pt")
