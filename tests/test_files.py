"""The cache, and files written whole or not at all."""

import json
import multiprocessing
import os
import time
import zipfile

import pytest

from alignsam_sb3 import files
from alignsam_sb3.calibration import Calibration
from alignsam_sb3.datasets.seen import SeenImages
from alignsam_sb3.files import cache_folder, cache_limit, cache_list, cache_prune, write_bytes, write_json


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNSAM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ALIGNSAM_CACHE", "~/here")
    assert cache_folder() == tmp_path / "home" / "here"
    for empty in ("", None):
        monkeypatch.delenv("ALIGNSAM_CACHE") if empty is None else monkeypatch.setenv("ALIGNSAM_CACHE", empty)
        assert cache_folder() == tmp_path / "home" / ".cache" / "alignsam_sb3"


def test_nobody_needs_a_home(monkeypatch):
    """As in a container with an unknown user."""

    def nobody(*args):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(files.Path, "expanduser", nobody)
    monkeypatch.setattr(files.Path, "home", nobody)
    monkeypatch.setenv("ALIGNSAM_CACHE", "/given")
    assert str(cache_folder()) == "/given"
    monkeypatch.delenv("ALIGNSAM_CACHE")
    assert cache_folder().name == f"alignsam_sb3-{os.getuid()}"


def write_often(path, number):
    for _ in range(200):
        write_json(path, {"number": number, "more": list(range(100))})


def test_two_writers_of_one_file_are_no_error(tmp_path):
    path = tmp_path / "a.json"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(path, n)) for n in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            assert json.loads(path.read_text())["number"] in (0, 1)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    write_bytes(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "a", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


@pytest.fixture
def full(tmp_path, monkeypatch):
    """Three banks of 1 MB and a checkpoint; the first was used last."""
    monkeypatch.setenv("ALIGNSAM_CACHE", str(tmp_path))
    for k, name in enumerate(("banks/new", "banks/mid", "banks/old", "checkpoints/sam.pt")):
        path = tmp_path / name
        file = path / "fine.f16" if name.startswith("banks") else path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(os.urandom(1_000_000))
        for touched in (file, path):
            os.utime(touched, (time.time() - 1000 * k,) * 2)
    return tmp_path


def test_what_is_in_the_cache_is_listed_last_used_first(full):
    entries = cache_list()
    assert [(e.kind, e.path.name) for e in entries] == [
        ("banks", "new"), ("banks", "mid"), ("banks", "old"), ("checkpoints", "sam.pt"),
    ]  # fmt: skip
    assert all(1_000_000 <= e.size < 1_100_000 for e in entries)


def test_the_least_recently_used_goes_first_and_checkpoints_stay(full):
    assert [e.path.name for e in cache_prune(3_200_000)] == ["old"]
    assert [e.path.name for e in cache_prune(1, keep=[full / "banks" / "mid"])] == ["new"]
    assert sorted(p.name for p in (full / "banks").iterdir()) == ["mid"]
    assert (full / "checkpoints" / "sam.pt").exists()


def hold(folder, ready, done):
    from alignsam_sb3.bank_files import BankFiles

    bank = BankFiles(folder, {"fine": (1,)}, 1, writable=True)
    ready.set()
    done.wait(60)
    assert bank.writable


def test_what_another_process_has_open_stays(full):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(full / "banks" / "old", ready, done))
    other.start()
    assert ready.wait(60)
    assert sorted(e.path.name for e in cache_prune(1)) == ["mid", "new"]
    done.set()
    other.join()
    assert other.exitcode == 0
    assert [e.path.name for e in cache_prune(1)] == ["old"]


@pytest.mark.parametrize(("given", "size"), [("", None), ("500", 500), ("20GB", 20 * 10**9), ("1.5 TB", 1500 * 10**9)])
def test_the_limit_is_a_size(monkeypatch, given, size):
    monkeypatch.setenv("ALIGNSAM_CACHE_LIMIT", given)
    assert cache_limit() == size


def test_a_limit_that_is_none_is_named(monkeypatch, full):
    monkeypatch.setenv("ALIGNSAM_CACHE_LIMIT", "lots")
    with pytest.raises(ValueError, match="'lots', and should be a size as 500MB"):
        cache_prune()
    monkeypatch.setenv("ALIGNSAM_CACHE_LIMIT", "3.2MB")
    assert [e.path.name for e in cache_prune()] == ["old"]


@pytest.mark.parametrize(("error", "stays"), [(FileNotFoundError(2, "gone"), "total"), (PermissionError(13, "denied"), "all")])
def test_what_cannot_be_removed_stays(full, monkeypatch, error, stays, caplog):
    """Another process removes the same, or the folder cannot be written."""
    monkeypatch.setattr(files.Path, "rename", lambda *args: (_ for _ in ()).throw(error))
    assert cache_prune(3_200_000) == []
    assert ("denied" in caplog.text) == (stays == "all")
    assert len(cache_list()) == 4


def test_everything_in_the_cache_is_listed_and_what_was_asked_for_stays(full):
    for kind in files.KINDS:
        (full / kind).mkdir(exist_ok=True)
        (full / kind / "one").write_bytes(b"x" * 5000)
    assert {e.kind for e in cache_list()} == set(files.KINDS)
    cache_prune(1)
    assert {e.kind for e in cache_list()} == {"checkpoints", "policies"}


def test_what_a_kill_left_is_removed(full):
    prune, unpacking, old = (full / "banks" / f".x.{c * 32}{end}" for c, end in (("a", ""), ("b", ".part"), ("c", ".part")))
    for path in (prune, unpacking, old):
        path.mkdir()
    os.utime(old, (time.time() - 10**6,) * 2)
    cache_prune(10**9)
    assert [path.exists() for path in (prune, unpacking, old)] == [False, True, False]


def unpack(path, said):
    from alignsam_sb3.datasets.archives import as_folder

    said.put(sorted(p.name for p in as_folder(path).iterdir() if p.suffix))


def test_two_processes_unpack_one_archive(full, tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(100):
            archive.writestr(f"{k:03d}.bin", os.urandom(10_000))
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    both = [context.Process(target=unpack, args=(path, said)) for _ in range(2)]
    for process in both:
        process.start()
    assert [said.get(timeout=60) for _ in both] == [[f"{k:03d}.bin" for k in range(100)]] * 2
    assert len(list((full / "archives").iterdir())) == 1


def test_an_unpacked_archive_in_use_stays(full, tmp_path):
    folder = full / "archives" / "set"
    folder.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()

    def keep():
        files.hold(folder)
        ready.set()
        done.wait(60)

    other = context.Process(target=keep)
    other.start()
    assert ready.wait(60)
    cache_prune(1)
    assert folder.exists()
    done.set()
    other.join()
    cache_prune(1)
    assert not folder.exists()


@pytest.mark.parametrize("name", [".", "../a", "/a", "C:a"])
def test_names_that_lead_nowhere_are_not_unpacked(full, tmp_path, name):
    from alignsam_sb3.datasets.archives import as_folder

    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(ValueError, match="outside its folder"):
        as_folder(path)


def test_json_from_strangers_may_be_nested_without_end():
    assert files.parse_json(b'{"a": [1]}') == {"a": [1]}
    for read in (files.parse_json, Calibration.from_json, lambda text: SeenImages.from_json(files.parse_json(text))):
        with pytest.raises(ValueError, match="nested too deeply"):
            read("[" * 100_000)
