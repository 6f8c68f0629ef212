"""CLIP Surgery's formulas (Li et al., "A closer look at the explainability of CLIP", arXiv 2304.05653), as pure functions.

CLIP's own tokens say little about places: what matches a text often lies off the object. The surgery adds a second path to
the last blocks of the image tower. In it, tokens attend to tokens with similar values (v-v attention), and no MLP follows.
What all texts have in common is taken from the similarities. Nothing here changes the model.
"""

import numpy as np
import torch as th
from numpy.typing import NDArray
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch.nn import functional as F

from alignsam_sb3.clickers import Click

N_DUAL = 6
_ROUNDING = 1e-6  # similarities are of the order of 0.02
_ASKED = 8  # tokens of the last block's ordinary path, where one would do: products of very few rows are rounded otherwise


def check_tower(visual: object) -> VisionTransformer:
    """The image tower, if it is one that surgery is defined for.

    :raises TypeError: it is a ResNet, a timm tower, or has blocks or pooling of another kind
    """
    wanted = "CLIP Surgery needs open_clip's own ViT with a class token and standard blocks (ViT-B-16, ViT-L-14, ...)"
    if not isinstance(visual, VisionTransformer):
        raise TypeError(f"{wanted}, got a {type(visual).__name__}")
    odd = [type(b).__name__ for b in visual.transformer.resblocks if not isinstance(b, ResidualAttentionBlock)]
    if odd or visual.attn_pool is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
        raise TypeError(f"{wanted}; this one has {odd[0] if odd else 'another pooling'}")
    return visual


def fit_positions(positions: th.Tensor, trained: tuple[int, int], grid: tuple[int, int]) -> th.Tensor:
    """Position embeddings (1 + h w, width) of another grid, bilinearly; the class token's comes first and stays."""
    spatial = F.interpolate(positions[1:].T.reshape(1, -1, *trained), grid, mode="bilinear", align_corners=False)
    return th.cat([positions[:1], spatial[0].flatten(1).T])


def _embed(visual: VisionTransformer, images: th.Tensor) -> tuple[th.Tensor, tuple[int, int]]:
    """Tokens (B, 1 + g_h g_w, width) before the first block, and the grid; position embeddings are fitted to its size."""
    patches = visual.conv1(images)
    grid = (patches.shape[-2], patches.shape[-1])
    tokens = patches.flatten(2).transpose(1, 2)
    positions = visual.positional_embedding
    if grid != tuple(visual.grid_size):
        positions = fit_positions(positions, tuple(visual.grid_size), grid)
    first = visual.class_embedding.expand(len(tokens), 1, -1).to(tokens.dtype)
    return visual.ln_pre(th.cat([first, tokens], dim=1) + positions.to(tokens.dtype)), grid


def _attend(block: ResidualAttentionBlock, x: th.Tensor, asked: int | None) -> tuple[th.Tensor, th.Tensor]:
    """What a block's attention adds, ordinarily (softmax(q k) v) and in the new path (softmax(v v) v).

    :param asked: to how many of the first tokens ordinarily; None: to all
    :return: (B, asked, width) and (B, T, width)
    """
    attention = block.attn
    y = block.ln_1(x)
    batch, tokens, width = y.shape
    heads = attention.num_heads
    projected = F.linear(y, attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = (p.reshape(batch, tokens, heads, width // heads).transpose(1, 2) for p in projected.chunk(3, dim=-1))
    both = [F.scaled_dot_product_attention(a, b, v) for a, b in ((q[:, :, :asked], k), (v, v))]
    ordinary, new = (block.ls_1(attention.out_proj(o.transpose(1, 2).reshape(batch, -1, width))) for o in both)
    return ordinary, new


def surgery_tokens(visual: VisionTransformer, images: th.Tensor, n_dual: int = N_DUAL) -> tuple[th.Tensor, tuple[int, int]]:
    """Tokens of the dual path, projected to the space of the texts and not normalised (arXiv 2304.05653, section 3.2).

    The first token is the class token of the ordinary path. Sizes other than the one trained with are met by bilinear
    interpolation of the position embedding.

    :param images: (B, 3, H, W) normalised as the model expects
    :param n_dual: how many of the last blocks get the second path; all where there are fewer
    :return: (B, 1 + g_h g_w, embed_dim) and the grid (g_h, g_w)
    """
    x, grid = _embed(visual, images)
    blocks = list(visual.transformer.resblocks)
    plain = max(len(blocks) - n_dual, 0)
    for block in blocks[:plain]:
        x = block(x)
    new = x
    for block in blocks[plain:]:
        asked = _ASKED if block is blocks[-1] else None  # of the last one only the class token is read
        ordinary, added = _attend(block, x, asked)
        x = x[:, :asked] + ordinary
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
        new = new + added
    joined = th.cat([x[:, :1], new[:, 1:]], dim=1)
    return visual.ln_post(joined) @ visual.proj, grid


def feature_surgery(image: th.Tensor, text: th.Tensor, redundant: th.Tensor | None = None) -> th.Tensor:
    """Similarities (B, T, N) without what is redundant (arXiv 2304.05653, section 3.3).

    With several texts, what they all have in common is taken away; each text is weighted by how well it suits the image. With
    ``redundant``, that feature's similarity is taken away.

    :param image: (B, T, D) normalised tokens, the class token first
    :param text: (N, D) normalised
    :param redundant: (D,) or (1, D), normalised; needed where N = 1, which has nothing to compare with
    """
    if redundant is not None:
        return image @ (text - redundant.reshape(1, -1)).T
    if len(text) < 2:
        raise ValueError(
            "feature surgery compares texts with each other, and one text leaves nothing: "
            'give a second text, or redundant=the features of "" (ClipSurgery does so by itself)'
        )
    suits = (2 * image[:, :1] @ text.T).softmax(dim=-1)
    weights = suits / suits.mean(dim=-1, keepdim=True)
    weighted: th.Tensor = weights * (image @ text.T)
    return weighted - weighted.mean(dim=-1, keepdim=True)


def to_unit_range(similarity: th.Tensor) -> th.Tensor:
    """Min-max over places (B, HW, N); a constant map (but for rounding) says nothing of places and becomes 0.5 everywhere."""
    low, high = similarity.amin(1, keepdim=True), similarity.amax(1, keepdim=True)
    flat = high - low <= _ROUNDING
    return th.where(flat, th.full_like(similarity, 0.5), (similarity - low) / th.where(flat, th.ones_like(low), high - low))


def similarity_maps(similarity: th.Tensor, grid: tuple[int, int], size: tuple[int, int] | None = None) -> th.Tensor:
    """Maps in [0, 1] (B, N, h, w) of the similarities of the spatial tokens (B, g_h g_w, N).

    :param grid: (g_h, g_w)
    :param size: enlarge (bilinearly, after min-max) to (h, w); by default the grid itself
    """
    maps = to_unit_range(similarity).transpose(1, 2).reshape(len(similarity), -1, *grid)
    if size is None or tuple(size) == tuple(grid):
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def similarity_map_to_points(
    similarity_map: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.8, down_sample: int = 2
) -> list[Click]:
    """Clicks without learning (arXiv 2304.05653, section 4.5): likely places positive, as many of the least likely negative.

    :param similarity_map: (g_h, g_w)
    :param size: (height, width) of the image in pixels
    :param threshold: a place at least this likely, after min-max of the reduced map, is a positive click
    :param down_sample: the map is reduced by this factor first, so that clicks keep a distance
    """
    rows, columns = (max(int(s) // down_sample, 1) for s in similarity_map.shape)
    small = F.interpolate(th.as_tensor(similarity_map)[None, None], (rows, columns), mode="bilinear", align_corners=False)
    flat = to_unit_range(small.reshape(1, -1, 1)).flatten()
    count = min(int((flat >= threshold).sum()), len(flat) // 2)
    order = flat.argsort(stable=True)
    chosen = [*order[len(order) - count :].tolist(), *order[:count].tolist()]
    return [(_centre_of(int(i), (rows, columns), size), int(k < count)) for k, i in enumerate(chosen)]


def top_point(similarity_map: NDArray[np.float32], size: tuple[int, int]) -> Click:
    """One positive click at the centre of the most likely place of a map (g_h, g_w)."""
    grid = (similarity_map.shape[0], similarity_map.shape[1])
    return _centre_of(int(similarity_map.argmax()), grid, size), 1


def _centre_of(place: int, grid: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Pixel (x, y) at the centre of a cell."""
    row, column = divmod(place, grid[1])
    x, y = int((column + 0.5) * size[1] / grid[1]), int((row + 0.5) * size[0] / grid[0])
    return min(x, size[1] - 1), min(y, size[0] - 1)
