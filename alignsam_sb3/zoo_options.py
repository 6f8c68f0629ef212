"""What ``alignsam train``, ``tune`` and the zoo's ``enjoy`` take: ours and the zoo's options.

RL Zoo itself is not imported here: that takes seconds, and a wrong word is to be refused at once.
"""

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import yaml

from alignsam_sb3.arguments import literal, saved_policy
from alignsam_sb3.datasets import require
from alignsam_sb3.datasets.options import add_dataset_kwargs
from alignsam_sb3.envs import TASKS
from alignsam_sb3.names import nearest

if TYPE_CHECKING:
    from alignsam_sb3.task import Task

ZOO_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("-f", "--log-folder"), {"help": "where runs are written, by default logs"}),
    (("--seed",), {"type": int, "help": "of everything that is drawn; by default drawn itself"}),
    (("--device",), {"help": "auto, cpu, cuda, ..."}),
    (("-P", "--progress"), {"action": "store_true", "help": "a progress bar (rich)"}),
    (("-tb", "--tensorboard-log"), {"metavar": "DIR", "help": "log to TensorBoard"}),
    (("--eval-freq",), {"type": int, "metavar": "STEPS", "help": "evaluate so often while training; -1: never"}),
    (("--eval-episodes",), {"type": int, "metavar": "N", "help": "in each of these evaluations"}),
    (("--n-eval-envs",), {"type": int, "metavar": "N", "help": "environments that evaluate"}),
    (("--save-freq",), {"type": int, "metavar": "STEPS", "help": "save a checkpoint so often; by default ten in all"}),
    (("--log-interval",), {"type": int, "metavar": "N", "help": "print every N-th rollout; -2: none"}),
    (("--num-threads",), {"type": int, "metavar": "N", "help": "of torch"}),
    (("--verbose",), {"type": int, "metavar": "LEVEL", "help": "0 prints less"}),
    (("-uuid", "--uuid"), {"action": "store_true", "help": "give the run's folder a name that no other has"}),
    (("--vec-env",), {"choices": ("dummy", "subproc"), "help": "for environments that are none of ours"}),
    (("--gym-packages",), {"nargs": "+", "metavar": "MODULE", "help": "import these, which register environments"}),
    (("--save-replay-buffer",), {"action": "store_true", "help": "for algorithms that have one"}),
    (("--truncate-last-trajectory",), {"metavar": "BOOL", "help": "of a replay buffer that is read"}),
    (("-optimize", "--optimize-hyperparameters"), {"action": "store_true", "help": "search, as `alignsam tune` does"}),
    (("--n-trials",), {"type": int, "metavar": "N", "help": "search: settings that are tried"}),
    (("--max-total-trials",), {"type": int, "metavar": "N", "help": "search: with those that other processes try"}),
    (("--n-jobs",), {"type": int, "metavar": "N", "help": "search: trials at a time"}),
    (("--n-startup-trials",), {"type": int, "metavar": "N", "help": "search: random ones at first"}),
    (("--n-evaluations",), {"type": int, "metavar": "N", "help": "search: evaluations of each trial"}),
    (("--sampler",), {"choices": ("random", "tpe", "auto"), "help": "search: what to try next"}),
    (("--pruner",), {"choices": ("halving", "median", "none"), "help": "search: which trials to stop early"}),
    (("--storage",), {"metavar": "URL", "help": "search: Optuna's database, shared by processes"}),
    (("--study-name",), {"metavar": "NAME", "help": "search: in that database"}),
    (("--trial-id",), {"type": int, "metavar": "N", "help": "train with the values of this trial of a study"}),
    (("--optimization-log-path",), {"metavar": "DIR", "help": "search: keep evaluations and the best policies here"}),
    (("--no-optim-plots",), {"action": "store_true", "help": "search: draw nothing"}),
    (("--track",), {"action": "store_true", "help": "log to Weights and Biases"}),
    (("--wandb-project-name",), {"metavar": "NAME"}),
    (("--wandb-entity",), {"metavar": "NAME"}),
    (("--wandb-group",), {"metavar": "NAME"}),
    (("-tags", "--wandb-tags"), {"nargs": "+", "metavar": "TAG"}),
)
"""The zoo's options for training and tuning that are handed on as they are written: names, and how argparse reads them."""


@dataclass(frozen=True)
class OurOptions:
    """What our command line adds to the zoo's.

    :param mlflow: tracking URI, None for no MLflow; the empty string leaves the choice to MLflow's own variables
    :param warm_start: steps of imitation before PPO, None for what the file says
    :param debug_maps: show the mask's probability and the similarity map in the films
    :param trust: unpickle what is not written in plain values
    :param anew: the policy that ``-i`` names begins a new training instead of going on with its own
    """

    mlflow: str | None = None
    warm_start: int | None = None
    debug_maps: bool = False
    trust: bool = False
    anew: bool = False

    def __post_init__(self) -> None:
        if self.warm_start is not None and self.warm_start < 0:
            raise SystemExit(f"--warm-start takes a number of steps, 0 for none, got {self.warm_start}")


def hyperparams_file(algorithm: str) -> str:
    """The file of ``hyperparams/`` that the zoo reads for an algorithm.

    :raises SystemExit: there is none
    """
    found = {Path(str(file)).stem: str(file) for file in files("alignsam_sb3.hyperparams").iterdir() if file.name[:1] != "_"}
    if algorithm not in found:
        raise SystemExit(f"{nearest('algorithm', algorithm, found)}. Others need a --conf-file of yours")
    return found[algorithm]


def algorithm_and_task(recipe: Mapping[str, Any]) -> tuple[str, str]:
    """The zoo's names of the algorithm and the task of a policy; the default ones of an empty recipe.

    >>> algorithm_and_task({"algorithm": "SamPPO", "env": {"clip": None, "srm": False}})
    ('ppo', 'SamSegImplicit-v0')
    """
    task = recipe.get("env", {})
    kind = ("Srm" if task.get("srm") else "") + ("Implicit" if task.get("clip", "tiny") is None else "")
    return "ppo" if recipe.get("algorithm") == "SamPPO" else "ppo_mask", f"SamSeg{kind}-v0"


def translate(script: str, argv: list[str]) -> tuple[OurOptions, list[str]]:
    """Our own options, and the zoo's with ours turned into ``--env-kwargs`` and our hyperparameters named.

    :param script: ``"train"`` or ``"enjoy"``
    :raises SystemExit: an option is unknown or wrong, or help was asked for
    :raises FileNotFoundError: a policy or a data set is not there
    :raises ValueError: there is no such kind of data set
    """
    if script == "train":
        _refuse(argv)
    elif {"-h", "--help"} & set(argv):
        _parser().print_help()  # the zoo's own follows
    known, rest = _parser().parse_known_args(argv)
    if known.n_timesteps is not None and known.n_timesteps < 1 and known.n_timesteps != -1:
        raise SystemExit(f"-n takes a number of steps, -1 for what the file says, got {known.n_timesteps}")
    rest += [] if known.n_timesteps is None else ["-n", str(known.n_timesteps)]
    begun = known.start or known.trained_agent
    rest += [] if begun is None else ["-i", str(begun)]
    ours = OurOptions(known.mlflow, known.warm_start, known.debug_maps, known.trust, known.start is not None)
    kwargs = [*_given(known, "reward", "reward_network"), *_task_kwargs(known)]
    if script == "enjoy":
        kwargs = ["split:'eval'", *kwargs]
        rest += [] if "--no-render" in rest else ["--no-render"]  # films are in the run's folder
    algo, env = algorithm_and_task({} if known.start is None else _recipe(known.start))
    algo, env = known.algo or algo, known.env or env
    out = ["--algo", algo, "--env", env, *rest]
    for option, values in (
        ("--env-kwargs", kwargs),
        ("--eval-env-kwargs", known.eval_env_kwargs),
        ("--hyperparams", known.hyperparams),
    ):
        out += [option, *values] if values else []
    if script == "train":
        out += ["--conf-file", known.conf_file or hyperparams_file(algo)]
    return ours, out


def _recipe(policy: Path) -> dict[str, Any]:
    from alignsam_sb3.policies import read_recipe  # brings torch

    return read_recipe(policy)


def _given(known: argparse.Namespace, *keys: str) -> Iterator[str]:
    """Those options that were said, as the zoo takes them."""
    for key in keys:
        if getattr(known, key) is not None:
            yield f"{key}:{getattr(known, key)!r}"


def _task_kwargs(known: argparse.Namespace) -> Iterator[str]:
    """The environment's options that :func:`add_task_options` asks for, as the zoo takes them."""
    yield from _given(known, "dataset", "segmenter")
    if known.clip is not None:
        yield f"clip:{None if known.clip == 'none' else known.clip!r}"
    data = {**known.dataset_kwargs, **({"categories": known.categories} if known.categories else {})}
    if data and any(entry.startswith("dataset_kwargs:") for entry in known.env_kwargs):
        raise SystemExit("--categories and --dataset-kwargs are short for dataset_kwargs:{...}: give one or the other")
    if data:
        yield f"dataset_kwargs:{data!r}"
    yield from known.env_kwargs


def _zip(text: str) -> Path:
    path = saved_policy(text)
    if path.suffix != ".zip":
        raise argparse.ArgumentTypeError(f"{path} should end in .zip: RL Zoo reads nothing else")
    return path


def _refuse(argv: list[str]) -> None:
    """Say the help, or what is wrong with a command line for training."""
    parser = _parser(add_help=True)
    zoo = parser.add_argument_group("options of RL Zoo")
    for names, how in ZOO_OPTIONS:
        zoo.add_argument(*names, **how)
    given, unknown = parser.parse_known_args(argv)
    if unknown:
        close = get_close_matches(unknown[0], parser._option_string_actions, n=1)
        hint = f": did you mean {close[0]}?" if close else "."
        parser.error(f"unknown option {unknown[0]!r}{hint} `{parser.prog} --help` lists all")
    if given.env is not None and not given.gym_packages and given.env not in gym.registry:
        tasks = [name for name, spec in gym.registry.items() if str(spec.entry_point).startswith("alignsam_sb3.")]
        parser.error(nearest("environment", given.env, tasks))
    if given.dataset is not None:
        require(given.dataset)


def _parser(add_help: bool = False) -> argparse.ArgumentParser:
    """Our options, and those of the zoo that are changed on the way."""
    name = Path(sys.argv[0]).name
    out = argparse.ArgumentParser(
        prog=name,
        usage=f"{name} [OPTION ...]",
        description="Train a policy, or search hyperparameters for it (tune). Every option has a default: begin with none.",
        epilog="KEY:VALUE has a plain value: dataset:'toy:blur' max_steps:3 dataset_kwargs:\"{...}\"",
        add_help=add_help,
        allow_abbrev=False,
    )
    add_task_options(out)
    out.add_argument("--algo", help="ppo_mask (if not said) or ppo")
    begin = out.add_mutually_exclusive_group()
    begin.add_argument(
        "--from",
        dest="start",
        type=_zip,
        metavar="POLICY.zip",
        help="begin a new training with this policy, on what it was trained on and --dataset together",
    )
    begin.add_argument("-i", "--trained-agent", type=_zip, metavar="POLICY.zip", help="go on with this training")
    out.add_argument("-n", "--n-timesteps", type=int, metavar="STEPS", help="of PPO, in all")
    out.add_argument("--warm-start", type=int, metavar="STEPS", help="imitate the oracle for so many steps before; 0: none")
    out.add_argument("--reward", metavar="NAME", help="dice_gain, shaped, paper, or network, which looks at no ground truth")
    out.add_argument("--reward-network", metavar="DIR", help="that `python -m alignsam_sb3.rewards.network fit` wrote")
    out.add_argument("--debug-maps", action="store_true", help="films show the mask's probability and the similarity map")
    out.add_argument("--mlflow", nargs="?", const="", metavar="URI", help="log to MLflow as well")
    out.add_argument("--trust", action="store_true", help="unpickle policies of other programs: that can run any code")
    out.add_argument("-conf", "--conf-file", "--conf", metavar="FILE", help="hyperparameters other than the package's")
    _add_literals(out, "--eval-env-kwargs", help="the same as --env-kwargs for its evaluation")
    _add_literals(out, "-params", "--hyperparams", help="hyperparameters that replace the file's")
    return out


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """What says which images a task is about, and which frozen models look at them; :func:`task_of` reads it."""
    parser.add_argument("--env", help="SamSeg-v0 (if not said), SamSegImplicit-v0, ...: the table of tasks in docs/train.md")
    parser.add_argument(
        "--dataset", metavar="SPEC", help="toy:semantic, mask_folder:ROOT, coco:ROOT, several joined by +, ..."
    )
    add_dataset_kwargs(parser)
    parser.add_argument("--categories", nargs="+", metavar="NAME", help="of the data set, to keep")
    parser.add_argument("--segmenter", metavar="SPEC", help="tiny (embedded; if not said), mobile_sam, vit_b:PATH, ...")
    parser.add_argument("--clip", metavar="SPEC", help="language prior: tiny, ViT-B-16-quickgelu:openai, MODEL:PATH, none")
    _add_literals(parser, "--env-kwargs", help="options of the task")


def _add_literals(parser: argparse.ArgumentParser, *names: str, help: str) -> None:
    parser.add_argument(*names, nargs="+", default=[], type=literal, metavar="KEY:VALUE", help=help)


def task_of(given: argparse.Namespace) -> "Task":
    """The task of a training with these options and the package's hyperparameters.

    :param given: what a parser with :func:`add_task_options` read
    :raises ValueError: there is no such task, data set or option
    :raises FileNotFoundError: the data set is not there
    """
    algorithm, name = algorithm_and_task({})
    name = given.env or name
    if name not in TASKS:
        raise ValueError(nearest("environment that places clicks", name, TASKS))
    if given.dataset is not None:
        require(given.dataset)
    from alignsam_sb3.task import Task, merge_options  # brings torch

    of_file = yaml.safe_load(Path(hyperparams_file(algorithm)).read_text())[name]["env_kwargs"]
    words = [entry.partition(":") for entry in _task_kwargs(given)]
    merged = merge_options(of_file, {key: ast.literal_eval(value) for key, _, value in words})
    return Task.from_kwargs(**{**TASKS[name], **merged})
