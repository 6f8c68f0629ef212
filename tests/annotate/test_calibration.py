"""What a calibration promises holds, on worlds whose truth is known."""

import math
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from alignsam_sb3.annotation import Annotation
from alignsam_sb3.calibration import Calibration, Judged, as_judged, calibrated, fit_calibration, third
from alignsam_sb3.choice import choose
from alignsam_sb3.encodings import to_coco_rle

DRAWS = 20


def world(rng, images, categories=4, name="i"):
    """Masks whose signals tell their quality roughly, half of them of what is not there."""
    made = []
    for i in range(images):
        for c in range(categories):
            shown = rng.random() < 0.5
            dice = rng.beta(4, 1) if shown else 0.0
            signals = {
                "iou": (dice if shown else rng.beta(3, 2)) + rng.normal(0, 0.12),
                "clip": 1.2 * shown + rng.normal(0, 0.4),
                "stability": dice + rng.normal(0, 0.15),
            }
            made.append(Judged(Annotation(f"{name}{i}", f"c{c}", (4, 4), "0`0", signals=signals), dice, shown))
    return made


@pytest.fixture(scope="module")
def unseen():
    return world(np.random.default_rng(1000), 1500, name="unseen")


@pytest.fixture(scope="module")
def draws():
    return [fit_calibration(world(np.random.default_rng(k), 100), seed=k) for k in range(DRAWS)]


def outcome(calibration, judged):
    annotations = calibration.judge_all([j.annotation for j in judged])
    return annotations, np.array([j.final(a.present) for j, a in zip(judged, annotations, strict=True)])


def test_the_lower_bound_holds_as_often_as_it_says(draws, unseen):
    held = []
    for calibration in draws:
        annotations, dices = outcome(calibration, unseen)
        held.append((dices >= [a.low for a in annotations]).mean())
    assert abs(np.mean(held) - 0.9) < 0.02


def test_the_lower_bound_holds_for_what_was_chosen_on_other_images():
    """The masks that are handed out are the best of several, and are calibrated where they were not chosen."""

    def answers(seed, images, name):
        """Masks of the same images by each answer, two of them better than the last one."""
        worlds = {"last": world(np.random.default_rng(seed), images, 2, name)}
        for k, (other, gain) in enumerate({"best IoU": 0.08, "steadiest": 0.0, "map alone": 0.08}.items()):
            rng = np.random.default_rng(10 * seed + k)
            moved = [np.clip(j.dice + rng.normal(gain, 0.1), 0, 1) if j.shown else 0.0 for j in worlds["last"]]
            worlds[other] = [replace(j, dice=float(d)) for j, d in zip(worlds["last"], moved, strict=True)]
        return worlds

    unseen, held, chosen = answers(1000, 1500, "unseen"), [], set()
    for k in range(DRAWS):
        known, (first, others) = answers(k, 150, "i"), third(150, k)
        of = {
            name: [[j for j in judged if int(j.annotation.image_id[1:]) in part] for part in (first, others)]
            for name, judged in known.items()
        }
        answer = choose({n: [(j.annotation.image_id, j.dice) for j in part if j.shown] for n, (part, _) in of.items()}).answer
        calibration = calibrated(*of[answer])
        annotations, dices = outcome(calibration, unseen[answer])
        held.append((dices >= [a.low for a in annotations]).mean())
        chosen.add(answer)
    assert abs(np.mean(held) - 0.9) < 0.02 and len(chosen) > 1


def test_what_is_accepted_is_wrong_no_more_often_than_stated(draws, unseen):
    broken, accepted = 0, []
    for calibration in draws:
        annotations, dices = outcome(calibration, unseen)
        taken = np.array([a.score for a in annotations]) >= calibration.accept_from(0.05)
        accepted.append(taken.mean())
        broken += bool(taken.any() and (dices[taken] < 0.8).mean() > 0.05)
    assert broken <= 0.1 * DRAWS and np.mean(accepted) > 0.2


def test_signals_that_say_nothing_break_no_promise(unseen):
    rng = np.random.default_rng(5)

    def blind(judged):
        return [replace(j, annotation=replace(j.annotation, signals={"iou": rng.random()})) for j in judged]

    held, broken = [], 0
    for k in range(DRAWS):
        calibration = fit_calibration(blind(world(np.random.default_rng(k), 100)), seed=k)
        annotations, dices = outcome(calibration, blind(unseen))
        held.append((dices >= [a.low for a in annotations]).mean())
        taken = np.array([a.score for a in annotations]) >= calibration.accept_from(0.05)
        broken += bool(taken.any() and (dices[taken] < 0.8).mean() > 0.05)
    assert abs(np.mean(held) - 0.9) < 0.02 and broken <= 0.1 * DRAWS


def test_it_tells_what_is_not_there(draws, unseen):
    right = [
        np.mean([a.present == j.shown for a, j in zip(outcome(calibration, unseen)[0], unseen, strict=True)])
        for calibration in draws
    ]
    assert min(right) > 0.95


def test_without_absent_examples_everything_is_held_to_be_there(unseen):
    shown = [j for j in world(np.random.default_rng(0), 100) if j.shown]
    annotations, _ = outcome(fit_calibration(shown), unseen)
    assert all(a.present for a in annotations)


def test_an_empty_mask_of_what_is_there_is_worth_nothing(draws, unseen):
    calibration = replace(draws[0], presence=(), absence=())
    there = unseen[0].annotation
    empty = replace(there, rle=to_coco_rle(np.zeros((4, 4), bool))["counts"])
    assert there.area > 0
    assert calibration.judge(there).score > 0
    assert (calibration.judge(empty).score, calibration.judge(empty).low) == (0, 0)


def test_nothing_is_accepted_when_few_labels_cannot_show_it():
    calibration = fit_calibration(world(np.random.default_rng(0), 10))
    assert calibration.accept_from(0.05) == math.inf and calibration.needed(0.05) == 68


def test_too_few_labels_for_a_level_give_a_bound_of_zero():
    calibration = fit_calibration(world(np.random.default_rng(0), 10), level=0.99)
    assert all(low == 0 for low in calibration.lower_bounds(np.array([0.2, 0.99])))


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="too few to calibrate"):
        fit_calibration(world(np.random.default_rng(0), 2))
    with pytest.raises(ValueError, match=r"0\.9 is 90 %"):
        fit_calibration(world(np.random.default_rng(0), 20), level=90)
    with pytest.raises(ValueError, match=r"0\.05 is 5 %"):
        fit_calibration(world(np.random.default_rng(0), 20)).accept_from(5)


def test_a_missing_or_broken_signal_counts_as_average(draws):
    odd = Annotation("x", "elsewhere", (4, 4), "0`0", signals={"iou": math.nan})
    judged = draws[0].judge(odd)
    assert 0 <= judged.low <= judged.score <= 1


def test_it_lives_in_the_policy_and_changes_nothing_else(tmp_path, draws):
    policy = tmp_path / "policy.zip"
    with zipfile.ZipFile(policy, "w") as archive:
        archive.writestr("data", "{}")
        archive.writestr("policy.pth", b"weights")
    assert Calibration.read(policy) is None
    for calibration in draws[:2]:  # the second takes the place of the first
        calibration.write(policy)
        assert Calibration.read(policy) == calibration
    with zipfile.ZipFile(policy) as archive:
        assert sorted(archive.namelist()) == ["calibration.json", "data", "policy.pth"]
        assert archive.read("policy.pth") == b"weights"
    assert [p.name for p in tmp_path.iterdir()] == ["policy.zip"]


@pytest.mark.parametrize("damage", ["[]", "{}", "no json", '{"names": ["a"]}'])
def test_a_damaged_calibration_is_refused(damage):
    with pytest.raises(ValueError, match="run `alignsam calibrate` again"):
        Calibration.from_json(damage)


def test_numbers_that_do_not_fit_each_other_are_refused(draws):
    with pytest.raises(ValueError, match="belong together"):
        Calibration.from_json(replace(draws[0], quality=(1.0,)).to_json())


def test_dice_beside_the_truth_leaves_out_what_has_no_truth():
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    truth = np.zeros((4, 4), bool)
    truth[0] = True
    found = Annotation.of("a", "dog", mask)
    assert as_judged(found, truth).dice == pytest.approx(2 * 4 / 12)
    assert as_judged(found, truth, np.arange(4)[:, None].repeat(4, 1) != 1).dice == 1.0
    assert as_judged(Annotation.of("a", "dog", truth & False), truth & False).dice == 1.0
