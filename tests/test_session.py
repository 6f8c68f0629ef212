"""Click sessions: many at once are each one alone, undo is exact, and nothing that was handed out changes."""

import numpy as np
import pytest
import torch as th

from alignsam_sb3.clickers import centre_click
from alignsam_sb3.segmenters.base import PromptableSegmenter
from alignsam_sb3.session import ClickSessions, open_sessions


@pytest.fixture(scope="module")
def images(toy):
    """Scenes of several shapes."""
    cuts = [(128, 128), (128, 128), (70, 128), (128, 61), (128, 128), (33, 90)]
    return [toy[k].image[:h, :w] for k, (h, w) in enumerate(cuts)]


def clicks_of(rng, size, count):
    return [((int(rng.integers(size[1])), int(rng.integers(size[0]))), int(rng.integers(2))) for _ in range(count)]


@pytest.fixture
def calls(tiny, monkeypatch):
    """How many images each call of ``decode`` got."""
    made, decode = [], tiny.decode
    monkeypatch.setattr(tiny, "decode", lambda *args, **kwargs: made.append(len(args[1])) or decode(*args, **kwargs))
    return made


def same(one, i, other, k, atol=1e-5):
    """Session i of one batch is session k of another."""
    assert one.clicks(i) == other.clicks(k)
    assert one.answered[i] == other.answered[k]
    assert th.allclose(one.logits[i], other.logits[k], atol=atol)
    assert th.allclose(one.iou[i], other.iou[k], atol=1e-5)
    return True


def test_many_at_once_are_each_one_alone(tiny, images, calls):
    """Rounds of clicks, one or several at once, on some of the sessions, whose counts drift apart."""
    rng = np.random.default_rng(0)
    together, alone = open_sessions(tiny, images), [open_sessions(tiny, [image]) for image in images]
    rounds = [(np.arange(6), 1), (np.array([0, 2, 5]), 2), (np.array([5, 1]), 1), (np.arange(6), 3)]
    for which, count in rounds:
        made = [clicks_of(rng, images[i].shape[:2], count) for i in which]
        together.click(which, np.array([[p for p, _ in m] for m in made]), np.array([[said for _, said in m] for m in made]))
        for i, m in zip(which, made, strict=True):
            alone[i].click(np.array([0]), np.array([[p for p, _ in m]]), np.array([[said for _, said in m]]))
    assert together.counts.tolist() == [6, 5, 6, 4, 4, 7]
    assert calls[:1] == [6]
    assert [n for n in calls if n > 1] == [6, 3, 2, 6]  # one call for a round, whatever the counts
    assert all(same(together, i, alone[i], 0, 2e-5 * float(alone[i].logits.abs().max())) for i in range(6))
    for mask, other, image in zip(together.masks(), alone, images, strict=True):
        assert mask.shape == image.shape[:2]
        assert (mask != other.masks()[0]).mean() < 1e-3


def test_lists_of_any_lengths_are_the_same_clicks(tiny, images, calls):
    rng = np.random.default_rng(1)
    made = [clicks_of(rng, image.shape[:2], count) for image, count in zip(images, (1, 4, 2, 1, 9, 3), strict=True)]
    ragged = open_sessions(tiny, images)
    ragged.click_each(np.arange(6), made)
    assert calls == [6]
    for i, (image, own) in enumerate(zip(images, made, strict=True)):
        alone = open_sessions(tiny, [image])
        alone.click(np.array([0]), np.array([[p for p, _ in own]]), np.array([[said for _, said in own]]))
        assert same(ragged, i, alone, 0, 2e-5 * float(alone.logits.abs().max()))
        assert ragged.clicks(i) == own  # more than eight, too


def test_what_was_answered_before_is_fed_back(tiny, images, monkeypatch):
    """The second click hands the first one's logits to the decoder, and they make a difference."""
    asked, decode = [], tiny.decode
    monkeypatch.setattr(tiny, "decode", lambda features, prompts: asked.append(prompts) or decode(features, prompts))
    sessions = open_sessions(tiny, images[:2])
    sessions.click(np.array([1]), np.array([[[60, 60]]]), np.array([[1]]))
    first = sessions.logits[1].clone()
    sessions.click(np.array([0, 1]), np.array([[[30, 30]], [[20, 90]]]), np.array([[1], [0]]))
    assert asked[0].fed.tolist() == [False]
    assert asked[1].fed.tolist() == [False, True]
    assert th.equal(asked[1].mask_inputs[1], first)
    fresh = open_sessions(tiny, images[1:2])
    fresh.click(np.array([0]), np.array([[[60, 60], [20, 90]]]), np.array([[1, 0]]))
    assert not th.allclose(fresh.logits[0], sessions.logits[1], atol=0.1)  # both clicks without an earlier answer


def test_undo_restores_exactly_whatever_came_last(tiny, images):
    sessions = open_sessions(tiny, images, remembers=True)
    rng, states = np.random.default_rng(2), []

    def state():
        return [sessions.logits.clone(), sessions.iou.clone(), sessions.answered.copy(), sessions.counts.copy(),
                sessions.boxes.copy(), [sessions.clicks(i) for i in range(6)]]  # fmt: skip

    def equal(a, b):
        return all(
            th.equal(x, y) if isinstance(x, th.Tensor) else np.array_equal(x, y, True) if isinstance(x, np.ndarray) else x == y
            for x, y in zip(a, b, strict=True)
        )

    everyone = np.arange(6)
    moves = [
        lambda: sessions.draw_box(everyone, np.tile([5.0, 5.0, 25.0, 28.0], (6, 1))),
        lambda: sessions.click_each(everyone, [clicks_of(rng, image.shape[:2], 1 + k % 3) for k, image in enumerate(images)]),
        lambda: sessions.draw_box(everyone, np.tile([1.0, 2.0, 30.0, 31.0], (6, 1))),
        lambda: sessions.click(everyone, rng.integers(0, 30, (6, 2, 2)), rng.integers(0, 2, (6, 2))),
    ]
    for move in moves:
        states.append(state())
        move()
    last = state()
    sessions.undo(np.array([4]))  # one alone: the others stay
    assert all(th.equal(sessions.logits[i], last[0][i]) for i in range(6) if i != 4)
    assert th.equal(sessions.logits[4], states[-1][0][4])
    sessions.undo(np.array([0, 1, 2, 3, 5]))
    assert equal(state(), states[-1])
    for before in states[-2::-1]:
        sessions.undo(everyone)
        assert equal(state(), before)
    assert not sessions.logits.any()
    with pytest.raises(ValueError, match="session 0 has no click to take back"):
        sessions.undo(everyone)
    with pytest.raises(ValueError, match="remembers=True"):
        open_sessions(tiny, images[:1]).undo(np.array([0]))


def test_a_click_after_an_undo_is_as_if_nothing_had_been(tiny, images):
    there, straight = (open_sessions(tiny, images[:1], remembers=True) for _ in range(2))
    alone = np.array([0])
    there.click(alone, np.array([[[60, 60]]]), np.array([[1]]))
    there.click(alone, np.array([[[9, 9], [90, 9]]]), np.array([[1, 1]]))
    there.undo(alone)
    there.click(alone, np.array([[[80, 70]]]), np.array([[0]]))
    straight.click(alone, np.array([[[60, 60]]]), np.array([[1]]))
    straight.click(alone, np.array([[[80, 70]]]), np.array([[0]]))
    assert there.clicks(0) == straight.clicks(0) == [((60, 60), 1), ((80, 70), 0)]
    assert th.equal(there.logits, straight.logits)


def test_a_box_stays_beside_later_clicks(tiny, toy):
    """Around the object it says more than around all of the image; sessions with a box and without go in one call."""
    sample = toy[3]
    truth = sample.target(0)
    y, x = np.nonzero(truth)
    box = np.array([[x.min(), y.min(), x.max() + 1, y.max() + 1]], float)
    sessions = open_sessions(tiny, [sample.image] * 3)
    sessions.draw_box(np.array([0]), box)
    assert sessions.answered.tolist() == [True, False, False]
    place, label = centre_click(truth)
    sessions.click(np.arange(3), np.array([[place]] * 3), np.array([[label]] * 3))
    assert np.array_equal(sessions.boxes[0], box[0].astype(np.float32))
    assert np.isnan(sessions.boxes[1:]).all()
    assert not th.allclose(sessions.logits[0], sessions.logits[1], atol=0.1)
    assert th.allclose(sessions.logits[1], sessions.logits[2], atol=1e-4)
    found = sessions.masks()[0]
    assert (found & truth).sum() / (found | truth).sum() > 0.7


def test_a_subset_begins_anew_and_the_rest_goes_on(tiny, images):
    sessions = open_sessions(tiny, images, remembers=True)
    sessions.click(np.arange(6), np.full((6, 1, 2), 20), np.ones((6, 1), int))
    sessions.draw_box(np.array([1]), np.array([[1.0, 1.0, 20.0, 20.0]]))
    kept = {i: (sessions.logits[i].clone(), sessions.clicks(i)) for i in (0, 2, 4)}
    which, anew = np.array([3, 1, 5]), [images[5], images[3], images[0]]
    sessions.start(which, tiny.encode(anew), np.array([image.shape[:2] for image in anew]))
    for i, (logits, clicks) in kept.items():
        assert th.equal(sessions.logits[i], logits)
        assert sessions.clicks(i) == clicks
    for i, image in zip(which, anew, strict=True):
        assert tuple(sessions.sizes[i]) == image.shape[:2]
        assert (sessions.counts[i], sessions.answered[i], float(sessions.iou[i])) == (0, False, 0)
        assert np.isnan(sessions.boxes[i]).all()
        assert not sessions.masks(np.array([i]))[0].any()
        assert (sessions.probabilities[i] == 0.5).all()
        with pytest.raises(ValueError, match="no click to take back"):
            sessions.undo(np.array([i]))
    sessions.click(which, np.full((3, 1, 2), 15), np.ones((3, 1), int))
    for i, image in zip(which, anew, strict=True):
        alone = open_sessions(tiny, [image])
        alone.click(np.array([0]), np.full((1, 1, 2), 15), np.ones((1, 1), int))
        assert same(sessions, i, alone, 0, 1e-3)


def test_tensors_that_were_handed_out_are_never_written_to(tiny, images):
    sessions = open_sessions(tiny, images, remembers=True)
    handed, copies = [], []

    def hand_out():
        for tensor in (*sessions.features.values(), sessions.logits, sessions.iou, sessions.probabilities):
            handed.append(tensor)
            copies.append(tensor.clone())

    hand_out()
    sessions.click(np.arange(6), np.full((6, 1, 2), 20), np.ones((6, 1), int))
    hand_out()
    sessions.click(np.array([2, 4]), np.full((2, 1, 2), 9), np.zeros((2, 1), int))
    hand_out()
    sessions.undo(np.array([4]))
    hand_out()
    for which in (np.array([1, 2]), np.arange(6)):
        anew = [images[0]] * len(which)
        sessions.start(which, tiny.encode(anew), np.array([image.shape[:2] for image in anew]))
        hand_out()
    assert all(th.equal(tensor, copy) for tensor, copy in zip(handed, copies, strict=True))


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_decoding_in_chunks_changes_nothing(tiny, images, monkeypatch, at_once):
    def play():
        rng, sessions = np.random.default_rng(3), open_sessions(tiny, images)
        for _ in range(2):
            sessions.click_each(np.arange(6), [clicks_of(rng, im.shape[:2], 1 + k % 2) for k, im in enumerate(images)])
        return sessions

    whole = play()
    sizes, group = [], type(tiny).decode_group
    monkeypatch.setattr(PromptableSegmenter, "at_once", property(lambda self: at_once))

    def counted(self, features, *rest):
        sizes.append(len(features["embeddings"]))
        return group(self, features, *rest)

    monkeypatch.setattr(type(tiny), "decode_group", counted)
    parts = play()
    assert max(sizes) == min(at_once, 3)
    assert sum(sizes) == 12
    assert all(same(whole, i, parts, i, 2e-5 * float(whole.logits.abs().max())) for i in range(6))


def test_no_session_is_no_batch_and_nothing_clicked_asks_nothing(tiny, images, calls):
    with pytest.raises(ValueError, match="sessions must be at least 1, got 0"):
        ClickSessions(tiny, 0)
    sessions = open_sessions(tiny, images[:2])
    sessions.click(np.zeros(0, np.int64), np.zeros((0, 1, 2)), np.zeros((0, 1), int))
    assert calls == []
