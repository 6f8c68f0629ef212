"""One protocol, one table: the agent beside random clicks, CLIP points without learning, one centre click and the oracle.

python -m alignsam_sb3.evaluation --policy X.zip --env SamSeg-v0 --episodes 200 --seed 0 --out results
"""

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
from alignsam_sb3.evaluation.protocol import CHUNK, Row, draw_episodes, evaluate, number_of_clicks, play
from alignsam_sb3.evaluation.report import table, versions, write_report, write_targets

__all__ = [
    "CHUNK",
    "Move",
    "Player",
    "Row",
    "agent_player",
    "all_players",
    "centre_player",
    "clip_points_player",
    "clip_top_player",
    "draw_episodes",
    "evaluate",
    "number_of_clicks",
    "oracle_player",
    "play",
    "random_player",
    "table",
    "versions",
    "write_report",
    "write_targets",
]
