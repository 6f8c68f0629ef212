"""RL Zoo with our algorithms, VecEnv, evaluation split and callbacks, for ``scripts/train.py`` and ``enjoy.py``."""

import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shutil import rmtree
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import optuna
import rl_zoo3.enjoy
import rl_zoo3.exp_manager
import rl_zoo3.train
from rl_zoo3.callbacks import TrialEvalCallback
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS, create_test_env, get_latest_run_id, get_model_path
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from alignsam_sb3.callbacks import (
    CheckpointAfterUpdate,
    EpisodeFilmCallback,
    MlflowCallback,
    RecalibrationCallback,
    SegmentationCallback,
    SegmentationEvalCallback,
    StageCallback,
    WarmStartCallback,
)
from alignsam_sb3.datasets import load_dataset, parts_of
from alignsam_sb3.envs import CLICK_ENV
from alignsam_sb3.envs.sam_seg import SamSegEnv
from alignsam_sb3.envs.vec_env import MaskRefineVecEnv, SamSegVecEnv
from alignsam_sb3.policies import SamMaskablePPO, SamPPO, attach_recalibration, distributed, read_recipe
from alignsam_sb3.policies.stages import describe_progress
from alignsam_sb3.task import Task, merge_options
from alignsam_sb3.zoo_guard import guard, trusting
from alignsam_sb3.zoo_options import OurOptions, translate

FILMS_PER_RUN = 4
CHECKPOINTS = 10  # of a training, unless --save-freq says otherwise
WARM_START = "alignsam_sb3.callbacks.WarmStartCallback"
PRETRAINING = (RecalibrationCallback, WarmStartCallback)
"""What happens before the first rollout, in this order whatever the file's: an agent is warmed with a taught module."""
OUR_ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": SamPPO, "ppo_mask": SamMaskablePPO}


def sample_hyperparams(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """What Optuna may try: no ``policy_kwargs``, and rollouts that fit in memory with embeddings as observations."""
    trial.suggest_int("n_steps_pow", 3, 6)
    trial.suggest_int("batch_size_pow", 5, 8)
    trial.suggest_float("one_minus_gamma", 1e-3, 0.3, log=True)
    trial.suggest_float("learning_rate", 5e-5, 2e-3, log=True)
    trial.suggest_float("ent_coef", 1e-4, 0.05, log=True)
    trial.suggest_int("n_epochs", 2, 8)
    trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3])
    return convert_hyperparams(trial.params)


def convert_hyperparams(sampled: dict[str, Any]) -> dict[str, Any]:
    """Turn what was sampled into the algorithm's arguments."""
    return {
        "n_steps": 2 ** sampled["n_steps_pow"],
        "batch_size": 2 ** sampled["batch_size_pow"],
        "gamma": 1 - sampled["one_minus_gamma"],
        **{key: sampled[key] for key in ("learning_rate", "ent_coef", "n_epochs", "clip_range")},
    }


def with_warm_start(callbacks: Any, steps: int) -> list[Any]:  # noqa: ANN401 (the zoo's: a name, a dict, a list of them)
    """The file's callbacks with so many steps of imitation (its other settings stay), or without it."""
    listed = callbacks if isinstance(callbacks, list) else [callbacks] if callbacks else []
    others = [entry for entry in listed if WARM_START not in ([entry] if isinstance(entry, str) else entry)]
    settings = [entry[WARM_START] or {} for entry in listed if isinstance(entry, dict) and WARM_START in entry]
    return [*others, {WARM_START: {**(settings[0] if settings else {}), "steps": steps}}] if steps else others


def with_earlier(trained: Mapping[str, Any], dataset: str) -> str:
    """A data set together with that which a policy was trained on, if it is still there.

    :param trained: the policy's task
    """
    earlier = str(trained.get("dataset"))
    try:
        load_dataset(earlier, "train", **(trained.get("dataset_kwargs") or {}))
    except (FileNotFoundError, ValueError) as error:
        print(f"Learning from {dataset} alone: what the policy was trained on is not here ({error})")
        return dataset
    return "+".join(dict.fromkeys([*parts_of(earlier), *parts_of(dataset)]))


class FairTrialEvalCallback(TrialEvalCallback):
    """The tuner's evaluation, each time and for each trial on the same episodes, or pruning would compare luck.

    Its environment draws foreground maps with the policy's recalibration module.
    """

    def _init_callback(self) -> None:
        super()._init_callback()
        attach_recalibration(self.model, self.eval_env)

    def _on_step(self) -> bool:
        if self.eval_freq > 0 and self.n_calls % self.eval_freq == 0:
            self.eval_env.seed(0)
        return super()._on_step()


class SamExperimentManager(ExperimentManager):
    """The zoo's manager with five repairs.

    - ``env_kwargs`` of the command line, and within them ``dataset_kwargs``, are merged into those of the file.
    - The evaluation environment gets the same ones on the evaluation split.
    - Resuming goes on with step count and schedule.
    - Dice, films and MLflow are logged.
    - A run that fails before it saves anything leaves no folder, and one that ends says which file the policy is.
    """

    default_vec_env_cls = SamSegVecEnv

    def __init__(self, *args: Any, ours: OurOptions, **kwargs: Any) -> None:  # noqa: ANN401 (the zoo's)
        self.ours, self._made_folder = ours, False
        super().__init__(*args, **kwargs)
        if not self._places_clicks:
            refines = self.env_name.gym_id == "MaskRefine-v0"
            self.vec_env_class = MaskRefineVecEnv if refines else DummyVecEnv

    @property
    def _places_clicks(self) -> bool:
        """Whether the environment is a ``SamSegEnv``: those are batched, and filmed."""
        return gym.spec(self.env_name.gym_id).entry_point == CLICK_ENV

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        given, self.env_kwargs = self.env_kwargs, {}
        hyperparams, saved = super().read_hyperparameters()
        resumed = read_recipe(Path(self.trained_agent), trust=True)["env"] if self.continue_training else {}
        if self.ours.anew and "dataset" in given:
            given = {**given, "dataset": with_earlier(resumed, given["dataset"])}
        merged = merge_options({**(hyperparams.get("env_kwargs") or {}), **resumed}, given)
        if self.ours.warm_start and not self._places_clicks:
            raise ValueError(f"--warm-start imitates clicks, and {self.env_name.gym_id} makes none: leave it out")
        if self.ours.warm_start is not None:
            hyperparams["callback"] = saved["callback"] = with_warm_start(hyperparams.get("callback"), self.ours.warm_start)
        hyperparams["env_kwargs"] = saved["env_kwargs"] = self.args.env_kwargs = self.env_kwargs = merged
        self.eval_env_kwargs = {**self._for_evaluation(merged), **(self._eval_env_kwargs_args or {})}
        return hyperparams, saved

    def _for_evaluation(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if not self._places_clicks:
            return {**kwargs, "split": "eval"}
        given = {**(gym.spec(self.env_name.gym_id).kwargs or {}), **kwargs}
        evaluated = Task.from_kwargs(**given).for_evaluation()
        return {**kwargs, "split": "eval", "labels": evaluated.labels, "box": evaluated.box}

    def _load_pretrained_agent(self, hyperparams: dict[str, Any], env: VecEnv) -> BaseAlgorithm:
        algorithm, ours = ALGOS[self.algo], self.algo in OUR_ALGORITHMS
        more = trusting(algorithm, self.trained_agent, ours, self.ours.trust)
        return super()._load_pretrained_agent({**hyperparams, **more}, env)

    def setup_experiment(self) -> tuple[BaseAlgorithm, dict[str, Any]] | None:
        with self._nothing_left_empty():
            return super().setup_experiment()

    def create_log_folder(self) -> None:
        if (
            not self.optimize_hyperparameters and not distributed.rank()
        ):  # an empty run folder would be taken for the latest run
            self._take_folder()
            self._made_folder = True
            super().create_log_folder()  # type: ignore[no-untyped-call]

    def _take_folder(self) -> None:
        """Make the run's folder, under the next number where another process took this one meanwhile."""
        while True:
            try:
                Path(self.save_path).mkdir(parents=True)
                return
            except FileExistsError:
                number = get_latest_run_id(self.log_path, self.env_name) + 1
                name = re.sub(rf"(?<=^{re.escape(self.env_name)}_)\d+", str(number), Path(self.save_path).name)
                self.save_path = str(Path(self.log_path, name))
                self.params_path = f"{self.save_path}/{self.env_name}"

    @contextmanager
    def _nothing_left_empty(self) -> Iterator[None]:
        """Remove the run's folder, if this process made it, where something fails before anything is saved."""
        try:
            yield
        except BaseException:
            if self._made_folder and not any(Path(self.save_path).glob("*.zip")):
                rmtree(self.save_path, ignore_errors=True)
            raise

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        venv = super().create_envs(n_envs, eval_env, no_log or self.optimize_hyperparameters or bool(distributed.rank()))
        if self._places_clicks and not eval_env:
            venv.env_method("fill", indices=0)  # a training asks for every image: better now than one by one
        return venv

    def create_callbacks(self) -> None:
        if distributed.rank():
            self.save_freq = self.eval_freq = -1  # the first process saves and evaluates
        elif self.save_freq == -1 and not self.optimize_hyperparameters:
            self.save_freq = max(int(self.n_timesteps) // CHECKPOINTS, 1)
        freq = self.save_freq
        super().create_callbacks()  # type: ignore[no-untyped-call]
        for callback in self.callbacks:
            if isinstance(callback, StageCallback) and freq > 0 and not self.optimize_hyperparameters:
                every = min(freq, max(callback.steps // CHECKPOINTS, 1))
                callback.save_to(Path(self.save_path, "rl_model_0_steps.zip"), every)
        self.callbacks.sort(key=lambda callback: PRETRAINING.index(type(callback)) if type(callback) in PRETRAINING else -1)
        if not self.optimize_hyperparameters and not distributed.rank():
            self.callbacks += self._our_callbacks()

    def _our_callbacks(self) -> list[BaseCallback]:
        ours: list[BaseCallback] = [SegmentationCallback()]
        ours += self._films() if self._places_clicks else []
        return ours if self.ours.mlflow is None else [*ours, MlflowCallback(self.ours.mlflow or None)]

    def _films(self) -> list[BaseCallback]:
        try:
            folder, freq = f"{self.save_path}/films", self.n_timesteps // FILMS_PER_RUN
            return [EpisodeFilmCallback(folder, self._film_env(), freq, maps=self.ours.debug_maps)]
        except FileNotFoundError as error:
            print(f"No films: there is no evaluation split ({error})")
            return []

    def _film_env(self) -> SamSegEnv:
        """An environment on the evaluation split, which must hold other images than the training split."""
        filmed = gym.make(self.env_name.gym_id, **{**self.eval_env_kwargs, "render_mode": "rgb_array"}).unwrapped
        training = gym.make(self.env_name.gym_id, **self.env_kwargs).unwrapped
        assert isinstance(filmed, SamSegEnv)
        assert isinstance(training, SamSegEnv)
        if filmed.shared.dataset.fingerprint == training.shared.dataset.fingerprint:
            raise ValueError(
                f"training and evaluation would use the same images ({training.shared.dataset.fingerprint}): "
                "name no split in --dataset, or another one in --eval-env-kwargs"
            )
        return filmed

    def learn(self, model: BaseAlgorithm) -> None:
        with self._nothing_left_empty():
            self._learn(model)

    def _learn(self, model: BaseAlgorithm) -> None:
        """Learn, or go on learning: the count and the schedules continue, and other episodes are drawn."""
        steps = self.n_timesteps // distributed.world()
        goes_on = self.continue_training and not self.ours.anew
        if goes_on:
            steps -= model.num_timesteps
            if steps <= 0:
                self._finish(model)
                return
            print(f"Going on from step {model.num_timesteps} to {self.n_timesteps}")
            assert model.env is not None
            done = model.num_timesteps + sum(stage.done for stage in getattr(model, "stages", {}).values())
            model.env.seed(self.seed + done + distributed.offset_of(model.n_envs))
            model._last_obs = None
        rollout = getattr(model, "n_steps", 1) * model.n_envs
        if steps % rollout:
            rounded = -(-steps // rollout) * rollout
            print(f"{steps} steps are rounded up to {rounded}: whole rollouts of {rollout} ({model.n_envs} environments)")
        interval = {"log_interval": self.log_interval if self.log_interval > -1 else None} if self.log_interval != -1 else {}
        try:
            model.learn(steps, self.callbacks, reset_num_timesteps=not goes_on, **interval)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            saved = f"{self.save_path}/{self.env_name}.zip"
            print(f"Interrupted {describe_progress(model)}. Once it is saved, go on with the same command and: -i {saved}")
        finally:
            if self.callbacks:
                self.callbacks[0].on_training_end()  # cleans the progress bar
            if model.env is not None:
                model.env.close()

    def _finish(self, model: BaseAlgorithm) -> None:
        """Nothing is left to learn: right for the last checkpoint of a training that died before it saved its policy.

        :raises ValueError: there is a policy beside it, or it is one
        """
        given = Path(self.trained_agent)
        said = f"{given} has already seen {model.num_timesteps} steps of {self.n_timesteps}"
        policy = given.with_name(f"{self.env_name}.zip")
        if policy.exists() or not given.name.startswith("rl_model_"):
            raise ValueError(f"{said}: ask for more in all with -n")
        print(f"{said}, and no {policy.name} was saved beside it: it is saved as it is. For more ask with -n")

    def save_trained_model(self, model: BaseAlgorithm) -> None:
        if distributed.rank():
            return
        super().save_trained_model(model)
        policy = f"{self.save_path}/{self.env_name}.zip"
        print(f"Policy: {policy}")
        if self._places_clicks and self.algo in OUR_ALGORITHMS:
            print(f"Evaluate it: alignsam evaluate --policy {policy}")
            print(f"Annotate with it: alignsam annotate PHOTOS --policy {policy} --out DIR")


def install(ours: OurOptions) -> None:
    """Register our algorithms, samplers, manager and callbacks with the zoo of this process."""
    ALGOS.update(OUR_ALGORITHMS)
    for name in OUR_ALGORITHMS:
        HYPERPARAMS_SAMPLER[name] = sample_hyperparams
        HYPERPARAMS_CONVERTER[name] = convert_hyperparams  # type: ignore[assignment]
    rl_zoo3.exp_manager.EvalCallback = SegmentationEvalCallback  # type: ignore[attr-defined]
    rl_zoo3.exp_manager.TrialEvalCallback = FairTrialEvalCallback  # type: ignore[attr-defined]
    rl_zoo3.exp_manager.CheckpointCallback = CheckpointAfterUpdate  # type: ignore[attr-defined]
    rl_zoo3.train.ExperimentManager = partial(SamExperimentManager, ours=ours)  # type: ignore[attr-defined, assignment]
    rl_zoo3.enjoy.ExperimentManager = SamExperimentManager  # type: ignore[attr-defined, assignment]


def main(script: str) -> None:
    """Run a script of the zoo (``"train"`` or ``"enjoy"``) with our defaults, as the command line says."""
    run(script, *translate(script, sys.argv[1:]))


def run(script: str, ours: OurOptions, argv: list[str]) -> None:
    """Run a script of the zoo with options that :func:`~alignsam_sb3.zoo_options.translate` read."""
    install(ours)
    device = distributed.join()
    sys.argv = [sys.argv[0], *argv, *(["--device", device] if device and "--device" not in argv else [])]
    if not ours.trust:
        guard()
    if script == "enjoy":
        attach_when_played(ours.trust)
        rl_zoo3.enjoy.get_model_path = latest_model_path  # type: ignore[attr-defined, assignment]
    try:
        getattr(importlib.import_module(f"rl_zoo3.{script}"), script)()
    except KeyboardInterrupt:  # before the first step, or in enjoy
        raise SystemExit("Interrupted. What was written so far is whole, and the same command uses it") from None


def latest_model_path(exp_id: int, folder: str, algo: str, env_name: Any, *which: Any) -> tuple[str, str, str]:  # noqa: ANN401
    """The zoo's ``get_model_path``, which takes for the latest run the latest that holds the policy asked for.

    :raises SystemExit: no run does
    """
    latest = get_latest_run_id(str(Path(folder, algo)), env_name)
    for number in range(latest, 0, -1) if exp_id == 0 else [exp_id]:
        try:
            found: tuple[str, str, str] = get_model_path(number, folder, algo, env_name, *which)
            return found
        except (ValueError, AssertionError) as error:
            print(f"{error}" + (": looking at the run before" if exp_id == 0 and number > 1 else ""))
    left = sorted(Path(folder, algo).glob(f"{env_name}_*/rl_model_*_steps.zip"), key=lambda path: path.stat().st_mtime)
    hint = f"Train one: train.py --algo {algo} --env {env_name} -f {folder}"
    if left:
        hint = f"The last checkpoint is {left[-1]}: go on from it, train.py -i {left[-1]}, or add --load-last-checkpoint"
    raise SystemExit(f"No such policy in {Path(folder, algo)}. {hint}")


def attach_when_played(trust: bool) -> None:
    """The zoo's enjoy loads a policy without the environments that it made: these get the policy's recalibration module."""
    made: list[VecEnv] = []

    def create_and_keep(*args: Any, **kwargs: Any) -> VecEnv:  # noqa: ANN401 (the zoo's)
        made[:] = [create_test_env(*args, **kwargs)]
        return made[0]

    def loader(algorithm: type[BaseAlgorithm]) -> SimpleNamespace:
        def load(path: str, **kwargs: Any) -> BaseAlgorithm:  # noqa: ANN401
            ours = algorithm in OUR_ALGORITHMS.values()
            model = algorithm.load(path, **kwargs, **trusting(algorithm, path, ours, trust))
            attach_recalibration(model, made[0])
            return model

        return SimpleNamespace(load=load)

    rl_zoo3.enjoy.create_test_env = create_and_keep  # type: ignore[attr-defined]
    loaders = {name: loader(algorithm) for name, algorithm in {**ALGOS, **OUR_ALGORITHMS}.items()}
    rl_zoo3.enjoy.ALGOS = loaders  # type: ignore[attr-defined, assignment]
