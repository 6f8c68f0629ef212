"""Checkpoints in the authors' layout. Their outputs were compared once with the authors' code (README, Segmenters)."""

import re

import pytest
import torch as th
from segment_anything.modeling.common import LayerNorm2d

from alignsam_sb3.segmenters import SEGMENTERS, SamSegmenter, load_segmenter
from alignsam_sb3.segmenters.backbones import (
    BACKBONES,
    build_edge_sam,
    build_mobile_sam,
    build_repvit_sam,
    load_weights,
)
from alignsam_sb3.segmenters.checkpoints import CHECKPOINTS

SMALL = {"repvit": build_repvit_sam, "edge_sam": build_edge_sam, "mobile_sam": build_mobile_sam}
ENTRIES = {"repvit": (1461, 1598), "edge_sam": (684, 821), "mobile_sam": (302, 439)}  # encoder, all
DEPTHS = {"repvit": (6, 6, 34, 2), "edge_sam": (2, 2, 14, 2)}
SHAPES = {  # some weights of each, as the authors name them
    "repvit": {
        "features.0.2.c.weight": (80, 40, 3, 3),
        "features.1.token_mixer.1.fc1.weight": (24, 80, 1, 1),
        "features.7.token_mixer.0.conv1.weight": (80, 1, 1, 1),
        "features.8.token_mixer.2.c.weight": (160, 80, 1, 1),
        "features.52.channel_mixer.m.0.c.weight": (1280, 640, 1, 1),
        "features.54.channel_mixer.m.2.bn.running_var": (640,),
        "neck.2.weight": (256, 256, 3, 3),
    },
    "edge_sam": {
        "features.3.token_mixer.0.conv1.c.weight": (48, 1, 1, 1),
        "features.25.channel_mixer.m.0.c.weight": (768, 384, 1, 1),
        "fuse_stage2.weight": (256, 192, 1, 1),
        "fuse_stage3.op_list.0.weight": (256, 384, 1, 1),
    },
    "mobile_sam": {
        "patch_embed.seq.2.c.weight": (64, 32, 3, 3),
        "layers.0.downsample.conv1.c.weight": (128, 64, 1, 1),
        "layers.2.blocks.5.attn.attention_biases": (5, 196),
        "layers.3.blocks.0.local_conv.c.weight": (320, 1, 3, 3),
        "neck.0.weight": (256, 320, 1, 1),
    },
}


def authors_key(name, key):
    """Our key in the authors' words; written from the table of layouts, apart from the package's renaming."""
    key = key.replace("image_encoder.backbone.", "image_encoder.")
    if name == "mobile_sam":
        if ".neck." in key or not key.startswith("image_encoder."):
            return key
        key = key.replace("patch_embed.conv1.", "patch_embed.seq.0.").replace("patch_embed.conv2.", "patch_embed.seq.2.")
        key = re.sub(r"stages\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
        key = re.sub(r"stages\.(\d)\.", r"layers.\1.", key)
        return key.replace(".conv.weight", ".c.weight")
    key = key.replace("fuse_stage3.", "fuse_stage3.op_list.0.")
    key = key.replace("stem.conv1", "features.0.0").replace("stem.conv2", "features.0.2")
    first = 1
    for stage, depth in enumerate(DEPTHS[name]):
        down = f"stages.{stage}.downsample."
        if stage:
            key = key.replace(down + "pre_block.", f"features.{first}.")
            for ours, theirs in (
                ("spatial_downsample", "token_mixer.0"),
                ("channel_downsample", "token_mixer.2"),
                ("ffn.conv1", "channel_mixer.m.0"),
                ("ffn.conv2", "channel_mixer.m.2"),
            ):
                key = key.replace(down + ours, f"features.{first + 1}.{theirs}")
            first += 2
        for k in range(depth):
            key = key.replace(f"stages.{stage}.blocks.{k}.", f"features.{first + k}.")
        first += depth
    key = re.sub(r"(features\.\d+)\.token_mixer\.(?!\d\.)", r"\1.token_mixer.0.", key)
    key = re.sub(r"(features\.\d+)\.se\.", r"\1.token_mixer.1.", key)
    key = re.sub(r"(features\.\d+)\.channel_mixer\.conv1", r"\1.channel_mixer.m.0", key)
    return re.sub(r"(features\.\d+)\.channel_mixer\.conv2", r"\1.channel_mixer.m.2", key)


def scatter(model):
    """Random statistics and biases too, so that every weight matters."""
    th.manual_seed(1)
    for key, value in model.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.ndim <= 2:
            value.add_(0.1 * th.randn_like(value))
    return model


@pytest.fixture(scope="module", params=SMALL)
def published(request, tmp_path_factory):
    """Name, a model, and its weights in a file as the authors would have written it."""
    name = request.param
    sam = scatter(SMALL[name](128)).eval()
    weights = {authors_key(name, key): value for key, value in sam.state_dict().items()}
    if name == "mobile_sam":  # their classifier, which no segmenter uses
        weights |= {
            f"image_encoder.{k}": th.zeros(3) for k in ("head.weight", "head.bias", "norm_head.weight", "norm_head.bias")
        }
    path = tmp_path_factory.mktemp(name) / "weights.pt"
    th.save(weights, path)
    return name, sam, weights, path


def test_the_authors_layout(published):
    name, _, weights, _ = published
    encoder = [key for key in weights if key.startswith("image_encoder.")]
    assert (len(encoder), len(weights)) == ENTRIES[name]
    assert {k: tuple(weights[f"image_encoder.{k}"].shape) for k in SHAPES[name]} == SHAPES[name]


def test_a_published_file_loads_and_computes_the_same(published):
    name, sam, _, path = published
    loaded = SMALL[name](128)
    images = th.randn(2, 3, 128, 128)
    with th.no_grad():
        before = loaded.eval().image_encoder(images)  # fills the caches that some of timm's blocks keep
        segmenter = SamSegmenter(load_weights(loaded, path, name, BACKBONES[name].rename), "cpu", name)
        wanted, found = sam.image_encoder(images), segmenter.sam.image_encoder(images)
    assert not segmenter.sam.training
    assert found.shape == (2, 256, 8, 8)
    assert (found - wanted).abs().max() < 2e-5
    assert (found - before).abs().max() > 0.1


def test_the_necks_epsilon(published):
    neck = published[1].image_encoder.neck
    assert [m.eps for m in neck if isinstance(m, LayerNorm2d)] == [1e-6, 1e-6]


def test_leftovers_and_gaps_are_named(published, tmp_path):
    name, _, weights, _ = published
    th.save({**weights, "image_encoder.features.999.x": th.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(ValueError, match=r"1 unknown \(first \['image_encoder.*features.999.x"):
        load_weights(SMALL[name](128), tmp_path / "more.pt", name, BACKBONES[name].rename)
    th.save({k: v for k, v in weights.items() if "neck.2" not in k}, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"1 weights missing \(first \['image_encoder.neck.2.weight"):
        load_weights(SMALL[name](128), tmp_path / "less.pt", name, BACKBONES[name].rename)


def test_another_kinds_file_is_refused(published):
    name, _, _, path = published
    other = next(kind for kind in SMALL if kind != name)
    with pytest.raises(ValueError, match=f"another architecture than '{other}'"):
        load_weights(SMALL[other](128), path, other, BACKBONES[other].rename)


def test_every_kind_has_a_checkpoint():
    assert set(BACKBONES) == set(CHECKPOINTS)
    assert set(SEGMENTERS) == {"tiny", "hf", *BACKBONES}


def test_random_weights_are_the_same_each_time_and_warned_of(caplog):
    before = th.random.get_rng_state()
    segmenter = load_segmenter("mobile_sam:random", "cpu")
    assert "random weights" in caplog.text
    assert (segmenter.img_size, segmenter.embedding_shape) == (1024, (256, 64, 64))
    assert th.equal(before, th.random.get_rng_state())
    load_segmenter.cache_clear()
    assert load_segmenter("mobile_sam:random", "cpu").fingerprint == segmenter.fingerprint
