"""The cache, and files written whole or not at all."""

import json
import multiprocessing
import os
import time

import pytest

from alignsam_sb3 import files
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
