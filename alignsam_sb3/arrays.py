"""Arrays and tensors alike: what functions on masks take."""

from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray

ArrayLike = NDArray[Any] | th.Tensor


def as_array(values: ArrayLike) -> NDArray[Any]:
    """An array, of a tensor on any device a copy or view on the CPU."""
    return values.detach().cpu().numpy() if isinstance(values, th.Tensor) else np.asarray(values)


def on_device(values: ArrayLike, device: th.device) -> th.Tensor:
    """A tensor on a device; the host does not wait until a card has copied it."""
    tensor = values if isinstance(values, th.Tensor) else th.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def as_mask(values: ArrayLike) -> NDArray[np.bool_]:
    """A mask (H, W) bool; numbers may be 0 and 1 only.

    :raises ValueError: there are others
    """
    found = as_array(values)
    if found.dtype == np.bool_:
        return found
    mask = found == 1
    if not (mask | (found == 0)).all():
        raise ValueError(
            f"a mask holds True and False, or 1 and 0; got {found.dtype} from {found.min():.4g} to {found.max():.4g}: "
            "say where the object is, as in probabilities > 0.5"
        )
    return np.asarray(mask)
