"""What an evaluation leaves behind: a table, results and clicks as JSON, and pictures."""

import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from alignsam_sb3.envs.batch import ClickBatch
from alignsam_sb3.evaluation.episodes import Pair
from alignsam_sb3.evaluation.players import Player
from alignsam_sb3.evaluation.protocol import KEPT_MASKS, Row, number_of_clicks, play
from alignsam_sb3.files import write_json, write_text
from alignsam_sb3.pictures import GREEN, Picture, caption, panel, save_picture, stack

WHOLE = ("clicks.jsonl", "table.md", "targets.png", "episodes.png", "overlays", "results.json")
"""What a report consists of; the last is written last, and says that it is whole."""
SHEET_ROWS = 5  # episodes in episodes.png
PANELS = 9  # next to each other
TARGET_ROWS, TARGET_COLUMNS = 4, 3  # images and targets in targets.png
VERSIONED = ("alignsam_sb3", "torch", "stable_baselines3", "sb3_contrib", "gymnasium", "segment_anything", "numpy")


def table(rows: Mapping[str, Row]) -> str:
    """A Markdown table: all metrics (and a reward network's score) after the last click, and Dice after each click."""
    some = next(iter(rows.values()))
    turns, measured = some.scores["dice"].shape[1], list(some.scores)
    head = ["", *measured, *(f"Dice@{k + 1}" for k in range(turns))]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in rows.items():
        last = [f"{row.mean(m)[-1]:.3f} ± {row.interval(m)[-1]:.3f}" if m in row.scores else "" for m in measured]
        lines.append("| " + " | ".join([name, *last, *(f"{value:.3f}" for value in row.mean("dice"))]) + " |")
    return "\n".join(lines)


@contextmanager
def whole_report(out: Path) -> Iterator[Path]:
    """A folder to write a report to. It takes the place of an earlier one in ``out`` when it is whole, ``results.json`` last.

    A process that dies before leaves the earlier report as it was; one that dies while files change places leaves no
    ``results.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(".report.*.part"):  # of one that died
        shutil.rmtree(left, ignore_errors=True)
    part = out / f".report.{uuid4().hex}.part"
    part.mkdir()
    try:
        yield part
        for name in WHOLE[::-1]:  # results.json first: what is half of one report and half of another has none
            _remove(out / name)
        for name in WHOLE:
            if (part / name).exists():
                (part / name).replace(out / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_report(
    out: Path,
    rows: Mapping[str, Row],
    episodes: list[Pair],
    batch: ClickBatch,
    described: Mapping[str, Any],
) -> None:
    """Write ``results.json``, ``table.md``, ``clicks.jsonl``, overlays and the sheet ``episodes.png`` to a folder."""
    numbers = {
        name: {m: row.mean(m) for m in row.scores} | {f"{m}_ci95": row.interval(m) for m in row.scores}
        for name, row in rows.items()
    }
    most = next(iter(rows.values())).scores["iou"].shape[1] + 2 * batch.task.initial_pair
    one_by_one = {name: row for name, row in rows.items() if 1 <= max(map(len, row.clicks)) <= most}  # one click a turn
    clicks_needed = {name: number_of_clicks(row) for name, row in one_by_one.items()}
    lines = [
        {
            "episode": i,
            "player": name,
            "image_id": row.image_ids[i],
            "category": batch.shared.dataset.categories[category],
            "point_coords": [c[0] for c in row.clicks[i]],
            "point_labels": [c[1] for c in row.clicks[i]],
            "dice": row.scores["dice"][i].round(4).tolist(),
            "iou": row.scores["iou"][i].round(4).tolist(),
        }
        for i, (_, category) in enumerate(episodes)
        for name, row in rows.items()
    ]
    write_text(out / "clicks.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write_text(out / "table.md", table(rows) + "\n")
    shown = [_comparison(i, rows, episodes[i], batch) for i in range(min(KEPT_MASKS, len(episodes)))]
    for i, picture in enumerate(shown):
        save_picture(picture, out / "overlays" / f"{i:04d}.png")
    save_picture(stack(shown[:SHEET_ROWS]), out / "episodes.png")
    write_json(out / "results.json", {"rows": numbers, "NoC": clicks_needed, **described})  # last: the report is whole


def _comparison(i: int, rows: Mapping[str, Row], episode: Pair, batch: ClickBatch) -> Picture:
    """Truth and every player's final mask with its clicks, next to each other."""
    sample = batch.shared.sample(episode[0])
    panels = [caption(panel(sample.image, sample.target(episode[1]), (), 224, GREEN), "truth")]
    for name, row in rows.items():
        text = f"{name}: Dice {row.scores['dice'][i, -1]:.3f}"
        panels.append(caption(panel(sample.image, row.masks[i], row.clicks[i], 224), text))
    lines = -(-len(panels) // PANELS)
    each = -(-len(panels) // lines)
    return stack([np.concatenate(panels[k : k + each], axis=1) for k in range(0, len(panels), each)])


def target_pairs(images_by_category: Sequence[NDArray[np.int64]]) -> list[list[Pair]]:
    """For the first images that show several categories, an episode (image index, category id) for each."""
    shown: dict[int, list[Pair]] = {}
    for category, images in enumerate(images_by_category):
        for image in images:
            shown.setdefault(int(image), []).append((int(image), category))
    return [shown[i][:TARGET_COLUMNS] for i in sorted(shown) if len(shown[i]) > 1][:TARGET_ROWS]


def write_targets(path: Path, agent: Player, batch: ClickBatch) -> None:
    """Draw the same images with one target after the other: the mask should move. Nothing where no image has two."""
    rows = []
    for episodes in target_pairs(batch.shared.images_by_category):
        row = play(agent, batch, episodes)
        image = batch.shared.sample(episodes[0][0]).image
        panels = [caption(panel(image, None, (), 224), "photo")]
        for (_, category), mask, clicks in zip(episodes, row.masks, row.clicks, strict=True):
            panels.append(caption(panel(image, mask, clicks, 224), batch.shared.dataset.categories[category]))
        rows.append(np.concatenate(panels, axis=1))
    if rows:
        save_picture(stack(rows), path)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
