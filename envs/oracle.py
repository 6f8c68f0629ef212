"""What the greedy oracle would do on the click grid; it looks at the truth, for warm starts in training."""

import numpy as np
from alignsam_sb3.envs.episode import Episode
from alignsam_sb3.envs.grid import ClickGrid
from numpy.typing import NDArray

from alignsam_sb3.clickers import error_depths, oracle_click

PREFERENCE_SHARPNESS = 2  # 4 and 12 imitate worse: a click beside the best one is nearly as good


def oracle_action(
    episode: Episode, grid: ClickGrid, allowed: NDArray[np.int8], mask: NDArray[np.bool_], labels: str = "agent"
) -> int:
    """The allowed action nearest to the greedy oracle's click.

    :param allowed: (n_actions,) the action mask
    :param mask: (H, W) the current mask, as it is judged
    :param labels: who labels the clicks; where the truth does, a position alone is chosen
    """
    (x, y), label = oracle_click(episode.truth, mask if episode.clicks else None)
    offered = np.flatnonzero(allowed[: 2 * grid.n_cells])
    mine = offered[(offered < grid.n_cells) == (bool(label) or labels == "oracle-train-only")]
    candidates = mine if len(mine) else offered
    places = np.array([grid.click(int(action), episode.sample.size)[0] for action in candidates])
    return int(candidates[np.square(places - [x, y]).sum(1).argmin()])


def oracle_preference(
    episode: Episode, grid: ClickGrid, allowed: NDArray[np.int8], mask: NDArray[np.bool_], labels: str = "agent"
) -> NDArray[np.float32]:
    """How much the oracle would like each action, (n_actions,) adding up to 1.

    A cell is liked the more the deeper its centre lies in what the mask misses (a positive click) or wrongly takes (a
    negative one). Where no cell's centre does, all goes to :func:`oracle_action`.
    """
    liked = np.zeros(grid.n_actions, np.float32)
    depths = error_depths(episode.truth, mask if episode.clicks else None)
    positive, negative = (grid.at_centres(depth) for depth in depths)
    if labels == "oracle-train-only":  # the positive action stands for both
        positive = np.maximum(positive, negative)
    liked[: 2 * grid.n_cells] = np.concatenate([positive, negative])
    liked *= allowed
    if liked.max() < 1:
        liked[oracle_action(episode, grid, allowed, mask, labels)] = 1
    sharp = (liked / liked.max()) ** PREFERENCE_SHARPNESS
    return np.asarray(sharp / sharp.sum(), np.float32)
