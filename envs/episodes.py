"""ClickEpisodes: N click sessions with the rules of a task: what may be clicked, what is seen. No truth, no reward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch as th
from alignsam_sb3.envs.actions import CLICK, DONE, REMOVE, ClickActions
from alignsam_sb3.envs.labels import pair_of_map, restrict
from alignsam_sb3.envs.spaces import observation_space
from numpy.typing import NDArray

from alignsam_sb3.arrays import on_device
from alignsam_sb3.boxes import Box
from alignsam_sb3.clickers import Click
from alignsam_sb3.frame import CellGrid
from alignsam_sb3.recalibration import Recalibration
from alignsam_sb3.segmenters import PromptableSegmenter
from alignsam_sb3.session import ClickSessions
from alignsam_sb3.task import Task

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Plan:
    """What one action in each of N episodes means.

    :param acts: (N,) whether the episode acts at all
    :param invalid: (N,) whether its action is one that the mask forbids: it changes nothing, but uses the step up
    :param clicks: (N,) whether it clicks, ...
    :param cells: (N,) in which cell, and ...
    :param labels: (N,) with which label
    :param removes: (N,) whether it takes the last click back
    :param stops: (N,) whether it ends the episode
    """

    acts: Flags
    invalid: Flags
    clicks: Flags
    cells: Rows
    labels: Rows
    removes: Flags
    stops: Flags


class ClickEpisodes:
    """N episodes of a task. They share one segmenter, which answers all of them in one call.

    :param task: what an agent may do
    :param segmenter: answers the clicks
    :param n_categories: from which targets come
    :param n: number of episodes
    """

    def __init__(self, task: Task, segmenter: PromptableSegmenter, n_categories: int, n: int) -> None:
        self.task, self.n, self.segmenter = task, n, segmenter
        self.grid = CellGrid(segmenter.frame, task.patches)
        self.actions = ClickActions(self.grid, task.remove, task.done, task.absent > 0)
        self.sessions = ClickSessions(segmenter, n, remembers=task.remove)
        self.recalibration: Recalibration | None = None
        self.categories, self.num_steps = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.action_mask = np.zeros((n, self.actions.n), np.int8)
        cells = self.grid.n_cells
        self._used = np.zeros((n, cells), np.int16)
        self._on_image, self._centres = np.zeros((n, cells), bool), np.zeros((n, cells, 2), np.int64)
        self.foreground = th.full((n, *segmenter.embedding_shape[1:]), 0.5, device=segmenter.device)
        self.observation_space = observation_space(segmenter, n_categories, task, self.actions.n)
        self._names = list(self.observation_space.spaces)
        self._constants: dict[str, th.Tensor] = {}

    def start(
        self,
        which: Rows,
        features: Mapping[str, th.Tensor],
        constants: Mapping[str, th.Tensor],
        sizes: NDArray[np.int64],
        categories: Rows,
    ) -> None:
        """Begin anew with other images and targets, before any first box or pair.

        :param which: (K,) episodes
        :param features: what the segmenter says of the K images
        :param constants: ``image`` and, where there is a language prior, its maps in the frame, each (K, ...)
        :param sizes: (K, 2) height and width of the images in pixels
        :param categories: (K,) targets
        """
        self.sessions.start(which, features, sizes)
        for name, new in constants.items():
            self._constants[name] = replaced(self._constants.get(name), which, new, self.n)
        for i, (height, width) in zip(which, sizes, strict=True):
            size = (int(height), int(width))
            self._on_image[i], self._centres[i] = self.grid.on_image(size), self.grid.centres(size)
        self.categories[which], self.num_steps[which], self._used[which] = categories, 0, 0
        self.foreground = self.foreground.index_fill(0, on_device(which, self.foreground.device), 0.5)

    def draw_boxes(self, which: Rows, boxes: Sequence[Box | None]) -> Rows:
        """Give some episodes a first box; (K,) those that have one."""
        drawn = np.array([k for k, box in enumerate(boxes) if box is not None], np.int64)
        if len(drawn):
            self.sessions.draw_box(which[drawn], np.array([boxes[k] for k in drawn], np.float32))
        return which[drawn]

    def pairs_of_maps(self, which: Rows) -> list[list[Click]]:
        """First pairs of clicks where the recalibration module's map is highest and lowest; none without a module."""
        if self.recalibration is None:
            return [[] for _ in which]
        self._draw_foreground()
        maps = self.foreground.cpu().numpy()
        return [pair_of_map(maps[i], self.grid, self.size(int(i))) for i in which]

    def plan(self, actions: NDArray[np.integer], acting: Flags | None = None) -> Plan:
        """What an action in each episode means, or in those that are ``acting`` (N,); nothing happens yet.

        :raises ValueError: there is no such action
        """
        acts = np.ones(self.n, bool) if acting is None else acting
        chosen = np.where(acts, np.asarray(actions, np.int64), 0)
        kinds = self.actions.kinds(chosen)
        allowed = acts & (self.action_mask[np.arange(self.n), chosen] > 0)
        clicks, removes, stops = (allowed & (kinds == kind) for kind in (CLICK, REMOVE, DONE))
        return Plan(acts, acts & ~allowed, clicks, self.actions.cells(chosen), self.actions.labels(chosen), removes, stops)

    def carry_out(self, plan: Plan) -> Rows:
        """Do it; (K,) the episodes whose masks have changed."""
        clicks, taken_back = np.flatnonzero(plan.clicks), np.flatnonzero(plan.removes)
        if len(clicks):
            cells = plan.cells[clicks]
            coords = self._centres[clicks, cells]
            self.sessions.click(clicks, coords[:, None].astype(np.float32), plan.labels[clicks, None])
            self._used[clicks, cells] += 1
        made = [self.sessions.clicks(int(i)) for i in taken_back]
        if len(taken_back):
            self.sessions.undo(taken_back)
        for i, before in zip(taken_back, made, strict=True):  # several, where they were placed together
            for place, _ in before[self.sessions.counts[i] :]:
                self._used[i, self.grid.cell_at(place, self.size(int(i)))] -= 1
        self.num_steps += plan.acts
        return np.flatnonzero(plan.clicks | plan.removes)

    def over(self, plan: Plan) -> Flags:
        """(N,) which episodes have ended with it."""
        return (self.num_steps >= self.task.max_steps) | plan.stops

    def place(self, which: Rows, clicks: Sequence[Sequence[Click]]) -> None:
        """Make clicks at any pixels of some episodes, for people, baselines and first pairs; they count as no step.

        :raises ValueError: a point lies outside its image, or a label is neither 0 nor 1
        """
        for i, made in zip(which, clicks, strict=True):
            for point, label in made:
                self._used[i, self.actions.at(point, label, self.size(int(i))) % self.grid.n_cells] += 1
        if len(which):
            self.sessions.click_each(which, clicks)

    def place_pairs(self, which: Rows, pairs: Sequence[Sequence[Click]]) -> None:
        """Make first pairs of clicks in those of some episodes that have one."""
        made = [k for k, pair in enumerate(pairs) if pair]
        self.place(which[made], [pairs[k] for k in made])

    def refresh(self) -> None:
        """Draw the recalibration module's maps, and say what may be done next."""
        if self.task.wants_srm:
            self._draw_foreground()
        mask = self.actions.mask(self._on_image, self._used > 0, self.sessions.counts > 0)
        foreground = self.foreground.cpu().numpy() if self.task.labels == "srm" else None
        self.action_mask = restrict(mask, self.task.labels, foreground, self.grid, self.sessions.sizes)

    def _draw_foreground(self) -> None:
        if self.recalibration is not None:
            self.foreground = self.recalibration.foreground(self._values())

    def _values(self) -> dict[str, th.Tensor]:
        device = self.sessions.logits.device
        values = {
            "target_category": on_device(self.categories.copy(), device),
            "sam_image_embeddings": self.sessions.features["embeddings"],
            "sam_pred_mask_prob": self.sessions.probabilities,
            "num_steps": on_device(self.num_steps.astype(np.float32)[:, None], device),
        }
        return values | self._constants

    def observe(self) -> dict[str, th.Tensor]:
        """What agents see, (N, ...) tensors on the segmenter's device; none of them is ever written to afterwards."""
        values = self._values()
        values["foreground_map"] = self.foreground
        values["action_mask"] = on_device(self.action_mask, self.sessions.logits.device)
        return {name: values[name] for name in self._names}

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of an episode's image in pixels."""
        height, width = self.sessions.sizes[i]
        return int(height), int(width)


def replaced(old: th.Tensor | None, which: Rows, new: th.Tensor, n: int) -> th.Tensor:
    """A new tensor (n, ...) with other rows at ``which``; the old one stays as it is."""
    if old is None:
        old = th.zeros((n, *new.shape[1:]), dtype=new.dtype, device=new.device)
    return old.index_copy(0, on_device(which, old.device), new)
