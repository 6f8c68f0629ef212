"""Decisions stay, whatever happens to windows and servers, and corrected masks become something to learn from."""

import json

import numpy as np
import pytest
from fakes import FakePredictor

from alignsam_sb3.annotate import Run, annotate_folder
from alignsam_sb3.annotate.corrections import write_corrections
from alignsam_sb3.annotate.decisions import Decisions, reviewed
from alignsam_sb3.annotate.formats import write_formats
from alignsam_sb3.annotate.review import Review
from alignsam_sb3.annotate.window import Window
from alignsam_sb3.datasets import load_dataset


@pytest.fixture
def run(folder, tmp_path):
    annotate_folder(FakePredictor(), folder, tmp_path / "out", progress=False)
    return Run.open(tmp_path / "out")


def key(window):
    return window.annotation.image_id, window.annotation.category


def test_the_most_doubtful_comes_first_and_each_decision_brings_the_next(run, tiny):
    review = Review(run, tiny)
    order = list(review.ranked)
    assert len(order) == 24
    for k in range(3):
        assert key(review.window("me")) == order[k]
        review.accept("me")
    assert review.progress() == "3 of 24 decided, 21 to go"


def test_decisions_are_found_by_a_server_that_starts_anew(run, tiny):
    review = Review(run, tiny)
    first = key(review.window("me"))
    review.reject("me")
    again = Review(Run.open(run.out), tiny)
    assert first not in again.waiting() and again.decisions.latest()[first].verdict == "reject"


def test_it_is_on_the_disk_before_the_next_is_shown(run, tiny, monkeypatch):
    review = Review(run, tiny)
    review.window("me")
    seen = []
    monkeypatch.setattr(review, "next", lambda who: seen.append((run.out / "decisions.jsonl").read_text()))
    review.accept("me")
    assert json.loads(seen[0])["verdict"] == "accept"


def test_a_decision_that_cannot_be_written_is_not_taken(run, tiny, monkeypatch):
    import os

    review = Review(run, tiny)
    first = key(review.window("me"))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        review.accept("me")
    monkeypatch.undo()
    assert key(review.window("me")) == first and not review.decisions.latest()


def test_two_windows_show_different_masks_and_keep_both_decisions(run, tiny):
    one, two = Review(run, tiny), Review(Run.open(run.out), tiny)  # two servers, even
    a, b = key(one.window("a")), key(one.window("b"))
    assert a != b
    one.accept("a")
    one.reject("b")
    two.window("c")
    two.later("c")
    verdicts = sorted(d.verdict for d in Decisions(run).latest().values())
    assert verdicts == ["accept", "later", "reject"] and len(one.decisions.latest()) == 3


def test_undo_takes_back_the_last_decision_of_this_window_only(run, tiny):
    review = Review(run, tiny)
    mine = key(review.window("me"))
    review.accept("me")
    review.window("other")
    review.reject("other")
    assert key(review.undo("me")) == mine
    assert [d.verdict for d in review.decisions.latest().values()] == ["reject"]


def test_later_comes_back_after_all_others(run, tiny):
    review = Review(run, tiny)
    first = key(review.window("me"))
    review.later("me")
    assert review.waiting()[-1] == first and len(review.waiting()) == 24


def test_a_click_changes_the_mask_and_undo_takes_it_back(run, tiny):
    review = Review(run, tiny)
    window = review.window("me")
    before = window.picture()
    assert (review.click("me", 100, 100, 1) != before).any()
    assert window.edited and len(window.result().clicks) == len(window.annotation.clicks) + 1
    with_one = window.result().mask
    review.click("me", 600, 300, 0)
    assert window.result().clicks[-1][1] == 0
    review.undo("me")
    assert (window.result().mask == with_one).all()
    review.undo("me")
    assert not window.edited and (window.picture() == before).all()


def test_a_corrected_mask_is_what_is_exported_and_learned_from(run, tiny):
    review = Review(run, tiny)
    window = review.window("me")
    image, category = key(window)
    review.click("me", 384, 256, 1)
    corrected = window.result().mask
    review.accept("me")
    found = next(f for f in reviewed(run) if f.image == image)
    drawn = next(a for a in found.annotations if a.category == category)
    assert (drawn.mask == corrected).all() and drawn.score == 1 and corrected.any()
    assert write_corrections(run) == 1
    dataset = load_dataset(f"coco:{run.out / 'corrections'}", "all", min_area=0)
    sample = dataset[0]
    assert len(dataset) == 1 and (sample.target(dataset.categories.index(category)) == corrected).all()


def test_rejected_masks_are_left_out_and_absent_ones_are_empty(run, tiny):
    review = Review(run, tiny)
    rejected = key(review.window("me"))
    review.reject("me")
    absent = key(review.window("me"))
    review.not_here("me")
    write_formats(run, ["coco"], 0.8)
    coco = json.loads((run.out / "coco.json").read_text())
    names = {i["id"]: i["file_name"] for i in coco["images"]}
    exported = {(names[a["image_id"]], ("light", "dark")[a["category_id"] - 1]) for a in coco["annotations"]}
    assert rejected not in exported and absent not in exported and len(names) == 12
    assert not next(a for f in reviewed(run) if f.image == absent[0] for a in f.annotations if a.category == absent[1]).present
    write_corrections(run)
    said = json.loads((run.out / "corrections" / "annotations" / "instances.json").read_text())
    assert [len(i["neg_category_ids"]) for i in said["images"]] == [1] and not said["annotations"]


def test_the_agent_is_watched_click_by_click(run, tiny):
    review = Review(run, tiny)
    window = review.window("me")
    pictures = list(review.watch("me"))
    assert len(pictures) == len(window.annotation.clicks) + 2
    assert (pictures[0] != pictures[1]).any() and (pictures[-1] == window.picture()).all()


def test_a_replayed_session_gives_the_agents_mask(tiny, toy):
    from alignsam_sb3.annotation import Annotation
    from alignsam_sb3.session import open_sessions

    photo = toy[0].image
    session = open_sessions(tiny, [photo])
    clicks = [((60, 60), 1), ((10, 100), 0)]
    for click in clicks:
        session.click_each(np.array([0]), [[click]])
    window = Window(tiny, photo, Annotation.of("a", "x", session.masks()[0], clicks))
    *_, last, shown = [*window.watch(), window.picture()]
    assert (last == shown).all()


def test_a_person_goes_on_from_a_mask_that_no_clicks_have_made(tiny, toy):
    """As where a map was handed out: a click corrects that mask, and does not begin anew."""
    from alignsam_sb3.annotation import Annotation

    photo, truth = toy[0].image, toy[0].target(0)
    inside = tuple(int(v) for v in np.argwhere(truth).mean(0).round()[::-1])
    other = np.roll(truth, 40, 1)
    for clicks in ((), ((inside, 1),)):
        window = Window(tiny, photo, Annotation.of("a", "x", other, clicks))
        given = window.prepare().masks()[0]
        assert (given & other).sum() > 0.9 * (given | other).sum()
        window.click(5, 5, 0)
        asked = window.prepare().logits
        window.undo()
        assert (window.picture() == Window(tiny, photo, window.annotation).picture()).all() and asked.any()


def test_files_outside_the_folder_are_refused(run):
    for name in ("../run.json", "/etc/passwd", "more/../../out/run.json"):
        with pytest.raises(ValueError, match="lies outside"):
            run.image_path(name)
    (run.folder / "link.png").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="lies outside"):
        run.image_path("link.png")


def test_a_photo_that_is_gone_is_passed_over(run, tiny, capsys):
    review = Review(run, tiny)
    image, _ = review.ranked[0]
    (run.folder / image).unlink()
    assert key(review.window("me"))[0] != image
    assert "no such file" in capsys.readouterr().out


def test_the_end_of_the_queue(run, tiny):
    review = Review(run, tiny)
    while review.window("me") is not None:
        review.accept("me")
    assert review.progress() == "24 of 24 decided, 0 to go" and review.click("me", 1, 1, 1) is None
    assert review.accept("me") is None and write_corrections(run) == 12


def test_only_what_is_below_a_threshold_is_asked(run, tiny):
    scores = sorted(a.score for f in run for a in f.annotations)
    assert len(Review(run, tiny, scores[10]).ranked) == sum(s < scores[10] for s in scores)


def test_bad_verdicts_are_refused(run):
    annotation = next(iter(run)).annotations[0]
    with pytest.raises(ValueError, match="did you mean 'accept'"):
        Decisions(run).decide(annotation, "acept")
    with pytest.raises(ValueError, match="with the verdict 'correct'"):
        Decisions(run).decide(annotation, "correct")
