"""The formulas, against a second way to compute each, and the corners where the published method gives NaN."""

import copy

import numpy as np
import open_clip
import pytest
import torch as th
from open_clip.model import CLIP
from torch.nn import functional as F

from alignsam_sb3.semantics import ClipSurgery, similarity_map_to_points, top_point
from alignsam_sb3.semantics.clip_surgery import check_tower, feature_surgery, similarity_maps, surgery_tokens, to_unit_range
from alignsam_sb3.semantics.prompts import TEMPLATES


def new_clip(layers=8, quick=False, image_size=64, patch=16):
    th.manual_seed(0)
    vision = {"layers": layers, "width": 32, "head_width": 16, "patch_size": patch, "image_size": image_size}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    clip = CLIP(24, vision, text, quick_gelu=quick)
    for parameter in clip.parameters():  # weights far from their initial zeros and ones, so that every term counts
        parameter.data.add_(0.1 * th.randn_like(parameter))
    return clip.eval()


@pytest.fixture(scope="module")
def clip():
    return new_clip()


def tokens_by_hand(visual, image, n_dual):
    """One image, one head and one token at a time."""
    x = visual.conv1(image[None])[0].flatten(1).T
    side = round(len(x) ** 0.5)
    place = visual.positional_embedding
    if side * side + 1 != len(place):
        old = visual.grid_size[0]
        grown = F.interpolate(place[1:].reshape(1, old, old, -1).permute(0, 3, 1, 2), (side, side), mode="bilinear")
        place = th.cat([place[:1], grown[0].permute(1, 2, 0).reshape(side * side, -1)])
    x = visual.ln_pre(th.cat([visual.class_embedding[None], x]) + place)
    blocks = list(visual.transformer.resblocks)
    new = None
    for i, block in enumerate(blocks):
        if i == len(blocks) - n_dual:
            new = x.clone()
        y = block.ln_1(x)
        w, b = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
        q, k, v = (y @ w[j].T + b[j] for j in range(3))
        size = q.shape[1] // block.attn.num_heads
        both = []
        for left, right in ((q, k), (v, v)):
            heads = []
            for h in range(block.attn.num_heads):
                cut = slice(h * size, (h + 1) * size)
                weights = (left[:, cut] @ right[:, cut].T * size**-0.5).softmax(-1)
                heads.append(weights @ v[:, cut])
            both.append(th.cat(heads, 1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias)
        if new is not None:
            new = new + both[1]
        x = x + both[0]
        x = x + block.mlp(block.ln_2(x))
    return visual.ln_post(th.cat([x[:1], new[1:]])) @ visual.proj


@pytest.mark.parametrize("n_dual", [1, 6])
@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("quick", [False, True])
def test_tokens_are_those_of_the_paper(n_dual, side, quick):
    clip = new_clip(quick=quick)
    images = th.randn(3, 3, side, side)
    with th.no_grad():
        tokens, grid = surgery_tokens(clip.visual, images, n_dual)
        expected = th.stack([tokens_by_hand(clip.visual, image, n_dual) for image in images])
    assert grid == (side // 16, side // 16)
    assert (tokens - expected).abs().max() < 5e-6 * expected.abs().max()


def test_the_class_token_is_clips_own(clip):
    images = th.randn(2, 3, 64, 64)
    with th.no_grad():
        tokens, _ = surgery_tokens(clip.visual, images)
        assert th.allclose(tokens[:, 0], clip.encode_image(images), atol=1e-5)


def test_a_shallow_tower_is_dual_throughout():
    clip, images = new_clip(layers=3), th.randn(1, 3, 64, 64)
    with th.no_grad():
        assert th.equal(surgery_tokens(clip.visual, images, 6)[0], surgery_tokens(clip.visual, images, 3)[0])


def test_the_model_is_left_as_it_was(clip):
    before, keys = copy.deepcopy(clip.state_dict()), list(clip.state_dict())
    images = th.randn(1, 3, 64, 64)
    with th.no_grad():
        first = surgery_tokens(clip.visual, images)[0]
        surgery_tokens(clip.visual, th.randn(1, 3, 128, 128))
        assert th.equal(surgery_tokens(clip.visual, images)[0], first)  # another size in between changes nothing
    assert list(clip.state_dict()) == keys
    assert all(th.equal(before[k], v) for k, v in clip.state_dict().items())


def test_surgery_takes_away_what_texts_share():
    image, text = F.normalize(th.randn(2, 10, 8), dim=-1), F.normalize(th.randn(4, 8), dim=-1)
    found = feature_surgery(image, text)
    suits = th.stack([(2 * image[b, 0] @ text.T).softmax(0) for b in range(2)])
    for b in range(2):
        weight = suits[b] / suits[b].mean()
        features = image[b, :, None, :] * text[None] * weight[None, :, None]  # T x N x C, as published
        features = features - features.mean(1, keepdim=True)
        assert th.allclose(found[b], features.sum(-1), atol=1e-6)
    assert found.sum(-1).abs().max() < 1e-6
    redundant = F.normalize(th.randn(1, 8), dim=-1)
    assert th.allclose(feature_surgery(image, text, redundant), image @ text.T - image @ redundant.T, atol=1e-6)


def test_one_text_needs_something_to_compare_with():
    with pytest.raises(ValueError, match="one text leaves nothing"):
        feature_surgery(th.randn(1, 5, 8), th.randn(1, 8))


def test_constant_maps_are_no_nan():
    flat = to_unit_range(th.zeros(1, 9, 2))
    assert th.equal(flat, th.full((1, 9, 2), 0.5))
    same = feature_surgery(F.normalize(th.randn(1, 10, 8), dim=-1), F.normalize(th.randn(1, 8), dim=-1).repeat(3, 1))
    assert th.equal(to_unit_range(same[:, 1:]), th.full((1, 9, 3), 0.5))  # equal texts differ by rounding only
    maps = similarity_maps(th.zeros(1, 9, 2), (3, 3), (12, 16))
    assert maps.shape == (1, 2, 12, 16)
    assert similarity_map_to_points(np.full((4, 4), 0.5, np.float32), (32, 32)) == []


def test_maps_are_stretched_before_they_are_enlarged():
    similarity = th.arange(9.0).reshape(1, 9, 1)
    maps = similarity_maps(similarity, (3, 3), (6, 6))
    expected = F.interpolate((similarity / 8).reshape(1, 1, 3, 3), (6, 6), mode="bilinear", align_corners=False)
    assert th.allclose(maps, expected)
    assert maps.amax() < 1 + 1e-6


def test_points_are_the_likeliest_and_as_many_of_the_unlikeliest():
    one = np.zeros((8, 8), np.float32)
    one[2:4, 4:6] = 1.0  # becomes cell (1, 2) of the 4 x 4 map
    one[6:8, 0:2] = -1.0
    assert similarity_map_to_points(one, (40, 80)) == [((50, 15), 1), ((10, 35), 0)]
    assert top_point(one, (40, 80)) == ((45, 12), 1)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (1000, 7)])
def test_points_lie_in_the_image(size):
    rng = np.random.default_rng(0)
    points = similarity_map_to_points(rng.random((7, 7)).astype(np.float32), size, threshold=0.5)
    assert points
    assert all(0 <= x < size[1] and 0 <= y < size[0] for (x, y), _ in points)


def test_there_are_85_templates():
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 85
    assert "a photo of a cat." in [t.format("cat") for t in TEMPLATES]


def test_the_ensemble_is_the_normalised_mean_and_is_kept(clip, monkeypatch):
    surgery = ClipSurgery(clip, open_clip.get_tokenizer("ViT-B-16"), device="cpu")
    found = surgery.text_features(["cat", "", "cat"])
    tokens = open_clip.tokenize([t.format("cat") for t in TEMPLATES])
    with th.no_grad():
        each = F.normalize(clip.encode_text(tokens), dim=-1)
    assert th.allclose(found[0], F.normalize(each.mean(0), dim=-1), atol=1e-6)
    assert th.equal(found[0], found[2])
    monkeypatch.setattr(clip, "encode_text", None)
    assert th.equal(surgery.text_features(["cat"])[0], found[0])


def test_images_do_not_see_each_other_and_any_size_goes(clip):
    surgery = ClipSurgery(clip, open_clip.get_tokenizer("ViT-B-16"), device="cpu")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, size, np.uint8) for size in ((1, 1, 3), (31, 200, 3), (64, 64, 3))]
    together = surgery.similarity(images, ["cat", "dog"])
    assert together.maps.shape == (3, 2, 4, 4)
    assert together.scores.shape == (3, 2)
    for i, image in enumerate(images):
        alone = surgery.similarity([image], ["cat", "dog"])
        assert th.allclose(alone.maps[0], together.maps[i], atol=1e-4)
    single = surgery.similarity(images, ["cat"])
    assert th.isfinite(single.maps).all()
    assert single.maps[2].amin() == 0
    assert single.maps[2].amax() == 1


def test_bad_requests_are_refused(clip):
    tokenize = open_clip.get_tokenizer("ViT-B-16")
    with pytest.raises(ValueError, match="patches of 16 pixels, and 70 is no multiple of that: take 64"):
        ClipSurgery(clip, tokenize, 70)
    with pytest.raises(ValueError, match="0 images and 1 texts"):
        ClipSurgery(clip, tokenize, device="cpu").similarity([], ["cat"])
    with pytest.raises(TypeError, match=r"needs open_clip's own ViT.*got a ModifiedResNet"):
        check_tower(open_clip.create_model("RN50", pretrained=None).visual)
    broken = new_clip()
    broken.logit_scale.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"NaN or infinite weights \(1 tensors, first 'logit_scale'"):
        ClipSurgery(broken, tokenize)
