"""Loading saved policies from weights and plain values; only a caller who says ``trust`` has anything unpickled."""

import logging
import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv

from alignsam_sb3.names import nearest
from alignsam_sb3.policies.archive import FORMAT, PolicyArchive, check_optimizer, check_weights
from alignsam_sb3.policies.frozen import warn_of_changed_models
from alignsam_sb3.policies.plain import hyperparameters, restore_arguments, restore_space, restore_state
from alignsam_sb3.policies.stages import saved_stages

logger = logging.getLogger(__name__)

Algorithm = TypeVar("Algorithm", bound=BaseAlgorithm)
Saved = str | Path | BinaryIO
_OBSERVED_BYTES = 1 << 36  # of a rollout
_OURS = ("ExplicitPolicy", "ExplicitMaskablePolicy", "ImplicitPolicy", "ImplicitMaskablePolicy")
_FIRST_IMPLICIT = {"width": 64, "narrow": None, "channels": (64, 128, 256, 512)}
"""The implicit extractor of version 0.1, whose files name no format."""


def read_recipe(path: str | Path, trust: bool = False) -> dict[str, Any]:
    """Read how a saved policy was built, without unpickling anything.

    :param trust: accept a policy without a recipe: that of the default environment is returned
    :raises FileNotFoundError: there is no such file
    :raises ValueError: the file is no policy that this package saved
    """
    recipe = PolicyArchive(path).recipe
    if recipe is not None:
        return recipe
    if trust:
        return {"env": {}, "trained_on": ""}
    raise ValueError(
        f"{path} was not saved by SamPPO or SamMaskablePPO (scripts/train.py) and cannot be read without unpickling it: "
        "if you trust its origin, pass --trust (trust=True)"
    )


def load_policy(
    path: str | Path, env: VecEnv, trust: bool = False, policy: str | type[BasePolicy] | None = None
) -> BaseAlgorithm:
    """Load a saved policy for an environment, to play it.

    By default only weights are read: the algorithm is built from the plain recipe in the file, and nothing is unpickled.

    :param env: an environment with the policy's observation and action spaces
    :param trust: unpickle the file, as Stable-Baselines3 does; for a policy saved elsewhere whose origin you trust
    :param policy: the policy's class, or the path it is imported by, where it is none of this package's
    :raises ValueError: the file is no policy, or does not fit the environment
    """
    from alignsam_sb3.policies.algorithms import ALGORITHMS  # late: they load by this module

    if trust:
        maskable = (
            "maskable" in str(PolicyArchive(path).data.get("policy_class", read_recipe(path, trust).get("policy"))).lower()
        )
        return ALGORITHMS["SamMaskablePPO" if maskable else "SamPPO"].load(path, env=env, trust=True)
    name = read_recipe(path)["algorithm"]
    if name not in ALGORITHMS:
        raise ValueError(f"{path}: {nearest('algorithm', name[:60], ALGORITHMS)}")
    return ALGORITHMS[name].load(path, env, policy=policy, n_steps=2, batch_size=2)  # no room for rollouts


def restore(
    algorithm: type[Algorithm],
    path: Saved,
    env: GymEnv | None,
    device: Any,  # noqa: ANN401
    policy: str | type[BasePolicy] | None,
    changed: Mapping[str, Any],
) -> Algorithm:
    """An algorithm as it was saved, from weights and plain values.

    :param policy: class of the policy, or the path it is imported by, where it is none that the algorithm knows by name
    :param changed: attributes that replace the saved ones; ``policy_kwargs`` adds to what the file cannot hold
    :raises ValueError: the file is no policy of this algorithm, or does not fit the environment
    """
    archive = PolicyArchive(path)
    recipe = archive.recipe
    if recipe is None or recipe["algorithm"] != algorithm.__name__:
        writer = "another program" if recipe is None else recipe["algorithm"]
        raise ValueError(
            f"{path} was saved by {writer}, not by {algorithm.__name__}: load it with that, or, if you trust its origin, pass "
            "trust=True, which unpickles it and runs what it brings"
        )
    kind, given = _policy_class(algorithm, recipe, policy, path), changed.get("policy_kwargs") or {}
    _check_given(archive, recipe, given)
    try:
        model = algorithm(kind, env, device=device, _init_setup_model=False)  # type: ignore[call-arg]
        model.__dict__.update(_state(archive, recipe, algorithm), **changed)
        model.__dict__.update(policy_kwargs={**_policy_kwargs(recipe), **given}, recipe=recipe)
        _give_spaces(model, env, recipe)
        model._setup_model()
    except (TypeError, ValueError, AssertionError, RuntimeError, MemoryError, KeyError) as error:
        raise ValueError(f"the policy in {path} cannot be built ({type(error).__name__}: {error})") from error
    _set_parameters(model, archive, recipe)
    set_notes(model, archive)
    return model


def set_notes(model: BaseAlgorithm, archive: PolicyArchive) -> None:
    """What a file says beside weights and hyperparameters: the stages before PPO, and the images that were trained on.

    :raises ValueError: it is wrong
    """
    model.__dict__["stages"] = saved_stages(archive)
    if archive.seen is not None:
        model.__dict__["_seen_before"] = archive.seen
    env = model.get_env()
    if env is not None and env.has_attr("models") and archive.recipe is not None:
        models, options = (env.get_attr(name)[0] for name in ("models", "config"))
        warn_of_changed_models(archive.path, archive.recipe, models, options)


def has_other_extractor(recipe: Mapping[str, Any]) -> bool:
    """Whether a saved policy has one of this package's extractors as another version built it."""
    theirs = "features_extractor_class" in recipe["not_plain"]
    return recipe.get("format") != FORMAT and recipe["policy"] in _OURS and not theirs


def _policy_kwargs(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a saved policy, with what was another default when it was saved.

    :raises ValueError: there is no such extractor any more, or not yet
    """
    given = restore_arguments(recipe["policy_kwargs"])
    if not has_other_extractor(recipe):
        return given
    saved = recipe.get("format", 1)
    if isinstance(saved, int) and saved > FORMAT:
        raise ValueError(f"it has format {saved}, and this version reads up to {FORMAT}: upgrade alignsam_sb3")
    if "format" in recipe or not recipe["policy"].startswith("Implicit"):
        raise ValueError("it has an extractor of an earlier version: train it again, or use the version that saved it")
    given["features_extractor_kwargs"] = _FIRST_IMPLICIT | (given.get("features_extractor_kwargs") or {})
    return given


def _give_spaces(model: BaseAlgorithm, env: GymEnv | None, recipe: Mapping[str, Any]) -> None:
    """Without an environment take the saved spaces; refuse rollouts that no memory holds before they are asked for."""
    if env is None:
        described = recipe.get("spaces") or {}
        if not all(described.get(key) for key in ("observation_space", "action_space")):
            raise ValueError("it does not say in plain values what it observes: give the environment, load(path, env=env)")
        model.__dict__.update({key: restore_space(value) for key, value in described.items()}, n_envs=1)
    observed: Any = model.observation_space
    count = sum(math.prod(space.shape or ()) for space in getattr(observed, "spaces", {"": observed}).values())
    wanted = 4 * count * int(getattr(model, "n_steps", 1)) * model.n_envs
    if wanted > _OBSERVED_BYTES:
        raise ValueError(f"it asks for rollouts of {wanted / 1e9:.0f} GB: load it with fewer steps, load(path, n_steps=16)")


def _check_given(archive: PolicyArchive, recipe: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Ask for the arguments that the file cannot hold."""
    lacking = [str(name) for name in recipe["not_plain"] if name not in given]
    if lacking:
        raise ValueError(
            f"the policy in {archive.path} was built with {', '.join(lacking)}, which cannot be read without "
            f"unpickling: give it, load(path, policy_kwargs={{{lacking[0]!r}: ...}}), or, if you trust its origin, "
            "pass --trust (trust=True)"
        )


def _policy_class(
    algorithm: type[BaseAlgorithm], recipe: Mapping[str, Any], policy: str | type[BasePolicy] | None, path: Saved
) -> str | type[BasePolicy]:
    """The class of the policy: one that the algorithm knows by name, or one that the caller names; never one of the file's."""
    if isinstance(policy, str) and policy not in algorithm.policy_aliases:
        module, _, name = policy.replace(":", ".").rpartition(".")
        try:
            return getattr(import_module(module), name)  # type: ignore[no-any-return]
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"no policy can be imported as {policy!r} ({error})") from error
    if policy is not None:
        return policy
    if recipe["policy"] not in algorithm.policy_aliases:
        raise ValueError(
            f"{path} holds a policy of the class {recipe['policy']!r}, which is none of {algorithm.__name__}'s: name it "
            "yourself, load(path, policy='your_module.YourPolicy')"
        )
    return str(recipe["policy"])


def _state(archive: PolicyArchive, recipe: Mapping[str, Any], algorithm: type[BaseAlgorithm]) -> dict[str, Any]:
    """Hyperparameters and progress; of a file of an earlier version those that it holds in plain values."""
    if "hyperparameters" in recipe:
        return restore_state(recipe, algorithm)
    plain = {key: value for key, value in archive.data.items() if isinstance(value, int | float | bool)}
    earlier = {"hyperparameters": {key: plain[key] for key in hyperparameters(algorithm) if key in plain}, "progress": plain}
    return restore_state(earlier, algorithm)


def _set_parameters(model: BaseAlgorithm, archive: PolicyArchive, recipe: Mapping[str, Any]) -> None:
    """Put weights and the optimizer's state in place, once they are seen to fit."""
    found, path = archive.parameters(), archive.path
    weights = found.get("policy")
    if weights is None:
        raise ValueError(f"{path} is not a saved policy: it holds no weights (policy.pth)")
    try:
        check_weights(model.policy.state_dict(), weights)
    except FloatingPointError as error:
        raise ValueError(
            f"the policy in {path} has NaN or infinite weights ({error}): training diverged; take an earlier checkpoint"
        ) from error
    except ValueError as error:
        _explain_module(model, weights, path, error)
        raise ValueError(
            f"the weights in {path} do not fit this environment: they belong to {recipe['env']}; evaluate with the same "
            f"segmenter, patches and number of categories, and with the version that saved a class of your own ({error})"
        ) from error
    model.policy.load_state_dict(weights)
    if "policy.optimizer" in found:
        try:
            check_optimizer(list(model.policy.parameters()), found["policy.optimizer"])
            model.policy.optimizer.load_state_dict(found["policy.optimizer"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the optimizer's state in {path} does not fit its policy: {error}") from error


def _explain_module(model: BaseAlgorithm, weights: Mapping[str, Any], path: object, error: ValueError) -> None:
    stored = {name.removeprefix("srm.") for name in weights if name.startswith("srm.")}
    srm = getattr(model.policy, "srm", None)
    if srm is not None and stored and stored != set(srm.state_dict()):
        raise ValueError(
            f"{path} holds a recalibration module of another version or branch of this package's: train it again"
        ) from error
