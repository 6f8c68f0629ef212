"""Maps over the segmenter's frame: to other grids, and what language says of a task in a fixed number of them."""

import torch as th
from torch.nn import functional as F

_TARGET_TEMPERATURE = 0.33
N_GUIDES = 5  # target, rivals, image (not padding), and how strong the target and the strongest rival are


def on_grid(x: th.Tensor, side: int) -> th.Tensor:
    """Bring a map (B, C, h, w) of the frame to side x side: averaged down, or interpolated where that is finer."""
    height, width = x.shape[-2:]
    if height == width and height % side == 0:  # the same as the adaptive kind, and several times as fast
        return x if height == side else F.avg_pool2d(x, height // side)
    if min(height, width) >= side:
        return F.adaptive_avg_pool2d(x, (side, side))
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False)


def scale_target(similarity_maps: th.Tensor, target: th.Tensor, temperature: float = _TARGET_TEMPERATURE) -> th.Tensor:
    """Weight the target's map up and the others down, each image by itself.

    The weights are the softmax of the one-hot target over the temperature, relative to the target's own weight.

    :param similarity_maps: (B, N, h, w)
    :param target: (B, N) one-hot
    """
    weights = (target / temperature).softmax(dim=1)
    return similarity_maps * (weights / weights.amax(1, keepdim=True))[..., None, None]


def standard_cosines(cosine_maps: th.Tensor, inside: th.Tensor) -> th.Tensor:
    """Cosines as thirds of a standard deviation from their mean, over all texts and places of one image; 0 in the padding.

    CLIPs differ in where their cosines lie; how those of one image compare with each other is what counts.

    :param cosine_maps: (B, N, h, w)
    :param inside: (B, 1, h, w) 1 in the image, 0 in its padding
    """
    count = inside.sum((1, 2, 3), keepdim=True) * cosine_maps.shape[1]
    mean = (cosine_maps * inside).sum((1, 2, 3), keepdim=True) / count
    centred = (cosine_maps - mean) * inside
    return centred / (3 * (centred.square().sum((1, 2, 3), keepdim=True) / count).sqrt() + 1e-4)


def guide_maps(similarity_maps: th.Tensor, cosine_maps: th.Tensor, target: th.Tensor) -> th.Tensor:
    """What language says of the task in five maps (B, 5, h, w), whatever the number of categories and their order.

    The five are: the target's map; the strongest of the others, scaled down; 1 in the image and 0 in its padding; the target's
    standardised cosine; the highest cosine of the others. Without others, theirs are 0. Each map alone has a maximum of 1,
    whatever is there. The cosines tell which of the texts suits a place.

    :param similarity_maps: (B, N, h, w) in [0, 1], negative in the padding
    :param cosine_maps: (B, N, h, w)
    :param target: (B, N) one-hot
    """
    inside = (similarity_maps[:, :1] >= 0).float()
    scaled = scale_target(similarity_maps.clamp(min=0), target)
    chosen = target[..., None, None] > 0.5
    wanted = scaled.masked_fill(~chosen, 0).amax(1, keepdim=True)
    rivals = scaled.masked_fill(chosen, 0).amax(1, keepdim=True)
    strength = standard_cosines(cosine_maps, inside)
    strong = strength.masked_fill(~chosen, -th.inf).amax(1, keepdim=True)
    others = strength.masked_fill(chosen, -th.inf).amax(1, keepdim=True)
    return th.cat([wanted, rivals, inside, strong, th.where(others.isinf(), 0.0, others)], dim=1)
