"""Banks: filled when asked, shared by processes, and whole or noticed not to be."""

import errno
import json
import multiprocessing
import os
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch as th
from PIL import Image

from alignsam_sb3 import features
from alignsam_sb3.datasets import CocoDataset, ToyScenes, UnreadableImageError
from alignsam_sb3.datasets.base import Sample
from alignsam_sb3.datasets.together import Together
from alignsam_sb3.datasets.unlabelled import UnlabelledImages
from alignsam_sb3.features import SegmenterSource, UnreadableRow, build_bank, describe_in_half, open_bank


class Numbers:
    """Images of one colour each; ``colours`` can change under the same names, and some cannot be read."""

    def __init__(self, count=20, broken=()):
        self.colours, self.broken, self.read = list(range(1, count + 1)), set(broken), []

    categories = ("thing",)
    fingerprint = "numbers"

    def __len__(self):
        return len(self.colours)

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.broken:
            raise UnreadableImageError(f"{index}.png: broken")
        return Sample(
            str(index), np.full((4, 4, 3), self.colours[index], np.uint8), np.zeros((0, 4, 4), bool), np.zeros(0, int)
        )


class Keyed(Numbers):
    """Numbers that say what is in them."""

    def content_key(self, index):
        return bytes([self.colours[index]])


class Model:
    """Gives two arrays of different shapes that tell the colour; counts what it is asked."""

    kind, fingerprint, shapes = "model", "model-1", {"fine": (2, 3), "coarse": (5,)}

    def __init__(self):
        self.calls = []

    def describe(self, images):
        self.calls.append(len(images))
        colours = th.tensor([float(image[0, 0, 0]) for image in images])
        return {"fine": colours[:, None, None].expand(-1, 2, 3), "coarse": -colours[:, None].expand(-1, 5)}


def right(bank, rows):
    found = bank.rows(rows)
    colours = np.array([bank._dataset.colours[row] for row in rows], np.float16)
    return bool((found["fine"] == colours[:, None, None]).all() and (found["coarse"] == -colours[:, None]).all())


def test_a_bank_holds_what_the_segmenter_says(tmp_path, tiny, toy):
    bank = build_bank(toy, SegmenterSource(tiny), tmp_path)
    assert len(bank) == len(toy)
    expected = tiny.encode([toy[3].image])["embeddings"][0].numpy()
    assert np.abs(bank[3]["embeddings"] - expected).max() < 2e-3 * max(np.abs(expected).max(), 1)
    assert bank[3]["embeddings"].dtype == np.float32
    assert bank.rows([3])["embeddings"].dtype == np.float16


def test_images_are_described_when_asked_for_and_once(tmp_path):
    data, model = Numbers(), Model()
    bank = open_bank(data, model, tmp_path)
    assert model.calls == data.read == []
    found = bank.rows([7, 3, 7, -1])
    assert found["fine"].shape == (4, 2, 3)
    assert found["coarse"][:, 0].tolist() == [-8, -4, -8, -20]
    assert sorted(data.read) == [3, 7, 19]
    assert model.calls == [3]
    assert right(bank, [19, 3, 7])
    again, other = Numbers(), Model()
    assert right(open_bank(again, other, tmp_path), [3, 7, 19])
    assert other.calls == again.read == []
    with pytest.raises(IndexError, match="there is no image 20"):
        bank.rows([20])


def test_a_build_describes_the_rest_in_batches(tmp_path):
    model = Model()
    bank = open_bank(Numbers(), model, tmp_path)
    bank.rows([1, 2])
    build_bank(Numbers(), model, tmp_path, batch_size=8)
    assert model.calls == [2, 8, 8, 2]
    assert right(bank, range(20))
    assert build_bank(Numbers(), model, tmp_path).usable.all()
    assert len(model.calls) == 4


def test_a_bar_shows_images_per_second(tmp_path, capfd):
    build_bank(Numbers(40), Model(), tmp_path)
    assert "model bank: 100%" in (said := capfd.readouterr().err)
    assert "image/s" in said
    open_bank(Numbers(40), Model(), tmp_path / "other").rows(range(40))
    assert not capfd.readouterr().err  # nobody asked for one


def test_an_interrupted_build_goes_on(tmp_path, monkeypatch):
    model, stopping = Model(), Numbers()
    monkeypatch.setattr(features, "_AHEAD", 1)
    read = stopping.__class__.__getitem__

    def stop(self, index):
        if index == 5:
            raise KeyboardInterrupt
        return read(self, index)

    with monkeypatch.context() as patched:
        patched.setattr(Numbers, "__getitem__", stop)
        with pytest.raises(KeyboardInterrupt):
            build_bank(stopping, model, tmp_path, batch_size=2)
    assert sum(model.calls) == 4  # the first four are kept
    assert right(build_bank(Numbers(), model, tmp_path), range(20))
    assert sum(model.calls) == 20


def test_batches_that_are_described_elsewhere_make_the_same_bank(tmp_path):
    here, there = (open_bank(Keyed(broken=[4]), Model(), tmp_path / name, 3, "skip") for name in ("here", "there"))
    elsewhere = Model()

    def describing(batches):
        sent = deque()
        for images in batches:
            sent.append(images)
            if len(sent) > 2:
                yield describe_in_half(elsewhere, sent.popleft())
        yield from (describe_in_half(elsewhere, images) for images in sent)

    here.ensure(range(20))
    there.ensure(range(20), describing=describing)
    assert elsewhere.calls == [3, 2, 3, 3, 3, 3, 2] and not there._source.calls
    for name in ("fine.f16", "coarse.f16", "records", "skipped.json", "bank.json"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_a_bank_of_something_else_is_refused(tmp_path):
    build_bank(Numbers(), Model(), tmp_path)
    with pytest.raises(ValueError, match=r"built for images 20, not 21.*Give another folder"):
        open_bank(Numbers(21), Model(), tmp_path)
    other = Model()
    other.fingerprint = "model-2"
    with pytest.raises(ValueError, match="built for model 'model-1', not 'model-2'"):
        open_bank(Numbers(), other, tmp_path)
    (tmp_path / "bank.json").write_text(json.dumps({"dataset": "numbers", "model": "model-1"}))  # an earlier version's
    with pytest.raises(ValueError, match="was built for images None, not 20"):
        open_bank(Numbers(), Model(), tmp_path)


def test_by_default_each_has_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNSAM_CACHE", str(tmp_path))
    folders = {open_bank(Numbers(n), Model()).folder for n in (3, 3, 4)}
    assert len(folders) == 2
    assert {folder.parent for folder in folders} == {tmp_path / "banks"}


def test_unreadable_images_are_named_together_or_skipped(coco_root, tmp_path, tiny, caplog):
    (coco_root / "val2017" / "001.png").write_bytes(b"no image")
    (coco_root / "val2017" / "002.png").write_bytes(b"")
    data = CocoDataset(coco_root, "eval")
    with pytest.raises(UnreadableImageError, match=r"2 of 4 images(.|\n)*001.png(.|\n)*002.png"):
        build_bank(data, SegmenterSource(tiny), tmp_path)
    bank = build_bank(data, SegmenterSource(tiny), tmp_path, on_error="skip")
    assert bank.usable.tolist() == [True, False, False, True]
    assert "2 of 4 images are skipped" in caplog.text
    with pytest.raises(ValueError, match="did you mean 'skip'"):
        build_bank(data, SegmenterSource(tiny), tmp_path, on_error="skpi")


def test_a_caller_learns_which_image_to_replace(tmp_path):
    data, model = Numbers(broken=[4]), Model()
    bank = open_bank(data, model, tmp_path, on_error="skip")
    assert bank.usable.all()  # nothing is known yet
    bank.ensure([3, 4, 5])
    with pytest.raises(UnreadableRow, match=r"image 4 was skipped: 4\.png: broken") as error:
        bank.rows([3, 4, 5])
    assert (error.value.row, error.value.reason) == (4, "4.png: broken")
    assert right(bank, [3, 5])
    assert np.flatnonzero(~bank.usable).tolist() == [4]
    other = open_bank(Numbers(broken=[4]), model, tmp_path, on_error="skip")
    assert np.flatnonzero(~other.usable).tolist() == [4]
    with pytest.raises(UnreadableRow, match=r"4\.png: broken"):
        other.rows([4])
    assert data.read.count(4) == 1
    with pytest.raises(UnreadableImageError, match=r"1 of 20 images cannot be used:\n  4\.png: broken"):
        open_bank(data, model, tmp_path).rows([4])
    data.broken.clear()  # repaired: who does not skip asks again
    assert right(open_bank(data, model, tmp_path), [4])
    assert open_bank(data, model, tmp_path, on_error="skip").usable.all()


def test_many_errors_are_listed_in_a_file(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"12 of 20 images(.|\n)*all 12 are in .*errors\.txt"):
        build_bank(Numbers(broken=range(12)), Model(), tmp_path)
    assert len((tmp_path / "errors.txt").read_text().splitlines()) == 12


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 1e5])
def test_what_half_precision_cannot_hold_is_refused(tmp_path, number):
    model = Model()
    model.describe = lambda images: {"fine": th.full((1, 2, 3), number), "coarse": th.zeros(1, 5)}
    with pytest.raises(FloatingPointError, match="gave fine that are NaN, infinite or too large"):
        open_bank(Numbers(), model, tmp_path).rows([0])
    assert right(open_bank(Numbers(), Model(), tmp_path), [0])


def flip(path, place, count=1):
    content = bytearray(path.read_bytes())
    content[place : place + count] = bytes(b ^ 0xFF for b in content[place : place + count])
    path.write_bytes(content)


def cut(path, size):
    os.truncate(path, size)


RECORD = 25
DAMAGE = {
    "one flipped bit": lambda f: (f / "fine.f16").write_bytes(
        b"".join([(c := (f / "fine.f16").read_bytes())[:50], bytes([c[50] ^ 1]), c[51:]])
    ),
    "flipped bytes": lambda f: flip(f / "fine.f16", 40, 30),
    "flipped bytes in another array": lambda f: flip(f / "coarse.f16", 40, 30),
    "cut array": lambda f: cut(f / "fine.f16", 100),
    "array cut by a byte": lambda f: cut(f / "coarse.f16", 20 * 10 - 1),
    "empty array": lambda f: cut(f / "fine.f16", 0),
    "missing array": lambda f: (f / "coarse.f16").unlink(),
    "zeros": lambda f: (f / "fine.f16").write_bytes(bytes(20 * 12)),
    "another type": lambda f: (f / "fine.f16").write_bytes(
        np.fromfile(f / "fine.f16", np.float16).astype(np.float32).tobytes()
    ),
    "another order": lambda f: (f / "fine.f16").write_bytes(np.fromfile(f / "fine.f16", np.float16).byteswap().tobytes()),
    "rows in another order": lambda f: np.fromfile(f / "fine.f16", np.float16).reshape(20, 6)[::-1].tofile(f / "fine.f16"),
    "records in another order": lambda f: np.fromfile(f / "records", f"V{RECORD}")[::-1].tofile(f / "records"),
    "flipped records": lambda f: flip(f / "records", 2 * RECORD, 3 * RECORD),
    "flipped state": lambda f: flip(f / "records", 3 * RECORD),
    "cut records": lambda f: cut(f / "records", 3 * RECORD + 5),
    "missing records": lambda f: (f / "records").unlink(),
    "records say all is done": lambda f: (f / "records").write_bytes(b"\1" * 20 * RECORD),
    "damaged description": lambda f: cut(f / "bank.json", 20),
    "empty description": lambda f: cut(f / "bank.json", 0),
    "description of another kind": lambda f: (f / "bank.json").write_text("[1]"),
    "missing description": lambda f: (f / "bank.json").unlink(),
    "damaged reasons": lambda f: (f / "skipped.json").write_text("{"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("running", [False, True])
def test_damage_is_noticed_and_mended(tmp_path, kind, running, caplog):
    """Also under a process that has the bank open."""
    build_bank(Numbers(), Model(), tmp_path)
    bank = open_bank(Numbers(), Model(), tmp_path) if running else None
    DAMAGE[kind](tmp_path)
    model = Model()
    bank = bank or open_bank(Numbers(), model, tmp_path)
    assert right(bank, range(20))
    assert right(open_bank(Numbers(), Model(), tmp_path), range(20))
    noticed = [r for r in caplog.records if "described again" in r.getMessage()]
    assert len(noticed) <= 20
    if "array" in kind or kind in ("flipped bytes", "zeros"):
        assert noticed


def test_a_whole_row_is_checked_once_in_a_process(tmp_path, monkeypatch):
    bank = build_bank(Numbers(), Model(), tmp_path)
    looked = []
    records = type(bank._files).records
    monkeypatch.setattr(type(bank._files), "records", lambda self, rows=None: looked.append(rows) or records(self, rows))
    bank.rows([1, 2])
    assert looked
    looked.clear()
    bank.rows([1, 2])
    assert not looked


def test_an_image_that_changed_under_the_same_name_is_described_again(tmp_path, caplog):
    data = Keyed()
    assert right(build_bank(data, Model(), tmp_path), range(20))
    data.colours[5] = 77
    model = Model()
    assert right(open_bank(data, model, tmp_path), [4, 5, 6])
    assert model.calls == [1]
    assert "image 5" in caplog.text
    assert "the image has changed" in caplog.text
    plain = Numbers()
    build_bank(plain, Model(), tmp_path / "plain")
    plain.colours[5] = 77
    assert not right(open_bank(plain, Model(), tmp_path / "plain"), [5])  # which is why data sets offer content_key


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    bank = open_bank(Numbers(), Model(), tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(OSError, match=r"the bank in .*0.00 GB.*No space left on device.*ALIGNSAM_CACHE") as error:
            bank.rows([1])
    assert error.value.errno == errno.ENOSPC
    assert right(bank, [1])


def test_what_is_written_in_parts_is_written_whole(tmp_path, monkeypatch):
    pwrite = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda file, content, offset: pwrite(file, content[:3], offset))
    assert right(open_bank(Numbers(), Model(), tmp_path), [0, 7])
    monkeypatch.undo()
    assert right(open_bank(Numbers(), Model(), tmp_path), [0, 7])


def test_data_is_on_disk_before_its_record_says_so(tmp_path, monkeypatch):
    bank, done = open_bank(Numbers(), Model(), tmp_path), []
    names = {array.fileno(): name for name, array in bank._files._arrays.items()} | {bank._files._records.fileno(): "records"}
    for name in ("pwrite", "fsync"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda file, *a, call=call, name=name: done.append((name, names[file])) or call(file, *a)
        )
    bank.rows([0])
    assert done == [(n, a) for a in ("coarse", "fine", "records") for n in ("pwrite", "fsync")]


@pytest.fixture
def read_only(monkeypatch):
    """Files can be opened for reading only, as root would not notice."""
    opened = os.open

    def refuse(path, flags, *args, **kwargs):
        if flags & (os.O_RDWR | os.O_CREAT | os.O_WRONLY):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *args, **kwargs)

    return lambda: monkeypatch.setattr(os, "open", refuse)


def test_a_cache_that_cannot_be_written_is_read_and_the_rest_kept_in_memory(tmp_path, read_only, caplog):
    build_bank(Numbers(), Model(), tmp_path / "whole")
    open_bank(Numbers(broken=[9]), Model(), tmp_path / "part", on_error="skip").ensure([1, 2, 9])
    flip(tmp_path / "part" / "fine.f16", 2 * 12)
    read_only()
    model = Model()
    assert right(open_bank(Numbers(), model, tmp_path / "whole"), range(20))
    assert not model.calls
    part = open_bank(Numbers(broken=[9, 10]), model, tmp_path / "part", on_error="skip")
    assert right(part, [1, 2, 3])  # from disk, damaged on disk, not there
    assert right(part, [1, 2, 3])
    assert model.calls == [1, 1]
    part.ensure([9, 10])
    assert np.flatnonzero(~part.usable).tolist() == [9, 10]
    assert "kept in memory" in caplog.text
    assert "ALIGNSAM_CACHE" in caplog.text


def test_without_any_folder_all_is_kept_in_memory(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(
        Path, "mkdir", lambda *a, **k: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied"))
    )
    bank = build_bank(Numbers(broken=[3]), Model(), tmp_path / "none", on_error="skip")
    assert right(bank, [0, 1, 2])
    assert np.flatnonzero(~bank.usable).tolist() == [3]
    with pytest.raises(UnreadableRow):
        bank.rows([3])
    assert "kept in memory" in caplog.text


class Slow(Model):
    """Takes its time, so that processes meet."""

    def describe(self, images):
        time.sleep(0.01)
        return super().describe(images)


def build_and_count(folder, counts):
    model = Slow()
    bank = build_bank(Numbers(100), model, folder, batch_size=2)
    counts.put(sum(model.calls) if right(bank, range(100)) else -1)


def builder(folder):
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    process = context.Process(target=build_and_count, args=(folder, counts))
    process.start()
    return process, counts


def test_two_processes_share_the_work(tmp_path):
    both = [builder(tmp_path) for _ in range(2)]
    found = [counts.get(timeout=60) for _, counts in both]
    assert sum(found) == 100
    assert min(found) > 0
    assert right(open_bank(Numbers(100), Model(), tmp_path), range(100))
    for process, _ in both:
        process.join()


def fail_and_stay(folder, failed):
    def describing(batches):
        next(batches)
        raise RuntimeError("the cluster is gone")

    bank = open_bank(Numbers(100), Model(), folder)
    try:
        bank.ensure(range(100), describing=describing)
    except RuntimeError:
        failed.put(True)
    time.sleep(60)


def test_a_builder_that_fails_leaves_its_rows_to_others(tmp_path):
    context = multiprocessing.get_context("fork")
    failed = context.Queue()
    process = context.Process(target=fail_and_stay, args=(tmp_path, failed))
    process.start()
    assert failed.get(timeout=60)
    model = Model()
    assert right(build_bank(Numbers(100), model, tmp_path), range(100))
    assert process.is_alive() and sum(model.calls) == 100
    process.kill()
    process.join()


def test_a_killed_builder_loses_at_most_what_it_had_not_written(tmp_path):
    killed, _ = builder(tmp_path)
    records = tmp_path / "records"
    while not (records.exists() and records.stat().st_size > 20 * RECORD):
        assert killed.is_alive()
        time.sleep(0.005)
    killed.kill()
    killed.join()
    model = Model()
    start = time.monotonic()
    assert right(build_bank(Numbers(100), model, tmp_path), range(100))
    assert time.monotonic() - start < 5  # nobody waits for the dead
    assert 0 < sum(model.calls) < 100 - 18


def test_a_cache_deleted_under_a_running_process_goes_on(tmp_path):
    bank = open_bank(Numbers(), Model(), tmp_path / "bank")
    bank.rows([1])
    for file in (tmp_path / "bank").iterdir():
        file.unlink()
    (tmp_path / "bank").rmdir()
    assert right(bank, [1, 2, 3])


def test_toy_scenes_are_read_by_threads_as_by_one(tmp_path, tiny):
    scenes = ToyScenes("saliency", "train", 12)
    bank = build_bank(scenes, SegmenterSource(tiny), tmp_path, batch_size=5)
    alone = tiny.encode([scenes[11].image])["embeddings"][0].numpy()
    assert np.abs(bank[11]["embeddings"] - alone).max() < 2e-3 * max(np.abs(alone).max(), 1)


def test_pixels_that_change_under_the_same_name_size_and_time_are_described_again(tmp_path, caplog):
    """As a BMP that is rewritten, and given its old time again."""
    for k in range(4):
        Image.new("RGB", (20, 20), (k, 0, 0)).save(tmp_path / f"{k}.bmp")
    for together in (False, True):
        data = UnlabelledImages(tmp_path, "all")
        data = Together([data, ToyScenes("saliency", n_images=2)]) if together else data
        folder = tmp_path / f"bank{together}"
        build_bank(data, Model(), folder)
        path = tmp_path / "2.bmp"
        stat = path.stat()
        Image.new("RGB", (20, 20), (99 + together, 0, 0)).save(path)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert type(data)(*((data.parts,) if together else (tmp_path, "all"))).fingerprint == data.fingerprint
        model = Model()
        bank = open_bank(data, model, folder)
        assert bank[2]["fine"].max() == 99 + together
        assert bank[1]["fine"].max() == 1
        assert model.calls == [1]
        assert "the image has changed" in caplog.text
