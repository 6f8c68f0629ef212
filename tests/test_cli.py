"""The command ``alignsam``: what it says to newcomers, and that each word calls what it should."""

import argparse
import subprocess
import sys
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignsam_sb3 import cli, doctor
from alignsam_sb3.version import __version__


def test_without_words_it_says_what_there_is(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in cli.COMMANDS) and "alignsam annotate PHOTOS" in said


def test_its_version(capsys):
    assert cli.main(["--version"]) == 0 and __version__ in capsys.readouterr().out


def test_threads_of_the_command_do_not_spin(monkeypatch):
    code = "import os; from alignsam_sb3 import cli; cli.main(['--version']); print(os.environ['OMP_WAIT_POLICY'])"
    for given, expected in ((None, "passive"), ("active", "active")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if given:
            monkeypatch.setenv("OMP_WAIT_POLICY", given)
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        assert done.stdout.split()[-1] == expected


def test_an_unknown_word_names_the_nearest(capsys):
    assert cli.main(["anotate"]) == 2
    assert "did you mean 'annotate'" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0 and f"usage: alignsam {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["annotate", ".", "--policy", "none.zip", "--out", "out"], "no policy at none.zip"),
        (["annotate", "nowhere", "--policy", "empty", "--out", "out"], "no folder of images at nowhere"),
        (["review", "nowhere", "--policy", "none.zip"], "no run in nowhere: make one with `alignsam annotate"),
        (["push", "none.zip", "me/dogs"], "no policy at none.zip"),
        (["evaluate", "--policy", "none"], "no policy at none.zip"),
        (["evaluate", "--policy", "empty", "--dataset", "mask_folder:nowhere"], "nothing at nowhere for a mask_folder"),
        (["calibrate", "--policy", "empty", "--labelled", "cocoo:x"], "did you mean 'coco'"),
        (["train", "--from", "none.zip"], "no policy at none.zip"),
        (["train", "--dataset", "toy:blurr"], "did you mean 'blur'"),
        (["train", "--dataset", "toy:blur+mask_folder:nowhere"], "nothing at nowhere for a mask_folder"),
    ],
)
def test_what_is_missing_is_said_in_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.zip").touch()
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith(f"alignsam {words[0]}: ") and error.count("\n") == 1


def test_a_name_on_the_hub_has_two_parts(capsys):
    assert cli.main(["pull", "dogs"]) == 1 and "user/name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--datset", "x"], "did you mean --dataset?"),
        (["train", "--env", "SamSegImplicit"], "did you mean 'SamSegImplicit-v0'?"),
        (["tune", "--n-trials", "many"], "invalid int value: 'many'"),
        (["train", "--from", "photo.png"], "photo.png should end in .zip"),
        (["annotate", ".", "--policy", "photo.png", "--out", "o", "--formats", "coca"], "did you mean 'coco'?"),
    ],
)
def test_what_is_typed_wrong_is_said_with_the_command_that_was_typed(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.png").touch()
    with pytest.raises(SystemExit) as end:
        cli.main(words)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.startswith(f"usage: alignsam {words[0]} ")


TYPED = [
    *([name, "--help"] for name in cli.COMMANDS),
    ["train", "--nope"],
    ["train", "--dataset", "cocoo:x"],
    ["train", "--env", "SamSeg-v9"],
    ["train", "-i", "none.zip"],
    ["describe", "mask_folder:nowhere"],
    ["evaluate", "--policy", "none.zip"],
    ["annotate", "nowhere", "--policy", "none.zip", "--out", "o"],
    ["calibrate", "--policy", "none.zip"],
    ["review", "nowhere", "--policy", "none.zip"],
]


def test_help_and_what_is_typed_wrong_wait_for_no_heavy_import(tmp_path):
    """Torch and the zoo take seconds to import."""
    code = f"""
import sys
from alignsam_sb3 import cli
for words in {TYPED!r}:
    try:
        cli.main(words)
    except SystemExit:
        pass
    found = [name for name in ("torch", "scipy", "open_clip", "stable_baselines3", "rl_zoo3") if name in sys.modules]
    assert not found, (words, found)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_names_that_command_lines_know_are_those_of_the_package():
    from alignsam_sb3 import evaluation, evaluation_options
    from alignsam_sb3.annotate import FORMATS

    assert tuple(FORMATS) == cli.options.FORMATS
    assert evaluation.RIVALS == evaluation_options.RIVALS


def test_options_for_training_are_those_of_the_zoo(monkeypatch):
    train = pytest.importorskip("rl_zoo3.train")
    from alignsam_sb3 import zoo_options

    def stop(parser, *args):
        raise StopIteration({name for action in parser._actions for name in action.option_strings})

    ours = set(zoo_options._parser(add_help=True)._option_string_actions)
    ours |= {name for names, _ in zoo_options.ZOO_OPTIONS for name in names}
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(StopIteration) as stopped:
        train.train()
    assert stopped.value.value <= ours


def test_debug_shows_where_it_was_raised():
    with pytest.raises(ValueError, match="user/name"):
        cli.main(["pull", "dogs", "--debug"])


def test_ctrl_c_says_that_nothing_is_lost(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "calibrate", interrupted)
    assert cli.main(["calibrate"]) == 130
    assert "alignsam calibrate: interrupted; what was written is whole" in capsys.readouterr().err


def test_training_and_tuning_are_the_zoos(monkeypatch):
    zoo = pytest.importorskip("alignsam_sb3.zoo")
    seen = []
    monkeypatch.setattr(zoo, "run", lambda script, ours, argv: seen.append((script, " ".join(argv))))
    cli.main(["train", "--dataset", "toy:blur", "-n", "100", "--seed", "3"])
    cli.main(["tune", "--n-trials", "3"])
    (script, train), (_, tune) = seen
    assert script == "train" and train.startswith(
        "--algo ppo_mask --env SamSeg-v0 --seed 3 -n 100 --env-kwargs dataset:'toy:b"
    )
    assert " -optimize --n-trials 3 " in tune and "dataset" not in tune


def test_describe_is_the_data_sets_own(capsys):
    assert cli.main(["describe", "toy:saliency", "--dataset-kwargs", "n_images=3"]) == 0
    assert "3" in capsys.readouterr().out


def test_the_doctor_names_versions_and_the_cache(monkeypatch, capsys, cache):
    for name in doctor.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"alignsam_sb3 {__version__}" in said and "torch " in said and str(cache) in said
    assert "\n  downloads: allowed" in said


def test_the_doctor_names_every_extra_of_the_package(capsys, cache):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    stated = ConfigParser()
    stated.read(Path(__file__).resolve().parents[1] / "setup.cfg")
    installed = metadata.metadata("alignsam_sb3").get_all("Provides-Extra")
    assert {extra.replace("_", "-") for extra in stated["options.extras_require"]} >= {*installed} > {"zoo", "hf", "docs"}
    assert not [extra for extra in installed if f"\n  extra {extra}: " not in said]


def test_the_doctor_says_what_is_missing_too_old_and_forbidden(monkeypatch, capsys, cache):
    needs = ["torch>=2.8", "pillow<2", "no-such-package>=1", "torch>=99; extra == 'big'", "filelock>=3; extra == 'small'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: needs)
    monkeypatch.setattr(doctor.metadata, "metadata", lambda name: SimpleNamespace(get_all=lambda *args: ["big", "small"]))
    for name in doctor.OFFLINE:
        monkeypatch.setenv(name, "1")
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "! no-such-package is missing: pip install 'no-such-package>=1'" in lines
    assert f"! pillow is {metadata.version('pillow')}, not <2: pip install 'pillow<2'" in lines
    torch = metadata.version("torch")
    assert f"  torch {torch}" in lines
    assert f"  extra big: torch is {torch}, not >=99 (pip install 'alignsam_sb3[big]')" in lines
    assert "  extra small: there" in lines
    assert "  downloads: forbidden by ALIGNSAM_OFFLINE and HF_HUB_OFFLINE" in lines


def test_annotate_passes_its_options_on(monkeypatch, tmp_path, capsys):
    import alignsam_sb3.annotate as annotate

    seen = []
    summary = SimpleNamespace(doubtful=3)
    monkeypatch.setattr(annotate, "annotate_folder", lambda *args: seen.append(args) or summary)
    monkeypatch.setattr(cli.options, "load", lambda args: "predictor")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "p.zip").touch()
    words = ["annotate", "photos", "--policy", "p.zip", "--out", "out", "--accept", "0.1", "--formats", "coco", "yolo"]
    assert cli.main(words) == 0
    (args,) = seen
    assert args[0] == "predictor" and str(args[1]) == "photos" and args[4:6] == (["coco", "yolo"], 0.1)
    assert "Review: alignsam review out --policy p.zip" in capsys.readouterr().out


def test_from_a_policy_to_annotated_photos(policy, tmp_path, capsys):
    import json

    from PIL import Image

    from alignsam_sb3.calibration import Calibration
    from alignsam_sb3.datasets import ToyScenes

    labelled = ["--labelled", "toy:semantic", "--dataset-kwargs", "n_images=12", "--device", "cpu"]
    assert cli.main(["calibrate", "--policy", str(policy), *labelled]) == 0
    assert "of the masks need no review" in capsys.readouterr().out and Calibration.read(policy) is not None
    (tmp_path / "photos").mkdir()
    for k in range(3):
        Image.fromarray(ToyScenes("semantic", "eval", n_images=20)[k + 12].image).save(tmp_path / "photos" / f"{k}.png")
    (tmp_path / "photos" / "broken.png").write_text("no photo")
    words = ["annotate", str(tmp_path / "photos"), "--policy", str(policy), "--out", str(tmp_path / "run"), "--device", "cpu"]
    assert cli.main([*words, "--categories", "disc", "ring", "--formats", "coco", "png"]) == 0
    said = capsys.readouterr().out
    assert "3 images annotated" in said and "1 skipped" in said
    found = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    scores = [a["score"] for f in found for a in f.get("annotations", ())]
    assert len(scores) == 6 and all(0 <= s <= 1 for s in scores) and len(list((tmp_path / "run").rglob("*.png.png"))) == 6
    assert cli.main(["calibrate", "--policy", str(policy), *labelled, "--seed", "1"]) == 0
    assert cli.main([*words, "--categories", "disc", "ring"]) == 1  # another calibration would mix results
    assert "made with calibration" in capsys.readouterr().err
