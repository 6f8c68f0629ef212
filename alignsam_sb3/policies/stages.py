"""What is learned before PPO, and how far it has come: kept with a policy, so that a training that died goes on from there."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zipfile import ZipFile

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from alignsam_sb3.policies.archive import PolicyArchive, check_optimizer

SUFFIX = ".stage.pt"
"""Of a policy's zip's entries ``NAME.stage.pt``. Stable-Baselines3 reads ``.pth`` only, and so still takes such a file."""
_MOST_STAGES = 8


@dataclass
class Stage:
    """Something learned before PPO.

    :param done: environment steps
    :param of: environment steps in all
    :param optimizer: of its own, while there is one
    :param state: of the optimizer, as a file holds it; :meth:`resume` puts it in place
    """

    done: int
    of: int
    optimizer: th.optim.Optimizer | None = None
    state: dict[str, Any] | None = None

    def resume(self, optimizer: th.optim.Optimizer) -> None:
        """Keep this optimizer, with the state that an earlier run left.

        :raises ValueError: that state is of another optimizer
        """
        if self.state is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            check_optimizer(parameters, self.state)
            groups = zip(optimizer.state_dict()["param_groups"], self.state["param_groups"], strict=True)
            known = [{key: theirs.get(key, value) for key, value in own.items()} for own, theirs in groups]
            optimizer.load_state_dict({"state": self.state["state"], "param_groups": known})
        self.optimizer, self.state = optimizer, None


def describe_progress(model: BaseAlgorithm) -> str:
    """Where a training is, for people."""
    stages: Mapping[str, Stage] = getattr(model, "stages", {})
    for name, stage in stages.items():
        if stage.done < stage.of and not model.num_timesteps:
            return f"in the {name}, after {stage.done:,} of {stage.of:,} steps"
    return f"at step {model.num_timesteps:,}"


def describe_stages(stages: Mapping[str, Stage]) -> dict[str, list[int]]:
    """Steps done and steps in all, in plain values."""
    return {name: [stage.done, stage.of] for name, stage in stages.items()}


def write_stages(archive: ZipFile, stages: Mapping[str, Stage]) -> None:
    """Add the state of each stage's optimizer to an open zip."""
    for name, stage in stages.items():
        if stage.optimizer is not None:
            state = io.BytesIO()
            th.save(stage.optimizer.state_dict(), state)
            archive.writestr(f"{name}{SUFFIX}", state.getvalue())


def saved_stages(archive: PolicyArchive) -> dict[str, Stage]:
    """The stages of a saved policy, read without unpickling.

    :raises ValueError: what it says of them is wrong
    """
    described, states = (archive.recipe or {}).get("stages", {}), archive.states(SUFFIX)
    try:
        return read_stages(described, states)
    except ValueError as error:
        raise ValueError(f"{archive.path} is not a saved policy that can be used: {error}") from error


def read_stages(described: object, states: Mapping[str, dict[str, Any]]) -> dict[str, Stage]:
    """The stages again.

    :param described: what :func:`describe_stages` gave
    :param states: of optimizers, by the stage's name
    :raises ValueError: it is something else
    """
    if not isinstance(described, dict) or len(described) > _MOST_STAGES:
        raise ValueError(f"'stages' should say how far each stage has come, got {str(described)[:60]}")
    stages = {}
    for name, steps in described.items():
        if not isinstance(steps, list) or len(steps) != 2 or not all(type(n) is int and n >= 0 for n in steps):
            raise ValueError(f"the stage {name[:60]!r} should have steps done and steps in all, got {str(steps)[:60]}")
        done, of = steps
        if 0 < done < of and name not in states:
            raise ValueError(f"the stage {name[:60]!r} is half done, and its optimizer is not in the file")
        stages[name] = Stage(done, of, state=states.get(name))
    return stages
