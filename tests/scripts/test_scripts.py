"""The commands of README, small, each in a process of its own as a user would run it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from alone import run_alone
from PIL import Image

from alignsam_sb3.ablation import VARIANTS
from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.policies import read_recipe

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--env-kwargs", "dataset_kwargs:{'n_images':16}", "device:'cpu'", "max_steps:3"]
WARM = "callback:[{'alignsam_sb3.callbacks.WarmStartCallback': {'steps': 8}}]"
FEW = ["-params", "n_envs:2", "n_steps:8", "batch_size:8", "n_epochs:1", WARM]


def run(*command, fails=False, how=run_alone):
    status, out, err = how(*command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    assert bool(status) == fails, out[-2000:] + err[-4000:]
    return out + err


def anew(*command, **options):
    """The same in a process that shares nothing with any other."""
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of train.py with evaluation, checkpoints and TensorBoard."""
    logs = tmp_path_factory.mktemp("logs")
    said = run(
        "scripts/train.py", "--algo", "ppo_mask", "--env", "SamSeg-v0", "-n", "64", "--log-folder", logs, "--eval-freq", "32",
        "--eval-episodes", "2", "--save-freq", "32", "--tensorboard-log", logs / "tb", "--log-interval", "1", *SMALL, *FEW,
        how=anew,
    )  # fmt: skip
    return logs, said


def test_train_logs_saves_and_films(trained):
    logs, said = trained
    folder = logs / "ppo_mask" / "SamSeg-v0_1"
    assert {"SamSeg-v0.zip", "best_model.zip", "rl_model_32_steps.zip", "rl_model_64_steps.zip"} <= {
        p.name for p in folder.iterdir()
    }
    assert list((folder / "films").glob("*.gif"))
    assert re.search(r"eval/ +\|.*\n.*best_dice", said)
    policy, evaluate, annotate = said[said.index("\nPolicy: ") :].splitlines()[1:4]
    assert policy == f"Policy: {folder / 'SamSeg-v0.zip'}"
    assert evaluate.endswith(f": alignsam evaluate --policy {folder / 'SamSeg-v0.zip'}")
    assert ": alignsam annotate PHOTOS --policy" in annotate
    assert "'split': 'eval'" in said  # the evaluation environment plays other scenes
    assert list((logs / "tb").rglob("events*"))


def test_resume_goes_on_with_steps_and_schedule(trained):
    logs, _ = trained
    checkpoint = logs / "ppo_mask" / "SamSeg-v0_1" / "rl_model_32_steps.zip"
    said = run(
        "scripts/train.py", "-n", "96", "-i", checkpoint, "--log-folder", logs / "resumed", "--eval-freq", "32", "-P",
        "--eval-episodes", "1", "--save-freq", "32", "--log-interval", "1", *FEW,
    )  # fmt: skip
    assert "'n_images': 16" in said  # the task comes with the policy
    assert "Going on from step 32 to 96" in said
    assert sorted({int(n) for n in re.findall(r"total_timesteps +\| (\d+)", said)}) == [48, 64, 80, 96]
    rates = sorted({float(r) for r in re.findall(r"learning_rate +\| ([\d.e-]+)", said)}, reverse=True)
    assert [rate / rates[0] for rate in rates[:3]] == pytest.approx([(96 - n) / 48 for n in (48, 64, 80)], rel=1e-2)
    again = logs / "resumed" / "ppo_mask" / "SamSeg-v0_1" / "rl_model_96_steps.zip"
    assert again.stat().st_size < 1.05 * checkpoint.stat().st_size
    said = run("scripts/train.py", "-n", "112", "-i", again, "-f", logs / "twice", "--eval-freq", "-1", *FEW)
    assert "Going on from step 96 to 112" in said
    said = run("scripts/train.py", "-n", "16", "-i", checkpoint, "-f", logs / "no", *FEW, fails=True)
    assert "already seen 32 steps of 16: ask for more" in said


def test_a_training_that_died_before_its_last_save_is_finished(trained, tmp_path):
    whole = trained[0] / "ppo_mask" / "SamSeg-v0_1" / "rl_model_64_steps.zip"
    alone = tmp_path / "died" / whole.name
    alone.parent.mkdir()
    alone.write_bytes(whole.read_bytes())
    said = run("scripts/train.py", "-n", "64", "-i", alone, "-f", tmp_path, "--eval-freq", "-1", *FEW)
    assert "no SamSeg-v0.zip was saved beside it: it is saved as it is" in said
    assert read_recipe(tmp_path / "ppo_mask" / "SamSeg-v0_1" / "SamSeg-v0.zip")["progress"]["num_timesteps"] == 64


def test_a_policy_begins_a_new_training_on_old_and_new_images(trained, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / "new" / name).mkdir(parents=True)
    for k in range(5):
        sample = ToyScenes("semantic", n_images=40)[20 + k]
        Image.fromarray(sample.image).save(tmp_path / "new" / "images" / f"{k}.png")
        Image.fromarray(np.uint8(sample.masks.any(0)) * 255).save(tmp_path / "new" / "masks" / f"{k}.png")
    checkpoint, new = trained[0] / "ppo_mask" / "SamSeg-v0_1" / "rl_model_32_steps.zip", f"mask_folder:{tmp_path / 'new'}"
    words = ["scripts/train.py", "-n", "16", "--dataset", new, "--eval-freq", "-1", "-f", tmp_path, *FEW]
    said = run(*words, "--from", checkpoint, "--dataset-kwargs", "category=disc")
    assert "Loading pretrained agent" in said and "Going on" not in said
    recipe = read_recipe(tmp_path / "ppo_mask" / "SamSeg-v0_1" / "SamSeg-v0.zip")
    assert recipe["env"]["dataset"] == f"toy:semantic+{new}" and recipe["trained_on"].startswith("together-20-")
    assert recipe["progress"]["num_timesteps"] == 16 and recipe["stages"] == {"warm start": [8, 8]}
    assert "no policy at none.zip" in run(*words, "--from", "none.zip", fails=True)


def test_training_and_evaluating_on_the_same_images_is_refused(trained, tmp_path):
    said = run("scripts/train.py", "--dataset", "toy:semantic:train", "-n", "16", "-f", tmp_path, *SMALL, fails=True)
    assert "would use the same images" in said
    assert not [*(tmp_path / "ppo_mask").iterdir()]  # the number of a run that saved nothing is free again
    policy = trained[0] / "ppo_mask" / "SamSeg-v0_1" / "SamSeg-v0.zip"
    command = ["-m", "alignsam_sb3.evaluation", "--policy", policy, "--out", tmp_path]
    options = '{"n_images": 16, "min_area": 0.02}'
    said = run(*command, "--dataset", "toy:semantic:train", "--dataset-kwargs", options, fails=True)
    assert "was trained on" in said


def test_enjoy_plays_evaluation_images(trained):
    logs, _ = trained
    said = run("scripts/enjoy.py", "--algo", "ppo_mask", "--env", "SamSeg-v0", "-f", logs, "--no-render", "-n", "6")
    assert "Mean reward" in said


@pytest.mark.slow
def test_optimize_samples_ours_and_leaves_no_run_folder(tmp_path):
    journal = tmp_path / "study.log"
    said = run(
        "scripts/train.py", "-optimize", "--n-trials", "2", "-n", "32", "-f", tmp_path, "--eval-episodes", "1", *SMALL,
        "--study-name", "s", "--storage", journal, "-params", "n_envs:2", WARM,
    )  # fmt: skip
    assert "Number of finished trials:  2" in said
    shown = run("scripts/studies/show_study.py", journal, "--study-name", "s", "--out", tmp_path / "study.png")
    assert "2 trials: 2 complete" in shown
    assert {"n_steps", "gamma", "learning_rate"} <= set(yaml.safe_load(shown.split("\n\n")[1]))
    assert (tmp_path / "study.png").stat().st_size > 10_000
    assert "it holds s" in run("scripts/studies/show_study.py", journal, "--study-name", "t", fails=True)
    assert "n_steps_pow" in said
    assert not [p for p in (tmp_path / "ppo_mask").iterdir() if p.is_dir() and p.name.startswith("SamSeg")]


@pytest.mark.slow
def test_the_stock_zoo_command_and_ours_train_ppo(tmp_path):
    stock = ["-m", "rl_zoo3.train", "--algo", "ppo", "--env", "SamSeg-v0", "--gym-packages", "alignsam_sb3"]
    stock += ["--conf-file", "alignsam_sb3.hyperparams.ppo", "--eval-freq", "16", "--eval-episodes", "1"]
    without = [option for option in SMALL if not option.startswith("max_steps")]
    run(*stock, "-n", "32", "-f", tmp_path / "stock", *without, *FEW)
    policy = tmp_path / "stock" / "ppo" / "SamSeg-v0_1" / "SamSeg-v0.zip"
    command = ["-m", "alignsam_sb3.evaluation", "--policy", policy, "--episodes", "2", "--out", tmp_path / "report"]
    command += ["--dataset-kwargs", '{"n_images": 16}']
    assert "pass --trust" in run(*command, fails=True)
    assert "| agent |" in run(*command, "--trust")
    run("scripts/train.py", "--algo", "ppo", "-n", "32", "-f", tmp_path / "ours", "--eval-freq", "-1", *SMALL, *FEW)
    policy = tmp_path / "ours" / "ppo" / "SamSeg-v0_1" / "SamSeg-v0.zip"
    said = run("-m", "alignsam_sb3.evaluation", "--policy", policy, "--episodes", "3", "--out", tmp_path / "report")
    assert "| agent |" in said


def test_photographs_train_with_the_same_command(tmp_path, photographs):
    said = run(
        "scripts/train.py", "--dataset", f"coco:{(photographs / 'coco_permissive').resolve()}", "--categories", "person",
        "-n", "32", "-f", tmp_path, "--eval-freq", "-1", *FEW,
    )  # fmt: skip
    assert "Saving to" in said


@pytest.mark.slow
def test_benchmark_writes_its_report(tmp_path):
    run("scripts/benchmark.py", "--quick", "--out", tmp_path)
    assert (tmp_path / "benchmark.json").is_file()
    assert (tmp_path / "benchmark.png").is_file()


@pytest.mark.slow
def test_the_prior_is_chosen_on_the_command_line_and_debug_maps_are_filmed(tmp_path):
    few = ["-n", "16", "--eval-freq", "-1", *SMALL, *FEW]
    said = run("scripts/train.py", "-f", tmp_path / "told", "--debug-maps", *few)
    assert "'clip': 'tiny'" in said
    film = Image.open(next((tmp_path / "told").rglob("films/*.png")))
    assert film.width == 5 * 256  # photo, truth, prediction, belief, similarity
    said = run(
        "scripts/train.py", "--env", "SamSegImplicit-v0", "--dataset", "toy:semantic", "--clip", "none", "-f", tmp_path / "no",
        *few,
    )  # fmt: skip
    assert "'clip': None" in said
    assert "ImplicitMaskablePolicy" in said
    assert "unknown weights" in run("scripts/train.py", "--clip", "ViT-B-16-quickgelu:opeai", "-f", tmp_path, *few, fails=True)


@pytest.mark.slow
def test_tiny_clip_fits_resumes_and_is_measured(tmp_path):
    few = ["--steps", "3", "--scenes", "8", "--batch", "2", "--statements", "4", "--save-every", "2", "--out", tmp_path]
    run("scripts/assets/fit_tiny_clip.py", *few)
    assert json.loads((tmp_path / "fit.json").read_text())["args"]["steps"] == "3"
    assert "going on from step 3" in run("scripts/assets/fit_tiny_clip.py", *few)
    assert "was begun with" in run("scripts/assets/fit_tiny_clip.py", *few, "--seed", "1", fails=True)
    said = run("scripts/assets/measure_clip.py", "--clip", f"tiny:{tmp_path / 'tiny_clip.safetensors'}", "--scenes", "12")
    assert 0 <= json.JSONDecoder().raw_decode(said[said.index("{\n") :])[0]["presence_map"] <= 1


def test_seeds_are_summarised(tmp_path):
    for seed, dice in ((0, 0.8), (1, 0.9)):
        rows = {"oracle": {"dice": [1.0], "iou": [1.0]}, "agent": {"dice": [dice], "iou": [dice]}}
        rows["CLIP points"] = {"dice": [0.7], "iou": [0.7]}
        (tmp_path / f"{seed}.json").write_text(json.dumps({"rows": rows, "seed": seed, "episodes": 5, "env": {}}))
    said = run("scripts/studies/summarise.py", tmp_path / "0.json", tmp_path / "1.json")
    assert "| agent | 0.850 ± 0.635 |" in said  # t(1, 0.975) = 12.71
    assert "agent minus CLIP points, Dice after the last click: +0.150 ± 0.635" in said


@pytest.mark.slow
def test_a_trained_agent_follows_the_word(tmp_path):
    """Trained for a few minutes: on images never trained on, each word's mask lies on that word's objects."""
    run("scripts/train.py", "-n", "2048", "-f", tmp_path, "--eval-freq", "-1")
    zips = tmp_path / "ppo_mask" / "SamSeg-v0_1" / "SamSeg-v0.zip"
    own, crossed = own_and_crossed(zips)
    assert own > 0.75
    assert own > 4 * crossed


def own_and_crossed(path):
    """Mean Dice of the agent's masks with the named objects, and with those of another word on the same image."""
    import numpy as np
    from alignsam_sb3.envs.vec_env import SamSegVecEnv

    from alignsam_sb3 import metrics
    from alignsam_sb3.evaluation import agent_player, play
    from alignsam_sb3.policies import load_policy, read_recipe
    from alignsam_sb3.task import Task

    venv, own, crossed = SamSegVecEnv.of(Task(**read_recipe(path)["env"]).for_evaluation(), 4), [], []
    agent = agent_player(load_policy(path, venv))
    for index in range(30):
        sample = venv.batch.shared.sample(index)
        shown = [int(c) for c in np.unique(sample.category_ids)]
        if len(shown) > 1:
            row = play(agent, venv.batch, [(index, c) for c in shown])
            for mask, category, other in zip(row.masks, shown, np.roll(shown, 1), strict=True):
                own.append(metrics.dice(mask, sample.target(category)))
                crossed.append(metrics.dice(mask, sample.target(int(other))))
    return np.mean(own), np.mean(crossed)


@pytest.fixture(scope="module")
def vessel_network(tmp_path_factory):
    """A reward network of a few steps on toy vessels."""
    out = tmp_path_factory.mktemp("reward")
    run(
        "-m", "alignsam_sb3.rewards.network", "fit", "--dataset", "toy:vessels", "--dataset-kwargs", '{"n_images": 24}',
        "--images", "24", "--steps", "3", "--batch", "8", "--out", out,
    )  # fmt: skip
    return out


@pytest.mark.slow
def test_prompts_are_chosen_and_everything_is_written(tmp_path, vessel_network):
    (tmp_path / "prompts.txt").write_text("object\ncrescent\nred object\n")
    said = run(
        "scripts/studies/prompt_select.py", "--quick", "--prompts", tmp_path / "prompts.txt",
        "--reward-network", vessel_network,
        "--out", tmp_path,
    )  # fmt: skip
    assert "| agent |" in said
    told = json.loads((tmp_path / "training_info.json").read_text())
    rows = told["evaluation"]["rows"]
    assert rows["oracle (sees the truth)"]["dice"] >= max(r["dice"] for r in rows.values())
    assert "train" not in told["evaluation"]["data"]
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {
        "prompt_select_1000_steps.zip",
        "prompt_select_2000_steps.zip",
    }
    assert (tmp_path / "final_model.zip").is_file()
    assert list((tmp_path / "logs" / "PPO_1").glob("events*"))


@pytest.mark.slow
def test_the_zoo_trains_prompts_and_refinement(tmp_path, vessel_network):
    few = ["-n", "16", "--log-folder", tmp_path, "-params", "n_envs:2", "n_steps:8", "batch_size:8", "n_epochs:1"]
    data = ["dataset_kwargs:{'n_images':4}", "prompts:['object','ring']"]
    network = ["--reward-network", vessel_network]
    run(
        "scripts/train.py",
        "--algo",
        "ppo",
        "--env",
        "PromptSelect-v0",
        "--eval-freq",
        "8",
        *network,
        *few,
        "--env-kwargs",
        *data,
    )
    run("scripts/train.py", "--algo", "ppo_mask", "--env", "MaskRefine-v0", "--eval-freq", "8", *few, "--env-kwargs", *data)
    assert (tmp_path / "ppo" / "PromptSelect-v0_1" / "PromptSelect-v0.zip").is_file()
    assert (tmp_path / "ppo_mask" / "MaskRefine-v0_1" / "MaskRefine-v0.zip").is_file()


@pytest.mark.slow
def test_a_network_rewards_and_learns_from_what_its_policy_finds(tmp_path):
    small = ["--env-kwargs", "dataset_kwargs:{'n_images':24}", "device:'cpu'"]
    few = ["-params", "n_envs:2", "n_steps:8", "batch_size:8", "n_epochs:1"]
    said = run("scripts/train.py", "--env", "SamSegImplicit-v0", "-n", "16", "--eval-freq", "-1", "--log-interval", "1",
               "--log-folder", tmp_path, "--reward", "network", *small, *few)  # fmt: skip
    assert "reward_net_score" in said
    assert "gt_dice" in said
    policy = tmp_path / "ppo_mask" / "SamSegImplicit-v0_1" / "SamSegImplicit-v0.zip"
    said = run("-m", "alignsam_sb3.evaluation", "--policy", policy, "--env", "SamSegImplicit-v0", "--episodes", "4",
               "--reward-network", "tiny", "--out", tmp_path / "evaluation")  # fmt: skip
    assert "| score |" in said
    few = ("--episodes", "6", "--out", tmp_path)
    run("scripts/studies/collect_masks.py", "--policy", policy, "--env", "SamSegImplicit-v0", *few)
    few = ["--images", "24", "--steps", "2", "--batch", "8"]
    fit = ["-m", "alignsam_sb3.rewards.network", "fit", "--dataset", "toy:saliency", *few, "--init", "tiny"]
    fit += ["--adversarial", tmp_path, "--out", tmp_path / "again"]
    run(*fit, "--dataset-kwargs", '{"n_images": 24}')
    assert (tmp_path / "again" / "reward_network.safetensors").is_file()
    said = run(*fit, "--dataset-kwargs", '{"n_images": 25}', "--out", tmp_path / "other", fails=True)
    assert "collect them with" in said


@pytest.mark.slow
def test_the_experiments_are_compared(tmp_path, vessel_network):
    command = [
        "scripts/studies/compare_experiments.py",
        "--quick",
        "--seeds",
        "1",
        "--reward-network",
        vessel_network,
        "--out",
        tmp_path,
    ]
    said = run(*command)
    assert "3 + 3: both by RL on the reward network" in said
    assert (tmp_path / "comparison.png").is_file()
    assert "done before" in run(*command)


@pytest.mark.parametrize(
    "env",
    [pytest.param(e, marks=pytest.mark.slow) for e in ("SamSegPaperImplicit-v0", "SamSegSrm-v0", "SamSegPaper-v0")],
)
def test_recalibrated_agents_are_trained_evaluated_and_filmed(tmp_path, env):
    taught = "callback:[{'alignsam_sb3.callbacks.RecalibrationCallback': {'steps': 8, 'updates': 1}}]"
    options = ["-params", "n_envs:2", "n_steps:8", "batch_size:8", "n_epochs:1", taught]
    said = run(
        "scripts/train.py", "--env", env, "-n", "16", "-f", tmp_path, "--eval-freq", "8", "--eval-episodes", "1",
        "--log-interval", "1", *SMALL, *options,
    )  # fmt: skip
    assert re.search(r"recalibration/ +\|.*\n.*loss", said)
    policy = tmp_path / "ppo_mask" / f"{env}_1" / f"{env}.zip"
    said = run("-m", "alignsam_sb3.evaluation", "--policy", policy, "--env", env, "--episodes", "2", "--out", tmp_path / "r")
    assert "| agent |" in said
    assert json.loads((tmp_path / "r" / "results.json").read_text())["NoC"]["oracle"]["cap"] == 3
    run("scripts/studies/filmstrips.py", "--policy", policy, "--env", env, "--episodes", "3", "--out", tmp_path / "strips.png")
    assert Image.open(tmp_path / "strips.png").width == 4 * 192  # the truth and three clicks


def made_up_seed(task, seed, full):
    """What one seed of an ablation leaves."""
    metrics = ("dice", "iou", "ber", "f_beta", "e_measure", "mae")
    names = (*VARIANTS, "random positions", "oracle")
    rows = {name: {m: [0.3, 0.4] for m in metrics} | {"below own first click": [0.0, 0.1]} for name in names}
    rows["full"]["dice"] = [0.5, full]
    curve = {name: {"dice": [0.2, 0.3, 0.4, 0.5, 0.6]} for name in ("full", "random positions", "oracle")}
    spent = {"seconds": 9, "seconds of PPO": 4, "training dice": [[32 * k, 0.1 * k] for k in range(1, 9)]}
    training = dict.fromkeys(VARIANTS, spent)
    return {"identity": {"task": task, "seed": seed, "budget": 1}, "rows": rows, "curve": curve, "training": training}


@pytest.mark.slow
def test_ablation_tables_say_what_the_seeds_say(tmp_path):
    for seed, full in enumerate((0.70, 0.72, 0.74)):
        for task in ("blur", "saliency"):
            (tmp_path / f"{task}-{seed}.json").write_text(json.dumps(made_up_seed(task, seed, full)))
    (tmp_path / "glass-0.json").write_text(json.dumps({"identity": {}, "rows": {"full": {}}, "training": {}}))  # unfinished
    said = run("scripts/studies/ablation.py", "--report", "--out", tmp_path)
    assert "Finished seeds: blur 3, saliency 3." in said
    half = 4.3027 * 0.02 / 3**0.5
    assert f"| random positions | **+0.320 ± {half:.3f}** | **+0.320 ± {half:.3f}** | +0.320 [+0.3" in said
    assert "(68.47)" in said  # the paper's
    assert "| blur | with | 9 | 4 | 0.100 | 256 | 0.720 |" in said
    assert (tmp_path / "curves.png").is_file()
    other = made_up_seed("blur", 3, 0.7)
    other["identity"]["budget"] = 2
    (tmp_path / "blur-3.json").write_text(json.dumps(other))
    assert "different budgets" in run("scripts/studies/ablation.py", "--report", "--out", tmp_path, fails=True)


@pytest.mark.slow
def test_an_ablation_is_run(tmp_path):
    said = run("scripts/studies/ablation.py", "--quick", "--tasks", "saliency", "--seeds", "0", "--out", tmp_path)
    assert "Finished seeds: saliency 1." in said
