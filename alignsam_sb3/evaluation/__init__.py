"""One protocol, one table: the agent beside random clicks, CLIP points without learning, one centre click, the oracle and
rivals that learn from the same labelled images.

python -m alignsam_sb3.evaluation --policy X.zip --env SamSeg-v0 --episodes 200 --seed 0 --out results
"""

from alignsam_sb3.evaluation.answers import Answer, best_by, grab_cut, last
from alignsam_sb3.evaluation.players import (
    Move,
    Player,
    agent_player,
    all_players,
    centre_player,
    clip_points_player,
    clip_top_player,
    oracle_player,
    random_player,
)
from alignsam_sb3.evaluation.protocol import CHUNK, Row, draw_episodes, evaluate, number_of_clicks, play, play_answers
from alignsam_sb3.evaluation.report import table, versions, write_report, write_targets
from alignsam_sb3.evaluation.rivals import RIVALS, Rival, all_rows, fit_rivals, labelled_pairs, rivals_of

__all__ = [
    "CHUNK",
    "RIVALS",
    "Answer",
    "Move",
    "Player",
    "Rival",
    "Row",
    "agent_player",
    "all_players",
    "all_rows",
    "best_by",
    "centre_player",
    "clip_points_player",
    "clip_top_player",
    "draw_episodes",
    "evaluate",
    "fit_rivals",
    "grab_cut",
    "labelled_pairs",
    "last",
    "number_of_clicks",
    "oracle_player",
    "play",
    "play_answers",
    "random_player",
    "rivals_of",
    "table",
    "versions",
    "write_report",
    "write_targets",
]
