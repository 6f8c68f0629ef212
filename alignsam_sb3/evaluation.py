"""One protocol, one table: the agent beside random clicks, CLIP points without learning, one centre click and the oracle.

python -m alignsam_sb3.evaluation --policy X.zip --env SamSeg-v0 --episodes 200 --seed 0 --out results

All players play the same episodes, drawn from the seed on the evaluation split. The agent sees observations only, CLIP points
the similarity map of the target; the centre click and the oracle look at the truth, and say what the segmenter could do.
"""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from alignsam_sb3 import metrics
from alignsam_sb3.clickers import Click, centre_click, oracle_click
from alignsam_sb3.envs.episode import decode_jobs
from alignsam_sb3.envs.labels import held_out
from alignsam_sb3.envs.sam_seg import Move, Observation, SamSegEnv
from alignsam_sb3.pictures import GREEN, Picture, caption, panel, save_picture, stack
from alignsam_sb3.policies import load_policy, read_recipe, share_srm
from alignsam_sb3.semantics import similarity_map_to_points, top_point

Action = Move | None
Player = Callable[[list[SamSegEnv], list[Observation], int], list[Action]]
"""Given environments, their observations and the number of clicks made, an action for each; None is to leave it as it is."""

CHUNK = 32  # episodes played at a time
PICTURES = 12  # episodes with an overlay
SHEET_ROWS = 5  # episodes in episodes.png
TARGET_ROWS, TARGET_COLUMNS = 4, 3  # images and targets in targets.png
VERSIONED = ("alignsam_sb3", "torch", "stable_baselines3", "sb3_contrib", "gymnasium", "segment_anything", "numpy")


def agent_player(model: BaseAlgorithm) -> Player:
    """A trained policy, acting greedily on observations."""

    def play(envs: list[SamSegEnv], observations: list[Observation], turn: int) -> list[Action]:
        batch = {key: np.stack([o[key] for o in observations]) for key in observations[0]}
        actions, _ = model.predict(batch, deterministic=True)
        return [int(a) for a in actions]

    return play


def random_player(seed: int) -> Player:
    """Uniform over the actions that are allowed."""
    rng = np.random.default_rng(seed)

    def play(envs: list[SamSegEnv], observations: list[Observation], turn: int) -> list[Action]:
        return [int(rng.choice(np.flatnonzero(o["action_mask"]))) for o in observations]

    return play


def centre_player(envs: list[SamSegEnv], observations: list[Observation], turn: int) -> list[Action]:
    """One positive click at the innermost pixel of the target, and no more."""
    return [centre_click(env.target) if turn == 0 else None for env in envs]


def oracle_player(envs: list[SamSegEnv], observations: list[Observation], turn: int) -> list[Action]:
    """The centre of the largest error region, any pixel."""
    return [oracle_click(env.target, env.judged_mask if env.clicks else None) for env in envs]


def clip_top_player(envs: list[SamSegEnv], observations: list[Observation], turn: int) -> list[Action]:
    """One positive click where the language prior sees the target most, and no more."""
    return [top_point(env.similarity_map, env.image_size) if turn == 0 else None for env in envs]


def clip_points_player(envs: list[SamSegEnv], observations: list[Observation], turn: int) -> list[Action]:
    """CLIP Surgery's own points, positive and negative, all in one step (at least the top one)."""
    return [_surgery_points(env) if turn == 0 else None for env in envs]


def _surgery_points(env: SamSegEnv) -> list[Click]:
    return similarity_map_to_points(env.similarity_map, env.image_size) or [top_point(env.similarity_map, env.image_size)]


@dataclass
class Row:
    """One player's results.

    :param distinct: how many of the episodes are different (image, category) pairs
    :param scores: for each metric (episodes, clicks), the value after each click
    :param image_ids: for each episode the name of its image
    :param clicks: for each episode the clicks in order
    :param masks: the final masks of the first ``PICTURES`` episodes
    """

    distinct: int
    scores: dict[str, NDArray[np.float64]]
    image_ids: list[str] = field(default_factory=list)
    clicks: list[list[Click]] = field(default_factory=list)
    masks: list[NDArray[np.bool_]] = field(default_factory=list)

    def mean(self, metric: str) -> list[float]:
        """Mean over episodes after each click."""
        means: list[float] = self.scores[metric].mean(0).tolist()
        return means

    def interval(self, metric: str) -> list[float]:
        """Half the width of the 95 % interval of that mean (normal approximation over distinct episodes)."""
        values = self.scores[metric]
        half: list[float] = (1.96 * values.std(0, ddof=min(1, len(values) - 1)) / np.sqrt(self.distinct)).tolist()
        return half


def play(player: Player, envs: list[SamSegEnv], episodes: list[tuple[int, int]]) -> Row:
    """Let a player play episodes (image index, category id), a batch at a time with one decoder call per turn."""
    turns = envs[0].max_steps
    judges = dict(metrics.METRICS)
    scored = ["score"] if envs[0].scorer is not None else []
    row = Row(len(set(episodes)), {name: np.zeros((len(episodes), turns)) for name in (*judges, *scored)})
    for start in range(0, len(episodes), len(envs)):
        group = episodes[start : start + len(envs)]
        active = envs[: len(group)]
        started = [
            env.reset(options={"image_index": image, "category_id": category})
            for env, (image, category) in zip(active, group, strict=True)
        ]
        observations = [observation for observation, _ in started]
        row.image_ids += [info["image_id"] for _, info in started]
        over = [False] * len(active)
        for turn in range(turns):
            actions = player(active, observations, turn)
            moves = [None if stopped else action for stopped, action in zip(over, actions, strict=True)]
            for i, result in _step(active, moves).items():
                observations[i], over[i] = result
            for i, env in enumerate(active):
                for name, metric in judges.items():
                    row.scores[name][start + i, turn] = metric(env.mask, env.target, env.valid)
                for name in scored:
                    row.scores[name][start + i, turn] = env.score
        row.clicks += [list(env.clicks) for env in active]
        row.masks += [env.mask for env in active[: PICTURES - len(row.masks)]]
    return row


def _step(envs: list[SamSegEnv], actions: list[Action]) -> dict[int, tuple[Observation, bool]]:
    """Step the environments that have an action, with one decoder call; observation and whether it is over, by place."""
    jobs = {i: env.plan(a) for i, (env, a) in enumerate(zip(envs, actions, strict=True)) if a is not None}
    asked = {i: job for i, job in jobs.items() if job is not None}
    if asked:
        for i, answer in zip(asked, decode_jobs(envs[0].segmenter, list(asked.values()), envs[0].scorer), strict=True):
            envs[i].supply(answer)
    results = {}
    for i, action in enumerate(actions):
        if action is not None:
            observation, _, terminated, truncated, _ = envs[i].step(action)
            results[i] = (observation, terminated or truncated)
    return results


def draw_episodes(
    images_by_category: Sequence[NDArray[np.int64]], count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw (image index, category id), the categories in turn, no image of a category again before all were drawn."""
    if count < 1:
        raise ValueError(f"episodes must be at least 1, got {count}")
    shown = [c for c, images in enumerate(images_by_category) if len(images)]
    orders = {c: rng.permutation(images_by_category[c]) for c in shown}
    return [(int(orders[c][(i // len(shown)) % len(orders[c])]), c) for i in range(count) for c in [shown[i % len(shown)]]]


def evaluate(
    players: Mapping[str, Player], make_env: Callable[[], SamSegEnv], episodes: int, seed: int
) -> tuple[dict[str, Row], list[tuple[int, int]], SamSegEnv]:
    """Let every player play the same episodes.

    :param make_env: makes environments on the evaluation split
    :return: a row per player, the episodes (image index, category id), and an environment to look them up in
    """
    envs = [make_env() for _ in range(min(CHUNK, max(episodes, 1)))]
    drawn = draw_episodes(envs[0].shared.images_by_category, episodes, np.random.default_rng(seed))
    return {name: play(player, envs, drawn) for name, player in players.items()}, drawn, envs[0]


def table(rows: Mapping[str, Row]) -> str:
    """A Markdown table: all metrics (and a reward network's score) after the last click, and Dice after each click."""
    some = next(iter(rows.values()))
    turns, measured = some.scores["dice"].shape[1], list(some.scores)
    head = ["", *measured, *(f"Dice@{k + 1}" for k in range(turns))]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in rows.items():
        last = [f"{row.mean(m)[-1]:.3f} ± {row.interval(m)[-1]:.3f}" for m in measured]
        lines.append("| " + " | ".join([name, *last, *(f"{value:.3f}" for value in row.mean("dice"))]) + " |")
    return "\n".join(lines)


def number_of_clicks(row: Row) -> dict[str, float]:
    """NoC@80, 85, 90 and 95 with the episodes' number of clicks (20 in the field) as the cap, and the failures."""
    count = metrics.NoC(cap=row.scores["iou"].shape[1])
    for ious in row.scores["iou"]:
        count.update(ious.tolist())
    return {name: float(value) for name, value in count.compute().items()} | {"cap": count.cap}


def write_report(
    out: Path,
    rows: Mapping[str, Row],
    episodes: list[tuple[int, int]],
    env: SamSegEnv,
    described: Mapping[str, Any],
) -> None:
    """Write ``results.json``, ``table.md``, ``clicks.jsonl``, overlays and the sheet ``episodes.png`` to a folder."""
    out.mkdir(parents=True, exist_ok=True)
    numbers = {
        name: {m: row.mean(m) for m in row.scores} | {f"{m}_ci95": row.interval(m) for m in row.scores}
        for name, row in rows.items()
    }
    most = next(iter(rows.values())).scores["iou"].shape[1] + 2 * env.initial_pair
    one_by_one = {name: row for name, row in rows.items() if max(map(len, row.clicks)) <= most}  # not all points at once
    clicks_needed = {name: number_of_clicks(row) for name, row in one_by_one.items()}
    (out / "results.json").write_text(json.dumps({"rows": numbers, "NoC": clicks_needed, **described}, indent=2))
    (out / "table.md").write_text(table(rows) + "\n")
    with (out / "clicks.jsonl").open("w") as lines:
        for i, (_, category) in enumerate(episodes):
            for name, row in rows.items():
                record = {
                    "episode": i,
                    "player": name,
                    "image_id": row.image_ids[i],
                    "category": env.shared.dataset.categories[category],
                    "point_coords": [c[0] for c in row.clicks[i]],
                    "point_labels": [c[1] for c in row.clicks[i]],
                    "dice": row.scores["dice"][i].round(4).tolist(),
                    "iou": row.scores["iou"][i].round(4).tolist(),
                }
                lines.write(json.dumps(record) + "\n")
    shown = [_comparison(i, rows, episodes[i], env) for i in range(min(PICTURES, len(episodes)))]
    for i, picture in enumerate(shown):
        save_picture(picture, out / "overlays" / f"{i:04d}.png")
    save_picture(stack(shown[:SHEET_ROWS]), out / "episodes.png")


def _comparison(i: int, rows: Mapping[str, Row], episode: tuple[int, int], env: SamSegEnv) -> Picture:
    """Truth and every player's final mask with its clicks, next to each other."""
    sample = env.shared.dataset[episode[0]]
    panels = [caption(panel(sample.image, sample.target(episode[1]), (), 224, GREEN), "truth")]
    for name, row in rows.items():
        text = f"{name}: Dice {row.scores['dice'][i, -1]:.3f}"
        panels.append(caption(panel(sample.image, row.masks[i], row.clicks[i], 224), text))
    return np.concatenate(panels, axis=1)


def target_pairs(images_by_category: Sequence[NDArray[np.int64]]) -> list[list[tuple[int, int]]]:
    """For the first images that show several categories, an episode (image index, category id) for each."""
    shown: dict[int, list[tuple[int, int]]] = {}
    for category, images in enumerate(images_by_category):
        for image in images:
            shown.setdefault(int(image), []).append((int(image), category))
    return [shown[i][:TARGET_COLUMNS] for i in sorted(shown) if len(shown[i]) > 1][:TARGET_ROWS]


def write_targets(path: Path, agent: Player, env: SamSegEnv) -> None:
    """Draw the same images with one target after the other: the mask should move. Nothing where no image has two."""
    path.unlink(missing_ok=True)
    rows = []
    for episodes in target_pairs(env.shared.images_by_category):
        row = play(agent, [env], episodes)
        image = env.shared.dataset[episodes[0][0]].image
        panels = [caption(panel(image, None, (), 224), "photo")]
        for (_, category), mask, clicks in zip(episodes, row.masks, row.clicks, strict=True):
            panels.append(caption(panel(image, mask, clicks, 224), env.shared.dataset.categories[category]))
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


def main(argv: list[str] | None = None) -> None:
    """Command line: evaluate a saved policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True, help="a .zip that scripts/train.py saved")
    parser.add_argument("--env", default="SamSeg-v0")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--dataset", help="another data set than the policy's own, by spec string")
    parser.add_argument("--segmenter", help="another checkpoint of the policy's segmenter, by spec string")
    parser.add_argument("--clip", help="another language prior than the policy's own, by spec string")
    parser.add_argument("--reward-network", help="score the masks with this one, and say how far from Dice that is; or none")
    parser.add_argument("--prompts", type=json.loads, help="phrases for categories, as JSON")
    parser.add_argument("--categories", nargs="+", help="names to keep")
    parser.add_argument("--dataset-kwargs", type=json.loads, help="options of the data set, as JSON")
    parser.add_argument("--trust", action="store_true", help="unpickle the policy: only for a file whose origin you trust")
    args = parser.parse_args(argv)
    recipe = read_recipe(args.policy, args.trust)
    settings = dict(recipe["env"])
    settings |= {key: value for key in ("dataset", "segmenter", "clip", "reward_network") if (value := getattr(args, key))}
    settings |= {key: None for key in ("clip", "reward_network") if settings.get(key) == "none"}
    settings.pop("reward", None)
    if str(settings.get("dataset", "")).startswith("images:"):
        raise SystemExit(
            f"{settings['dataset']} has no ground truth to evaluate on: name labelled images of that concept with --dataset"
        )
    if args.prompts is not None or args.dataset or args.categories:  # phrases belong to the categories they were written for
        settings["prompts"] = args.prompts or {}
    if args.dataset or args.dataset_kwargs:
        settings["dataset_kwargs"] = args.dataset_kwargs or {}
    if args.categories:
        settings["dataset_kwargs"] = {**settings.get("dataset_kwargs", {}), "categories": args.categories}

    def make_env() -> SamSegEnv:
        env = gym.make(args.env, **held_out(settings)).unwrapped
        if not isinstance(env, SamSegEnv):
            raise TypeError(f"{args.env} is no SamSeg environment")
        return env

    first = make_env()
    data = first.shared.dataset.fingerprint
    if data == recipe["trained_on"]:
        raise SystemExit(
            f"{args.policy} was trained on these very images ({data}): an evaluation on them says nothing. "
            "Name another split, or none, with --dataset"
        )
    model = load_policy(args.policy, DummyVecEnv([make_env]), args.trust)

    def prepared() -> SamSegEnv:
        env = make_env()
        share_srm(model, env)
        return env

    players: dict[str, Player] = {
        "random": random_player(args.seed),
        **({"CLIP top": clip_top_player, "CLIP points": clip_points_player} if first.shared.language else {}),
        "centre": centre_player,
        "oracle": oracle_player,
        "agent": agent_player(model),
    }
    th.manual_seed(args.seed)
    rows, episodes, env = evaluate(players, prepared, args.episodes, args.seed)
    distinct = len(set(episodes))
    described = {
        "distinct_episodes": distinct,
        "env": {**first.settings, "split": "eval"},
        "data": data,
        "episodes": args.episodes,
        "seed": args.seed,
        "policy": str(args.policy),
        "command": " ".join(sys.orig_argv) if argv is None else argv,
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_report(args.out, rows, episodes, env, described)
    write_targets(args.out / "targets.png", players["agent"], env)
    print(f"{args.episodes} episodes ({distinct} distinct) on {data}, seed {args.seed}")
    print("Means after the last click ± 95 % interval; then Dice after each click")
    print(table(rows))
    print(f"Written to {args.out}: results.json, table.md, clicks.jsonl, episodes.png, overlays/ (and targets.png)")


if __name__ == "__main__":
    main()
