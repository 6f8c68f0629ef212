"""Several processes that train one policy, each on its own episodes: ``torchrun --nproc-per-node 2 scripts/train.py ...``.

Gradients are averaged by ``torch.distributed`` as they are computed, so Stable-Baselines3's own loop stays as it is. Two
processes do what one does with twice the environments and twice the batch, up to the order of sums.
"""

import os

import torch as th
from torch import distributed, nn


def rank() -> int:
    """Number of this process; 0 where there is one only."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def join() -> str | None:
    """Join the processes that torchrun started, if it did.

    :return: the device that this process is to train on; None where there is one process only
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    on_gpu = th.cuda.is_available()
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    if not on_gpu:
        return "cpu"
    local = int(os.environ.get("LOCAL_RANK", "0")) % th.cuda.device_count()
    th.cuda.set_device(local)
    return f"cuda:{local}"


def average_gradients(module: nn.Module) -> None:
    """Begin with the first process's weights, and average every gradient over all processes as soon as it is there."""
    for tensor in module.state_dict().values():
        distributed.broadcast(tensor, 0)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_average)  # type: ignore[no-untyped-call]


def _average(parameter: th.Tensor) -> None:
    assert parameter.grad is not None
    distributed.all_reduce(parameter.grad)
    parameter.grad /= world()


def standardised(values: th.Tensor) -> th.Tensor:
    """Values (B,) of a minibatch less their mean and by their standard deviation, over all processes."""
    sums = th.stack([values.sum(), values.square().sum(), th.tensor(float(len(values)), device=values.device)]).double()
    distributed.all_reduce(sums)
    total, squares, count = sums
    mean = total / count
    deviation = ((squares - count * mean**2) / (count - 1)).clamp(min=0).sqrt()
    out: th.Tensor = ((values - mean) / (deviation + 1e-8)).to(values.dtype)
    return out


def offset_of(n_envs: int) -> int:
    """What to add to a seed so that no two processes see the same episodes."""
    return rank() * n_envs
