"""Runs and command lines from strangers, in the zoo: nothing of theirs is evaluated, imported or unpickled."""

import argparse
import io
import sys
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import rl_zoo3.enjoy
import rl_zoo3.exp_manager
import rl_zoo3.train
import rl_zoo3.utils
import yaml
from stable_baselines3 import A2C
from torch import nn

from alignsam_sb3.arguments import literal
from alignsam_sb3.policies import SamPPO
from alignsam_sb3.zoo_guard import guard, plain_value, read_plain_yaml, trusting
from alignsam_sb3.zoo_options import translate


@pytest.fixture
def guarded(monkeypatch):
    for module, name in (
        (rl_zoo3.utils, "yaml"),
        (rl_zoo3.enjoy, "yaml"),
        (rl_zoo3.utils, "VecNormalize"),
        (rl_zoo3.exp_manager, "VecNormalize"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name))
    for module in (rl_zoo3.utils, rl_zoo3.exp_manager):
        monkeypatch.setattr(module, "eval", eval, raising=False)
    guard()


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("max_steps:3", "max_steps:3"),
        ("dataset:'toy:blur'", "dataset:'toy:blur'"),
        ("dataset_kwargs: {'n': [1, 2.5, None]}", "dataset_kwargs:{'n': [1, 2.5, None]}"),
    ],
)
def test_plain_values_pass(given, plain):
    assert literal(given) == plain


@pytest.mark.parametrize(
    "given",
    [
        "x:__import__('os').system('ls')",
        "x:print(1)",
        "x:open('f', 'w')",
        "x:[i for i in range(9)]",
        "dataset:toy:blur",
        "x",
        "x:",
    ],
)
def test_what_would_be_evaluated_is_refused_with_the_way_to_write_it(given):
    with pytest.raises(argparse.ArgumentTypeError, match=r"no KEY:VALUE with a plain value.*nothing is evaluated"):
        literal(given)
    if given == "dataset:toy:blur":
        with pytest.raises(argparse.ArgumentTypeError, match=r"write dataset:'toy:blur'"):
            literal(given)


@pytest.mark.parametrize("option", ["--env-kwargs", "--eval-env-kwargs", "-params", "--hyperparams"])
def test_every_option_that_the_zoo_evaluates_is_read_as_plain(option, tmp_path, capsys):
    with pytest.raises(SystemExit):
        translate("train", [option, f"x:open({str(tmp_path / 'written')!r}, 'w')"])
    assert "nothing is evaluated" in capsys.readouterr().err
    assert not (tmp_path / "written").exists()
    assert "x:3" in translate("train", [option, "x:3"])[1]


def test_trust_is_one_flag():
    ours, argv = translate("enjoy", ["--trust"])
    assert ours.trust
    assert "--trust" not in argv
    assert not translate("enjoy", [])[0].trust


def test_what_the_zoo_writes_is_read(guarded):
    written = OrderedDict(env_kwargs={"max_steps": 3}, policy="x.Y", callback=[{"a.B": OrderedDict(steps=5)}], size=(1, 2))
    read = rl_zoo3.utils.yaml.load(io.StringIO(yaml.dump(written)), Loader=None)
    assert read == {"env_kwargs": {"max_steps": 3}, "policy": "x.Y", "callback": [{"a.B": {"steps": 5}}], "size": (1, 2)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['ls']", "holds more than plain values"),
        ("a: !!python/name:os.system", "holds more than plain values"),
        ("env_wrapper: evil.Wrapper", "names a wrapper 'evil.Wrapper'"),
        ("env_wrapper: [{evil.Wrapper: {a: 1}}]", "names a wrapper 'evil.Wrapper'"),
        ("vec_env_wrapper: [gymnasium.wrappers.X, evil.Wrapper]", "names a wrapper 'evil.Wrapper'"),
    ],
)
def test_a_runs_files_name_no_code(text, message):
    with pytest.raises(SystemExit, match=message + ".*add --trust"):
        read_plain_yaml(io.StringIO(text))


def test_a_runs_normalize_is_not_evaluated():
    with pytest.raises(SystemExit, match=r"the file.*nothing is evaluated"):
        read_plain_yaml(io.StringIO("normalize: print(1)"))
    assert read_plain_yaml(io.StringIO("normalize: \"{'norm_obs': True}\""))["normalize"] == "{'norm_obs': True}"


def test_pickles_beside_a_policy_are_refused(tmp_path, guarded):
    for module in (rl_zoo3.utils, rl_zoo3.exp_manager):
        with pytest.raises(SystemExit, match=r"vecnormalize\.pkl is a pickle.*--trust"):
            module.VecNormalize.load("vecnormalize.pkl", None)
    assert trusting(SamPPO, tmp_path / "p.zip", True, False) == {"trust": False}
    assert trusting(SamPPO, tmp_path / "p.zip", True, True) == {"trust": True}
    assert trusting(A2C, tmp_path / "p.zip", False, True) == {}
    with pytest.raises(SystemExit, match="can only be unpickled: A2C"):
        trusting(A2C, tmp_path / "p.zip", False, False)
    (tmp_path / "replay_buffer.pkl").touch()
    with pytest.raises(SystemExit, match=r"replay_buffer\.pkl is a pickle"):
        trusting(SamPPO, tmp_path / "p.zip", True, False)


def test_what_the_zoos_files_say_is_understood():
    said = "dict(net_arch=dict(pi=[64, 64], vf=(1,)), activation_fn=nn.ReLU, ortho_init=False)"
    assert plain_value(said) == {"net_arch": {"pi": [64, 64], "vf": (1,)}, "activation_fn": nn.ReLU, "ortho_init": False}
    assert plain_value("{'a': th.nn.Tanh}") == {"a": nn.Tanh}
    assert plain_value(" 3") == 3


@pytest.mark.parametrize(
    "text",
    [
        "dict(a=print(1))",
        "dict(**{'a': 1})",
        "{**{}}",
        "nn.Linear",
        "os.nn.ReLU",
        "nn.ReLU.x",
        "dict([(1, 2)])",
        "(lambda: 1)()",
    ],
)
def test_what_runs_something_is_not(text):
    with pytest.raises(SystemExit, match=r"is no plain value.*nothing is evaluated.*--trust"):
        plain_value(text)


@pytest.mark.parametrize("option", ["--env-kw", "--eval-env-kw", "--hyperp"])
def test_an_option_that_is_cut_short_is_read_as_plain_too(guarded, monkeypatch, option, tmp_path):
    """The zoo takes the beginnings of its options, which ours does not know."""
    written = tmp_path / "written"
    argv = ["--algo", "ppo", option, f"x:open({str(written)!r}, 'w')"]
    with pytest.raises(SystemExit):
        translate("train", argv)
    monkeypatch.setattr(sys, "argv", ["train", *argv])
    with pytest.raises(SystemExit, match="nothing is evaluated"):
        rl_zoo3.train.train()
    assert not written.exists()


def test_texts_among_hyperparameters_are_not_evaluated(guarded, tmp_path):
    written, same = tmp_path / "written", lambda hyperparams: hyperparams
    manager = SimpleNamespace(verbose=0, n_timesteps=1, n_evaluations=1, optimize_hyperparameters=False)
    manager._preprocess_schedules = manager._preprocess_normalization = same
    for name in ("policy_kwargs", "monitor_kwargs"):
        given = {"n_envs": 1, name: f"dict(a=open({str(written)!r}, 'w'))"}
        with pytest.raises(SystemExit, match="nothing is evaluated"):
            rl_zoo3.exp_manager.ExperimentManager._preprocess_hyperparams(manager, given)
    assert not written.exists()
