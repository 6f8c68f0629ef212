"""The command ``alignsam``: what it says to newcomers, and that each word calls what it should."""

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


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("train", "tune", "evaluate", "describe")])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0 and f"usage: alignsam {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["annotate", "nowhere", "--policy", "none.zip", "--out", "out"], "no policy at none.zip"),
        (["review", "nowhere", "--policy", "none.zip"], "no run in nowhere"),
        (["push", "none.zip", "me/dogs"], "no policy at none.zip"),
        (["pull", "dogs"], "user/name"),
        (["calibrate", "--policy", "none.zip", "--labelled", "cocoo:x"], "did you mean 'coco'"),
    ],
)
def test_what_is_missing_is_said_in_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith(f"alignsam {words[0]}: ") and error.count("\n") == 1


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
    monkeypatch.setattr(zoo, "main", lambda *args: seen.append(sys.argv[1:]))
    cli.main(["train", "--dataset", "coco:corrections", "--from", "policy.zip", "-n", "100"])
    cli.main(["tune", "--n-trials", "3"])
    assert seen == [["--dataset", "coco:corrections", "--from", "policy.zip", "-n", "100"], ["-optimize", "--n-trials", "3"]]


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


def test_help_imports_no_model_library():
    code = "import sys; from alignsam_sb3 import cli; cli.main(['--help']); assert 'open_clip' not in sys.modules, 'heavy'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_annotate_passes_its_options_on(monkeypatch, tmp_path, capsys):
    import alignsam_sb3.annotate as annotate

    seen = []
    summary = SimpleNamespace(doubtful=3)
    monkeypatch.setattr(annotate, "annotate_folder", lambda *args: seen.append(args) or summary)
    monkeypatch.setattr(cli, "_load", lambda args: "predictor")
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
