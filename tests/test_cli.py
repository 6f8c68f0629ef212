"""The command ``alignsam``: what it says to newcomers, and that each word calls what it should."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from alignsam_sb3 import cli
from alignsam_sb3.version import __version__


def test_without_words_it_says_what_there_is(capsys):
    assert cli.main([]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in cli.COMMANDS) and "alignsam annotate PHOTOS" in said


def test_its_version(capsys):
    assert cli.main(["--version"]) == 0 and __version__ in capsys.readouterr().out


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


def test_training_from_a_policy_goes_on_from_it(monkeypatch):
    zoo = pytest.importorskip("alignsam_sb3.zoo")
    seen = []
    monkeypatch.setattr(zoo, "main", lambda *args: seen.append(sys.argv[1:]))
    cli.main(["train", "--dataset", "coco:corrections", "--from", "policy.zip", "-n", "100"])
    cli.main(["tune", "--n-trials", "3"])
    assert seen == [["--dataset", "coco:corrections", "-i", "policy.zip", "-n", "100"], ["-optimize", "--n-trials", "3"]]


def test_describe_is_the_data_sets_own(capsys):
    assert cli.main(["describe", "toy:saliency", "--options", "n_images=3"]) == 0
    assert "3" in capsys.readouterr().out


def test_the_doctor_names_versions_and_the_cache(capsys, cache):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"alignsam_sb3 {__version__}" in said and "torch " in said and str(cache) in said


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
