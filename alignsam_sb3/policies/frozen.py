"""Whether the frozen models that a policy is played with are those of its training."""

import logging
from collections.abc import Mapping
from typing import Any

from alignsam_sb3.fingerprints import current

logger = logging.getLogger(__name__)

UNSAID = {"segmenter": "tiny-83669703a4254a78", "clip": "clip-f21f86678ba13c51"}
"""The embedded models of policies that do not say which they were trained with: those of versions before 0.2."""


def changed_models(recipe: Mapping[str, Any], models: Mapping[str, str], env: Mapping[str, Any]) -> list[str]:
    """Say which frozen models have the names of a policy's own, and are others.

    A policy that is played with a segmenter of another name on purpose is not meant.

    :param recipe: the policy's
    :param models: fingerprints of the models that are there, by role
    :param env: options of the environment that they are in
    :return: a sentence for each
    """
    trained, said = recipe["env"], recipe.get("models")
    changed = []
    for role, here in models.items():
        name = env.get(role)
        if not here or name != trained.get(role, name) or (said is None and name != "tiny"):
            continue
        then = current((UNSAID if said is None else said).get(role, ""))
        if then and then != here:
            changed.append(f"{role} {name!r} is now another model ({here}) than in training ({then})")
    return changed


def warn_of_changed_models(path: object, recipe: Mapping[str, Any], models: Mapping[str, str], env: Mapping[str, Any]) -> bool:
    """Log a warning where a frozen model is another than in training.

    :return: whether it was
    """
    changed = changed_models(recipe, models, env)
    if changed:
        logger.warning(
            "%s: %s. It is played all the same, but its masks are others: evaluate it again, or train a new one",
            path,
            "; ".join(changed),
        )
    return bool(changed)
