"""Click sessions: N images being clicked, answered by one frozen segmenter. No truth, no reward, no environment."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch as th
from numpy.typing import NDArray

from alignsam_sb3.arrays import on_device
from alignsam_sb3.clickers import Click
from alignsam_sb3.segmenters import PromptableSegmenter, Prompts
from alignsam_sb3.segmenters.base import pooled

Rows = NDArray[np.int64]
"""Numbers of sessions."""


class ClickSessions:
    """The state of N images being clicked; those that are clicked together are decoded in one call.

    What is large (features, logits) is a tensor on the segmenter's device. Clicks are numpy: the host groups by their number.

    :param segmenter: answers the clicks
    :param n: number of sessions
    :param remembers: keep every answer, so that clicks can be undone

    - ``sizes`` (N, 2): height and width of each image in pixels
    - ``point_coords`` (N, T, 2): clicks as (x, y) in pixels of the image
    - ``point_labels`` (N, T), and ``counts`` (N,): clicks so far
    - ``boxes`` (N, 4): in pixels of the image, NaN where there is none
    - ``features``: what the segmenter says of each image
    - ``logits`` (N, m, m): its last answer in the frame, 0 before the first
    - ``iou`` (N,): the IoU that it predicts for that answer
    - ``answered`` (N,): whether there is an answer
    """

    def __init__(self, segmenter: PromptableSegmenter, n: int, remembers: bool = False) -> None:
        if n < 1:
            raise ValueError(f"sessions must be at least 1, got {n}")
        self.segmenter, self.remembers = segmenter, remembers
        side = segmenter.mask_side
        device = segmenter.device
        self.sizes = np.zeros((n, 2), np.int64)
        self.point_coords = np.zeros((n, 8, 2), np.float32)
        self.point_labels = np.zeros((n, 8), np.int64)
        self.counts = np.zeros(n, np.int64)
        self.boxes = np.full((n, 4), np.nan, np.float32)
        self.answered = np.zeros(n, bool)
        self.features = {k: th.zeros((n, *shape), device=device) for k, shape in segmenter.feature_shapes.items()}
        self.logits = th.zeros((n, side, side), device=device)
        self.iou = th.zeros(n, device=device)
        self._predicted = self.iou, self.iou.cpu().numpy()
        self._past: list[list[tuple[int, bool, NDArray[np.float32], th.Tensor, th.Tensor]]] = [[] for _ in range(n)]

    def __len__(self) -> int:
        return len(self.counts)

    def _at(self, which: Rows) -> th.Tensor:
        return on_device(which, self.logits.device)

    def start(self, which: Rows, features: Mapping[str, th.Tensor], sizes: NDArray[np.int64]) -> None:
        """Begin anew with other images. Tensors handed out before stay as they are: new ones take their place.

        :param which: (K,) sessions
        :param features: what the segmenter says of the K images, each (K, ...)
        :param sizes: (K, 2) height and width of the images in pixels
        """
        whole = len(which) == len(self)
        at = self._at(which)
        for name, old in self.features.items():
            new = features[name].to(old.device, old.dtype)
            self.features[name] = new if whole and (np.diff(which) == 1).all() else old.index_copy(0, at, new)
        self.sizes[which], self.counts[which], self.answered[which] = sizes, 0, False
        self.boxes[which] = np.nan
        self.logits, self.iou = self.logits.index_fill(0, at, 0), self.iou.index_fill(0, at, 0)
        for i in which:
            self._past[i] = []

    def click(
        self, which: Rows, point_coords: NDArray[np.floating] | NDArray[np.integer], labels: NDArray[np.integer]
    ) -> None:
        """Add M clicks to each of K sessions and decode all of these at once.

        :param which: (K,) sessions, each once
        :param point_coords: (K, M, 2) as (x, y) in pixels of the images
        :param labels: (K, M) 1 foreground, 0 background
        """
        self._remember(which)
        self._add(which, point_coords, labels)
        self._decode(which)

    def click_each(self, which: Rows, clicks: Sequence[Sequence[Click]]) -> None:
        """The same for lists of clicks of any lengths, one list for each session."""
        self._remember(which)
        for i, made in zip(which, clicks, strict=True):
            coords = np.array([place for place, _ in made], np.float32).reshape(1, -1, 2)
            self._add(np.array([i]), coords, np.array([[label for _, label in made]]))
        self._decode(which)

    def draw_box(self, which: Rows, boxes: NDArray[np.floating]) -> None:
        """Give K sessions a box (K, 4) as (x0, y0, x1, y1) in pixels of the images; it stays beside later clicks."""
        self._remember(which)
        self.boxes[which] = boxes
        self._decode(which)

    def give_masks(self, which: Rows, logits: th.Tensor) -> None:
        """Give K sessions a mask in place of an earlier answer: the next click is decoded with it.

        :param which: (K,) sessions
        :param logits: (K, m, m) in the frame
        """
        self._remember(which)
        self.logits = self.logits.index_copy(0, self._at(which), logits.to(self.logits.device, self.logits.dtype))
        self.answered[which] = True

    def undo(self, which: Rows) -> None:
        """Take back the last :meth:`click`, :meth:`click_each` or :meth:`draw_box` of some sessions, exactly.

        :raises ValueError: there is nothing to take back, or the sessions do not remember
        """
        if not self.remembers:
            raise ValueError("these sessions remember no earlier answers: make them with remembers=True")
        for i in which:
            if not self._past[i]:
                raise ValueError(f"session {i} has no click to take back")
        if not len(which):
            return
        past = [self._past[i].pop() for i in which]
        counts, answered, boxes, logits, iou = zip(*past, strict=True)
        self.counts[which], self.answered[which], self.boxes[which] = counts, answered, boxes
        self.logits = self.logits.index_copy(0, self._at(which), th.stack(logits))
        self.iou = self.iou.index_copy(0, self._at(which), th.stack(iou))

    def _remember(self, which: Rows) -> None:
        if self.remembers:
            for i in which:
                answer = self.logits[i].clone(), self.iou[i].clone()
                self._past[i].append((int(self.counts[i]), bool(self.answered[i]), self.boxes[i].copy(), *answer))

    def _add(self, which: Rows, coords: NDArray[np.floating] | NDArray[np.integer], labels: NDArray[np.integer]) -> None:
        room, new = self.point_coords.shape[1], labels.shape[1]
        needed = int(self.counts[which].max(initial=0)) + new
        if needed > room:
            more = max(needed, 2 * room) - room
            self.point_coords = np.pad(self.point_coords, ((0, 0), (0, more), (0, 0)))
            self.point_labels = np.pad(self.point_labels, ((0, 0), (0, more)))
        columns = self.counts[which][:, None] + np.arange(new)
        self.point_coords[which[:, None], columns] = coords
        self.point_labels[which[:, None], columns] = labels
        self.counts[which] += new

    def _decode(self, which: Rows) -> None:
        if not len(which):
            return
        room = max(int(self.counts[which].max()), 1)
        whole = len(which) == len(self)
        at = self._at(which)
        prompts = Prompts(
            th.from_numpy(self.point_coords[which, :room]),
            th.from_numpy(self.point_labels[which, :room]),
            self.counts[which],
            self.sizes[which],
            self.logits[at],
            self.answered[which],
            self.boxes[which],
        )
        features = self.features if whole else {name: x[at] for name, x in self.features.items()}
        logits, iou = self.segmenter.decode(features, prompts).best()
        self.logits = self.logits.index_copy(0, at, logits.float())
        self.iou = self.iou.index_copy(0, at, iou.float())
        self.answered[which] = True

    def clicks(self, i: int) -> list[Click]:
        """The clicks of one session in order."""
        count = self.counts[i]
        pairs = zip(self.point_coords[i, :count].tolist(), self.point_labels[i, :count].tolist(), strict=True)
        return [((int(x), int(y)), int(label)) for (x, y), label in pairs]

    @property
    def iou_predicted(self) -> NDArray[np.float32]:
        """The same as ``iou`` (N,) on the host, copied there once for each answer."""
        if self._predicted[0] is not self.iou:
            self._predicted = self.iou, self.iou.cpu().numpy()
        return self._predicted[1]

    @property
    def probabilities(self) -> th.Tensor:
        """(N, 4h, 4w) in the frame: the mask's probability, 0.5 everywhere before the first answer."""
        return pooled(self.logits.sigmoid(), 4 * self.segmenter.embedding_shape[1])

    def in_image(self, which: Rows | None = None) -> list[th.Tensor]:
        """The last answers' logits in their images, each (H, W); images of one size are brought there together."""
        rows = np.arange(len(self)) if which is None else which
        return in_images(self.segmenter, self.logits[self._at(rows)], self.sizes[rows])

    def masks(self, which: Rows | None = None) -> list[NDArray[np.bool_]]:
        """The masks (H, W) of some sessions, or of all, in their images; empty before the first answer."""
        return [(logits > 0).cpu().numpy() for logits in self.in_image(which)]


def in_images(segmenter: PromptableSegmenter, maps: th.Tensor, sizes: NDArray[np.int64]) -> list[th.Tensor]:
    """Maps (K, m, m) of the frame in their images of sizes (K, 2), each (H, W). Those of one size are resized together."""
    out: list[th.Tensor] = [th.empty(0)] * len(sizes)
    for size in {tuple(s) for s in sizes.tolist()}:
        places = np.flatnonzero((sizes == size).all(1))
        full = segmenter.postprocess(maps[on_device(places, maps.device)], size)
        for place, one in zip(places, full, strict=True):
            out[int(place)] = one
    return out


def open_sessions(
    segmenter: PromptableSegmenter, images: Sequence[NDArray[np.uint8]], remembers: bool = False
) -> ClickSessions:
    """Encode images (H_i, W_i, 3) and begin a session on each.

    >>> import numpy as np
    >>> from alignsam_sb3.segmenters import load_segmenter
    >>> sessions = open_sessions(load_segmenter("tiny"), [np.zeros((60, 80, 3), np.uint8)])
    >>> sessions.click(np.array([0]), np.array([[[40, 30]]]), np.array([[1]]))
    >>> sessions.masks()[0].shape
    (60, 80)
    """
    sessions = ClickSessions(segmenter, len(images), remembers)
    sizes = np.array([image.shape[:2] for image in images], np.int64)
    sessions.start(np.arange(len(images)), segmenter.encode(images), sizes)
    return sessions
