import numpy as np
import pytest
import torch as th
from segment_anything import SamPredictor

from alignsam_sb3.segmenters import Prompts, SamSegmenter, load_segmenter
from alignsam_sb3.segmenters.decoder import all_masks
from alignsam_sb3.segmenters.fine import FINE
from alignsam_sb3.segmenters.tiny import TinySamConfig, build_tiny_sam, load_tiny_sam, save_tiny_sam
from alignsam_sb3.session import open_sessions

RNG = np.random.default_rng(0)
SIZES = [(128, 128), (97, 61), (40, 200)]
IMAGES = [RNG.integers(0, 255, (*size, 3), dtype=np.uint8) for size in SIZES]
CONFIG = TinySamConfig(fine_chans=(5, 7))


def build(seed=0):
    th.manual_seed(seed)
    return build_tiny_sam(CONFIG)


@pytest.fixture(scope="module")
def segmenter():
    sam = build()
    for parameter in sam.mask_decoder.parameters():
        parameter.data.copy_(th.randn_like(parameter) * 0.15)
    return SamSegmenter(sam, "cpu", "random")


def prompts(points, fed=None, which=slice(None)):
    coords, labels = zip(*points[which], strict=True)
    return Prompts.of(list(coords), list(labels), SIZES[which], fed)


def test_before_the_fit_masks_are_sams_own_enlarged():
    sam = build().eval()
    dense, sparse, pe = th.randn(2, 96, 16, 16), th.randn(2, 3, 96), sam.prompt_encoder.get_dense_pe()
    fine = tuple(th.randn(2, *sam.image_encoder.fine_shapes[name]) for name in FINE)
    logits, iou = all_masks(sam.mask_decoder, pe, sparse, dense, *fine)
    own, own_iou = super(type(sam.mask_decoder), sam.mask_decoder).predict_masks(th.zeros(1, 96, 16, 16), pe, sparse, dense)
    assert logits.shape == (2, 4, 128, 128)
    assert th.allclose(logits, own.repeat_interleave(2, 2).repeat_interleave(2, 3), atol=1e-5)
    assert th.allclose(iou, own_iou, atol=1e-5)


@pytest.mark.parametrize("level", FINE)
def test_each_finer_feature_moves_the_outline(segmenter, level):
    points = [(np.array([[20.0, 20.0]]), np.array([1]))] * 3
    features = segmenter.encode(IMAGES)
    assert {name: tuple(x.shape[1:]) for name, x in features.items()} == segmenter.feature_shapes
    before = segmenter.decode(features, prompts(points)).logits
    after = segmenter.decode(features | {level: features[level] + 1}, prompts(points)).logits
    assert (before - after).abs().max() > 1e-2


def test_images_are_decoded_as_if_alone(segmenter):
    points = [(RNG.uniform(0, 40, (n, 2)), RNG.integers(0, 2, n)) for n in (1, 4, 2)]
    fed = [None, th.randn(128, 128), None]
    features = segmenter.encode(IMAGES)
    together = segmenter.decode(features, prompts(points, fed))
    for i in range(3):
        mine = {name: x[i : i + 1] for name, x in features.items()}
        alone = segmenter.decode(mine, prompts(points, fed[i : i + 1], slice(i, i + 1)))
        assert th.allclose(alone.logits[0], together.logits[i], atol=1e-4)
        assert th.allclose(alone.iou[0], together.iou[i], atol=1e-4)


def test_sessions_keep_fine_logits_show_coarse_probabilities_and_feed_the_answer_back(segmenter):
    sessions = open_sessions(segmenter, IMAGES)
    for place in (10, 30):
        sessions.click(np.arange(3), np.full((3, 1, 2), place), np.ones((3, 1), int))
    assert sessions.logits.shape == (3, 128, 128)
    shown = sessions.logits.sigmoid().unfold(1, 2, 2).unfold(2, 2, 2).mean((3, 4))
    assert th.allclose(sessions.probabilities, shown, atol=1e-6)
    points = [(np.array([[10.0, 10.0], [30.0, 30.0]]), np.ones(2, int))] * 3
    forgotten = segmenter.decode(segmenter.encode(IMAGES), prompts(points)).best()[0]
    assert (forgotten - sessions.logits).abs().max() > 1e-2
    assert [mask.shape for mask in sessions.masks()] == SIZES


def test_it_is_saved_and_read_again(tmp_path):
    sam = build(1)
    save_tiny_sam(sam, CONFIG, tmp_path / "fine.safetensors", {"steps": "0"})
    read = load_tiny_sam(tmp_path / "fine.safetensors")
    assert SamSegmenter(read.half().float(), "cpu").mask_side == 128
    assert th.allclose(read.mask_decoder.edges.weight, sam.mask_decoder.edges.weight, atol=1e-3)


def test_sam_predictor_which_knows_no_finer_features_is_told_so(segmenter):
    predictor = SamPredictor(segmenter.sam)
    predictor.set_image(IMAGES[0])
    with pytest.raises(TypeError, match="needs the encoder's finer features"):
        predictor.predict(np.array([[3, 3]]), np.array([1]))


@pytest.mark.parametrize(("option", "tolerance"), [("fuse", 2e-3), ("onnx", 1e-3), ("compile", 1e-3)])
def test_options_change_little(segmenter, option, tolerance):
    if option == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    sam = build()
    sam.load_state_dict(segmenter.sam.state_dict())
    fast = SamSegmenter(sam, "cpu", "random", [option])
    points = [(np.array([[20.0, 20.0]]), np.array([1]))] * 3
    slow, quick = (s.decode(s.encode(IMAGES), prompts(points)).logits for s in (segmenter, fast))
    assert (slow - quick).abs().max() < tolerance * slow.abs().max()


def test_the_embedded_one_is_folded_and_stays_frozen():
    segmenter = load_segmenter("tiny", "cpu")
    encoder = segmenter.sam.image_encoder
    assert not any(isinstance(module, th.nn.BatchNorm2d) for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    plain = load_tiny_sam().eval()
    batch = segmenter._pixels(np.random.default_rng(0).integers(0, 256, (100, 128, 3), np.uint8))[None]
    with th.no_grad():
        wanted, found = (one.features(batch) for one in (plain.image_encoder, encoder))
    for name, values in wanted.items():
        assert th.allclose(found[name], values, atol=2e-5 * float(values.abs().max())), name  # half precision: 5e-4
