"""A folder in, annotations out, whatever lies in the folder and whatever happens on the way."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import FakePredictor
from PIL import Image

import alignsam_sb3.annotate
from alignsam_sb3.annotate import Run, annotate_folder
from alignsam_sb3.annotation import Annotation
from alignsam_sb3.calibration import Judged, fit_calibration
from alignsam_sb3.choice import Choice
from alignsam_sb3.cli import main


def records(out):
    return [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]


def test_every_image_is_annotated_for_every_category(folder, tmp_path):
    summary = annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    assert (summary.images, summary.new, summary.skipped, summary.masks) == (12, 12, 0, 24)
    coco = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert sorted(i["file_name"] for i in coco["images"]) == sorted(str(p.relative_to(folder)) for p in folder.rglob("*.png"))
    assert "more/000.png" in {i["file_name"] for i in coco["images"]}


def test_the_queue_begins_with_the_most_doubtful(folder, tmp_path):
    found = annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    with (tmp_path / "out" / "queue.csv").open() as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores) and len(rows) == 24
    assert {row["review"] for row in rows} == {"1"}  # without a calibration a score promises nothing
    assert "24 are to be reviewed. Their scores promise nothing before `alignsam calibrate`" in str(found)


def test_a_second_call_plays_nothing_again(folder, tmp_path):
    annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    again = FakePredictor()
    summary = annotate_folder(again, folder, tmp_path / "out", formats=["png"], progress=False)
    assert not again.played and (summary.images, summary.new) == (12, 0)
    assert len(list((tmp_path / "out" / "masks").rglob("*.png"))) == 24


def test_new_and_changed_images_are_played(folder, tmp_path):
    annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    Image.new("RGB", (50, 50), "white").save(folder / "new.png")
    Image.new("RGB", (33, 22), "white").save(folder / "001.png")
    again = FakePredictor()
    annotate_folder(again, folder, tmp_path / "out", progress=False)
    assert sorted(again.played) == [(22, 33, 3), (50, 50, 3)]
    assert Run.open(tmp_path / "out").found("001.png").annotations[0].size == (22, 33)


@pytest.mark.parametrize(
    ("change", "named"),
    [({"predict": FakePredictor("other")}, "policy"), ({"categories": ["dark"]}, "categories"), ({"folder": 1}, "folder")],
)
def test_another_policy_folder_or_option_is_noticed(folder, tmp_path, change, named):
    given = {"predict": FakePredictor(), "folder": folder, "out": tmp_path / "out", "progress": False}
    annotate_folder(**given)
    if "folder" in change:
        change = {"folder": folder / "more"}
    with pytest.raises(ValueError, match=f"made with {named}"):
        annotate_folder(**{**given, **change})


@pytest.fixture(scope="module")
def kept():
    """A calibration of an agent's masks with the best IoU."""
    rng = np.random.default_rng(0)
    found = [
        Annotation.of(str(i), "light", np.ones((2, 2), bool), signals={"area": rng.random(), "contrast": rng.random()})
        for i in range(60)
    ]
    return replace(fit_calibration([Judged(a, a.signals["area"], True) for a in found]), choice=Choice("best IoU"))


def test_whose_masks_they_are_is_said_and_a_change_is_noticed(folder, tmp_path, kept):
    given = {"folder": folder, "out": tmp_path / "out", "progress": False}
    summary = annotate_folder(FakePredictor(calibration=kept), **given)
    assert "Each mask is the agent's mask with the best IoU that SAM predicts" in str(summary)
    assert json.loads((tmp_path / "out" / "coco.json").read_text())["info"]["masks"].endswith("best IoU that SAM predicts")
    assert annotate_folder(FakePredictor(calibration=kept), **given).new == 0
    other = replace(kept, choice=Choice("map alone"))
    with pytest.raises(ValueError, match="made with answer 'best IoU', and now it is 'map alone'"):
        annotate_folder(FakePredictor(calibration=other), **given)


def test_a_run_that_began_before_there_was_a_choice_goes_on(folder, tmp_path):
    given = {"folder": folder, "out": tmp_path / "out", "progress": False}
    annotate_folder(FakePredictor(), **given)
    described = tmp_path / "out" / "run.json"
    values = json.loads(described.read_text())
    assert values.pop("answer") == "last"
    described.write_text(json.dumps(values))
    assert "Each mask is the agent's last mask" in str(annotate_folder(FakePredictor(), **given))
    described.write_text(json.dumps({**values, "answer": "luck"}))
    with pytest.raises(ValueError, match="unknown answer 'luck'"):
        annotate_folder(FakePredictor(), **given)


def test_odd_images_are_listed_or_played_and_stop_nothing(folder, tmp_path):
    (folder / "cut.png").write_bytes((folder / "001.png").read_bytes()[:60])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no image")
    Image.new("RGB", (1, 1)).save(folder / "point.png")
    Image.new("L", (3000, 2000), 200).save(folder / "large.png")
    Image.new("RGB", (7, 9)).save(folder / "refused.png")
    predict = FakePredictor(fails_on=[(9, 7)])
    summary = annotate_folder(predict, folder, tmp_path / "out", progress=False)
    assert (summary.images, summary.skipped) == (14, 4)
    with (tmp_path / "out" / "skipped.csv").open() as file:
        reasons = {row["image"]: row["reason"] for row in csv.DictReader(file)}
    assert set(reasons) == {"cut.png", "empty.jpg", "text.jpg", "refused.png"}
    assert "file is empty" in reasons["empty.jpg"] and "no pixels left" in reasons["refused.png"]
    large = Run.open(tmp_path / "out").found("large.png").annotations[0]
    assert large.size == (2000, 3000) and large.mask.all() and max(s[0] * s[1] for s in predict.played) <= 4_000_000


def test_a_link_that_leads_nowhere_is_listed_until_it_leads_somewhere(folder, tmp_path):
    (folder / "link.png").symlink_to(tmp_path / "later.png")
    given = {"folder": folder, "out": tmp_path / "out", "progress": False}
    for _ in range(2):
        assert annotate_folder(FakePredictor(), **given).skipped == 1
        assert "link.png,a link that leads nowhere" in (tmp_path / "out" / "skipped.csv").read_text()
    assert len(records(tmp_path / "out")) == 13  # noted once
    Image.new("RGB", (5, 5)).save(tmp_path / "later.png")
    summary = annotate_folder(FakePredictor(), **given)
    assert (summary.images, summary.skipped) == (13, 0)
    (tmp_path / "later.png").unlink()
    assert annotate_folder(FakePredictor(), **given).images == 13  # what was found stays


def test_a_repaired_image_is_played_by_the_next_call(folder, tmp_path):
    (folder / "late.png").touch()
    assert annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False).skipped == 1
    Image.new("RGB", (5, 5)).save(folder / "late.png")
    summary = annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    assert (summary.images, summary.skipped) == (13, 0)


def test_a_predictor_that_always_fails_stops_the_run(tmp_path):
    for i in range(30):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{i}.png")
    with pytest.raises(RuntimeError, match="20 images in a row could not be played"):
        annotate_folder(FakePredictor(fails_on=[(8, 8)]), tmp_path, tmp_path / "out", progress=False)


def test_a_folder_of_one_image_and_one_of_none(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        annotate_folder(FakePredictor(), tmp_path / "none", tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    (tmp_path / "one").mkdir()
    Image.new("RGB", (8, 8), "white").save(tmp_path / "one" / "a.png")
    assert annotate_folder(FakePredictor(), tmp_path / "one", tmp_path / "out", progress=False).images == 1


def test_bad_options_name_the_nearest(folder, tmp_path):
    with pytest.raises(ValueError, match="did you mean 'coco'"):
        annotate_folder(FakePredictor(), folder, tmp_path / "out", formats=["cocoo"])
    with pytest.raises(ValueError, match="did you mean 'light'"):
        annotate_folder(FakePredictor(), folder, tmp_path / "out", categories=["lihgt"])
    with pytest.raises(ValueError, match="alignsam calibrate"):
        annotate_folder(FakePredictor(), folder, tmp_path / "out", accept=0.05)
    with pytest.raises(FileNotFoundError, match="no folder of images"):
        annotate_folder(FakePredictor(), folder / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="folder of images itself"):
        annotate_folder(FakePredictor(), folder, folder)


def test_what_is_written_into_the_folder_of_images_is_not_read_again(folder):
    for _ in range(2):
        summary = annotate_folder(FakePredictor(), folder, folder / "out", formats=["png"], progress=False)
        assert summary.images == 12


@pytest.fixture
def calibrated_predictor(folder):
    """Trusts masks of strong contrast."""
    rng = np.random.default_rng(0)
    middle = np.median([FakePredictor()(np.asarray(Image.open(p)))[0].signals["contrast"] for p in folder.rglob("*.png")])
    judged = []
    for i in range(200):
        photo = np.full((40, 60, 3), rng.integers(0, 50), np.uint8)
        photo[10:30, 20 : 30 + i % 12] = rng.integers(140, 255)
        for found in FakePredictor()(photo):
            good = found.signals["contrast"] > middle
            judged.append(Judged(found.__class__(**{**vars(found), "image_id": str(i)}), 0.95 if good else 0.3, True))
    return FakePredictor(calibration=fit_calibration(judged))


def queue(out):
    with (out / "queue.csv").open() as file:
        return list(csv.DictReader(file))


def test_with_a_calibration_the_accepted_ones_need_no_review(folder, tmp_path, calibrated_predictor):
    summary = annotate_folder(calibrated_predictor, folder, tmp_path / "out", accept=0.05, progress=False)
    assert 0 < summary.doubtful < summary.masks
    rows = queue(tmp_path / "out")
    assert sum(int(row["review"]) for row in rows) == summary.doubtful and all(row["low"] != "nan" for row in rows)


def test_without_a_share_every_mask_is_put_up_for_review(folder, tmp_path, calibrated_predictor):
    summary = annotate_folder(calibrated_predictor, folder, tmp_path / "out", progress=False)
    assert summary.doubtful == summary.masks
    assert all(row["review"] == "1" for row in queue(tmp_path / "out"))


@pytest.mark.parametrize("accept", [None, 0.05])
def test_a_review_in_which_nothing_was_decided_leaves_the_queue_as_it_was(
    folder, tmp_path, calibrated_predictor, accept, monkeypatch, capsys
):
    out, asked = tmp_path / "out", []
    annotate_folder(calibrated_predictor, folder, out, accept=accept, progress=False)
    before = queue(out)
    calibrated_predictor.segmenter = None
    monkeypatch.setattr("alignsam_sb3.cli.options.load", lambda args: calibrated_predictor)
    page = SimpleNamespace(review_page=asked.append, serve=lambda *args: None)  # without gradio
    monkeypatch.setattr(alignsam_sb3.annotate, "app", page, raising=False)
    (tmp_path / "p.zip").write_bytes(b"PK")
    assert main(["review", str(out), "--policy", str(tmp_path / "p.zip")]) == 0
    assert queue(out) == before
    assert asked[0].progress().startswith(f"0 of {sum(row['review'] == '1' for row in before)} decided")
    said = capsys.readouterr().out
    assert "Nothing to learn from yet" in said and "corrections" not in said


def test_a_review_accepts_nothing_by_a_calibration_that_the_run_does_not_know(
    folder, tmp_path, calibrated_predictor, monkeypatch, capsys
):
    annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    monkeypatch.setattr("alignsam_sb3.cli.options.load", lambda args: calibrated_predictor)
    (tmp_path / "p.zip").write_bytes(b"PK")
    assert main(["review", str(tmp_path / "out"), "--policy", str(tmp_path / "p.zip"), "--accept", "0.05"]) == 1
    assert "was calibrated after" in capsys.readouterr().err


SLOW = """
    import sys, time
    sys.path.insert(0, {fakes!r})
    from fakes import FakePredictor
    from alignsam_sb3.annotate import annotate_folder

    class Slow(FakePredictor):
        def batch(self, images, categories):
            time.sleep(0.15)
            return super().batch(images, categories)

    annotate_folder(Slow(), {folder!r}, {out!r}, batch_size=2, progress=False)
"""


def test_killed_at_any_time_it_goes_on(folder, tmp_path):
    out = tmp_path / "out"
    code = textwrap.dedent(SLOW.format(fakes=str(Path(__file__).parent), folder=str(folder), out=str(out)))
    child = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((out / "journal.jsonl").is_file() and len(records(out)) >= 4):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = len(records(out))
    assert 4 <= kept < 12
    with (out / "journal.jsonl").open("ab") as file:
        file.write(b'{"image": "half a li')  # as if killed while writing
    again = FakePredictor()
    summary = annotate_folder(again, folder, out, progress=False)
    assert summary.images == 12 and len(again.played) == 12 - kept
    assert len(records(out)) == 12


def test_two_processes_do_not_write_one_run(folder, tmp_path):
    from filelock import FileLock

    annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    with FileLock(tmp_path / "out" / "lock"), pytest.raises(ValueError, match="another process is annotating"):
        annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)


def test_a_full_disk_is_said_and_loses_nothing(folder, tmp_path, monkeypatch):
    annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    before = (tmp_path / "out" / "journal.jsonl").read_bytes()
    Image.new("RGB", (5, 5)).save(folder / "new.png")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*make room.*12 images so far are kept"):
        annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "journal.jsonl").read_bytes() == before


def test_an_out_that_cannot_be_written_is_said(folder, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="give another folder with --out"):
        annotate_folder(FakePredictor(), folder, tmp_path / "file" / "out", progress=False)


def test_a_damaged_run_is_said(folder, tmp_path):
    annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    (tmp_path / "out" / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    with pytest.raises(FileNotFoundError, match="alignsam annotate"):
        Run.open(tmp_path)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    import tracemalloc

    peaks = []
    for count in (20, 120):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            Image.fromarray(np.full((200, 300, 3), i, np.uint8)).save(folder / f"{i:03d}.png")
        tracemalloc.start()
        annotate_folder(FakePredictor(), folder, tmp_path / f"out{count}", batch_size=4, progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]


def test_accept_without_a_calibration_names_both_ways_on(folder, tmp_path):
    with pytest.raises(ValueError, match=r"`alignsam calibrate.*Without --accept it works"):
        annotate_folder(FakePredictor(), folder, tmp_path / "out", accept=0.05, progress=False)
    assert annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False).doubtful == 24
