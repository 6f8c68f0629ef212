"""Who plays the episodes of an evaluation. Only centre and oracle look at the truth: they say what the segmenter could do."""

from collections.abc import Callable, Sequence

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm

from alignsam_sb3.boxes import map_box, truth_box
from alignsam_sb3.clickers import Click, centre_click, oracle_click
from alignsam_sb3.envs.batch import ClickBatch, Observation
from alignsam_sb3.semantics import similarity_map_to_points, top_point

Move = int | list[Click] | None
"""An action of the action space, clicks at pixels, or None to leave the episode as it is."""
Player = Callable[[ClickBatch, Observation, int], Sequence[Move]]
"""Given N episodes, their observations and the number of turns played, a move for each."""


def agent_player(model: BaseAlgorithm) -> Player:
    """A trained policy, acting greedily on observations."""

    def play(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
        actions, _ = model.predict(observations, deterministic=True)
        return [int(a) for a in actions]

    return play


def random_player(seed: int) -> Player:
    """Uniform over the actions that are allowed."""
    rng = np.random.default_rng(seed)

    def play(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
        return [int(rng.choice(np.flatnonzero(mask))) for mask in batch.action_mask]

    return play


def centre_player(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
    """One positive click at the innermost pixel of the target, and no more; none where it is absent."""
    if turn:
        return [None] * batch.n
    targets = [batch.sample(i).target(int(batch.categories[i])) for i in range(batch.n)]
    return [None if absent else [centre_click(t)] for t, absent in zip(targets, batch.absent, strict=True)]


def oracle_player(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
    """The centre of the largest error region, any pixel; nothing where the target is absent."""
    moves: list[Move] = []
    for i, mask in enumerate(batch.sessions.masks()):
        if batch.absent[i]:
            moves.append(None)
            continue
        sample, category = batch.sample(i), int(batch.categories[i])
        valid = sample.valid_for(category)
        judged = None if not batch.sessions.answered[i] else mask if valid is None else mask & valid
        clicked = [place for place, _ in batch.sessions.clicks(i)]
        moves.append([oracle_click(sample.target(category), judged, clicked)])
    return moves


def truth_box_player(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
    """A box tightly around the target, and no more."""
    if turn == 0:
        boxes = [truth_box(batch.sample(i).target(int(batch.categories[i]))) for i in range(batch.n)]
        batch.draw_boxes(np.arange(batch.n), boxes)
    return [None] * batch.n


def clip_box_player(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
    """A box around what the language prior sees, and no more."""
    if turn == 0:
        batch.draw_boxes(np.arange(batch.n), [map_box(batch.similarity_map(i), batch.size(i)) for i in range(batch.n)])
    return [None] * batch.n


def clip_top_player(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
    """One positive click where the language prior sees the target most, and no more."""
    if turn:
        return [None] * batch.n
    return [[top_point(batch.similarity_map(i), batch.size(i))] for i in range(batch.n)]


def clip_points_player(batch: ClickBatch, observations: Observation, turn: int) -> list[Move]:
    """CLIP Surgery's own points, positive and negative, all in one turn (at least the top one)."""
    if turn:
        return [None] * batch.n
    maps = [(batch.similarity_map(i), batch.size(i)) for i in range(batch.n)]
    return [similarity_map_to_points(seen, size) or [top_point(seen, size)] for seen, size in maps]


def all_players(model: BaseAlgorithm, seed: int, batch: ClickBatch) -> dict[str, Player]:
    """The rows of a report, in their order; boxes where the segmenter has learned what they mean."""
    clip: dict[str, Player] = {}
    box: dict[str, Player] = {}
    if batch.shared.language is not None:
        clip = {"CLIP top": clip_top_player, "CLIP points": clip_points_player}
    if batch.segmenter.learned_boxes:
        box = {"box (sees the truth)": truth_box_player}
        clip |= {"CLIP box": clip_box_player} if clip else {}
    return {
        "random": random_player(seed),
        **clip,
        "centre": centre_player,
        **box,
        "oracle": oracle_player,
        "agent": agent_player(model),
    }
