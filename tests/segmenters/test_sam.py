import numpy as np
import pytest
import torch as th
from segment_anything import SamPredictor

from alignsam_sb3.datasets.toy.objects import draw_scene
from alignsam_sb3.segmenters import PromptableSegmenter, Prompts, SamSegmenter, load_segmenter
from alignsam_sb3.segmenters.base import TOKENS_ENCODED
from alignsam_sb3.segmenters.tiny import build_tiny_sam

RNG = np.random.default_rng(0)
SIZES = [(128, 128), (97, 61), (40, 200)]
IMAGES = [RNG.integers(0, 255, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture(scope="module")
def segmenter():
    """Random weights in eval mode, scaled so that logits are not all near zero."""
    th.manual_seed(0)
    sam = build_tiny_sam()
    for parameter in sam.mask_decoder.parameters():
        parameter.data.mul_(1.5)
    return SamSegmenter(sam, "cpu", "random")


def clicks(n, size):
    coords = RNG.uniform(0, 1, (n, 2)) * [size[1] - 1, size[0] - 1]
    return coords.astype(np.float32), RNG.integers(0, 2, n)


@pytest.mark.parametrize("n", [1, 3, 7])
@pytest.mark.parametrize("multimask", [True, False])
def test_a_batch_of_different_images_agrees_with_sam_predictor(segmenter, n, multimask):
    points = [clicks(n, size) for size in SIZES]
    prompts = Prompts.of([p[0] for p in points], [p[1] for p in points], SIZES)
    answer = segmenter.decode(segmenter.encode(IMAGES), prompts, multimask)
    predictor = SamPredictor(segmenter.sam)
    for i, image in enumerate(IMAGES):
        predictor.set_image(image)
        _, iou, logits = predictor.predict(*points[i], multimask_output=multimask)
        assert np.abs(answer.logits[i].numpy() - logits).max() < 1e-4
        assert np.abs(answer.iou[i].numpy() - iou).max() < 1e-4
        again = predictor.predict(*points[i], mask_input=logits[:1], multimask_output=multimask)[2]
        fed = Prompts.of([points[i][0]], [points[i][1]], [SIZES[i]], [th.as_tensor(logits[0])])
        ours = segmenter.decode(segmenter.encode([image]), fed, multimask).logits[0].numpy()
        assert np.abs(ours - again).max() < 1e-4
        assert np.abs(again - logits).max() > 1e-3  # the fed-back mask matters


def test_different_numbers_of_points_are_decoded_as_if_alone(segmenter):
    points = [clicks(n, size) for n, size in zip((1, 4, 2), SIZES, strict=True)]
    embeddings = segmenter.encode(IMAGES)
    fed = [None, th.randn(64, 64), None]
    prompts = Prompts.of([p[0] for p in points], [p[1] for p in points], SIZES, fed)
    together = segmenter.decode(embeddings, prompts)
    for i in range(3):
        alone = Prompts.of([points[i][0]], [points[i][1]], [SIZES[i]], [fed[i]])
        assert th.allclose(
            segmenter.decode({"embeddings": embeddings["embeddings"][i : i + 1]}, alone).logits[0],
            together.logits[i],
            atol=1e-5,
        )


def test_postprocess_is_sams(segmenter):
    predictor = SamPredictor(segmenter.sam)
    for image, size in zip(IMAGES, SIZES, strict=True):
        predictor.set_image(image)
        masks, _, logits = predictor.predict(*clicks(2, size))
        assert np.array_equal((segmenter.postprocess(th.as_tensor(logits), size) > 0).numpy(), masks)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (333, 2), (129, 127), (6001, 8000)])
def test_odd_sizes(segmenter, size):
    image = RNG.integers(0, 255, (*size, 3), dtype=np.uint8)
    prompts = Prompts.of([np.zeros((1, 2), np.float32)], [np.ones(1, np.int64)], [size])
    answer = segmenter.decode(segmenter.encode([image]), prompts)
    assert segmenter.postprocess(answer.best()[0], size).shape == (1, *size)
    assert max(segmenter.frame.extent(size)) == 128


def test_best_takes_the_highest_predicted_iou(segmenter):
    prompts = Prompts.of([clicks(1, s)[0] for s in SIZES], [np.ones(1, np.int64)] * 3, SIZES)
    answer = segmenter.decode(segmenter.encode(IMAGES), prompts)
    logits, iou = answer.best()
    assert th.equal(iou, answer.iou.max(1).values)
    assert logits.shape == (3, 64, 64)


def test_it_is_frozen_shared_and_satisfies_the_protocol():
    segmenter = load_segmenter("tiny", "cpu")
    assert isinstance(segmenter, PromptableSegmenter)
    assert segmenter is load_segmenter("tiny", "cpu")
    assert not segmenter.sam.training
    assert not any(p.requires_grad for p in segmenter.sam.parameters())


def test_the_fingerprint_follows_the_weights(segmenter):
    th.manual_seed(0)
    other = build_tiny_sam()
    one = SamSegmenter(other, "cpu", "random").fingerprint
    next(other.parameters()).data.add_(1e-3)
    assert SamSegmenter(other, "cpu", "random").fingerprint != one


def test_bad_prompts_and_embeddings_are_named(segmenter):
    with pytest.raises(ValueError, match="neither a point nor a box"):
        Prompts.of([np.zeros((0, 2), np.float32)], [np.zeros(0, np.int64)], [(4, 4)])
    with pytest.raises(ValueError, match="one for each image is needed"):
        Prompts.of([np.zeros((1, 2), np.float32)], [], [(4, 4)])
    prompts = Prompts.of([np.zeros((1, 2), np.float32)], [np.ones(1, np.int64)], [(4, 4)])
    with pytest.raises(ValueError, match="encoded by another segmenter"):
        segmenter.decode({"embeddings": th.zeros(1, 8, 16, 16)}, prompts)


def test_nan_weights_are_refused():
    sam = build_tiny_sam()
    next(sam.parameters()).data[0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinite weights"):
        SamSegmenter(sam, "cpu")


def test_checkpoints_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'vit_b'"):
        load_segmenter("vitb")
    with pytest.raises(FileNotFoundError, match="ALIGNSAM_OFFLINE forbids downloads"):
        load_segmenter("vit_b")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of 'vit_b' at .*nosuch"):
        load_segmenter("vit_b:/nosuch.pth")
    th.save(build_tiny_sam().state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(ValueError, match="another architecture than 'vit_b'"):
        load_segmenter(f"vit_b:{tmp_path / 'tiny.pth'}")
    for i, nonsense in enumerate((b"PK nonsense", b"hello, world\n", b"")):
        (tmp_path / f"cut{i}.pth").write_bytes(nonsense)
        with pytest.raises(ValueError, match="no readable checkpoint"):
            load_segmenter(f"vit_b:{tmp_path / f'cut{i}.pth'}")
    (tmp_path / "cut.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a tiny SAM"):
        load_segmenter(f"tiny:{tmp_path / 'cut.safetensors'}")


def test_a_real_sams_checkpoint_loads_as_it_is(tmp_path):
    """ViT-B with random weights in the upstream layout."""
    from segment_anything import build_sam_vit_b

    th.save(build_sam_vit_b().state_dict(), tmp_path / "sam_vit_b.pth")
    segmenter = load_segmenter(f"vit_b:{tmp_path / 'sam_vit_b.pth'}", "cpu")
    assert segmenter.embedding_shape == (256, 64, 64)
    assert segmenter.img_size == 1024


@pytest.mark.parametrize(("option", "tolerance"), [("channels_last", 1e-4), ("fuse", 2e-3), ("onnx", 1e-4), ("bf16", 1.0)])
def test_options_change_little(tiny, option, tolerance):
    if option == "onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    fast = load_segmenter(f"tiny?{option}", "cpu")
    images = [scene.image for scene in (draw_scene(np.random.default_rng(i)) for i in range(3))]
    for batch, n in ((images, 2), (images[:1], 5), (images[:2], 1)):
        points = [clicks(n, image.shape[:2]) for image in batch]
        prompts = Prompts.of([p[0] for p in points], [p[1] for p in points], [(128, 128)] * len(batch))
        wanted = tiny.decode(tiny.encode(batch), prompts)
        found = fast.decode(fast.encode(batch), prompts)
        assert found.logits.dtype == th.float32
        assert (found.logits - wanted.logits).abs().max() < tolerance * wanted.logits.abs().max()
        assert ((found.logits > 0) == (wanted.logits > 0)).float().mean() > 0.98
    same_bank = fast.fingerprint == tiny.fingerprint
    assert same_bank == (option == "onnx")  # which changes no embedding


def test_unknown_options_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'channels_last'"):
        load_segmenter("tiny?fuse&chanels_last", "cpu")


def test_as_many_images_are_encoded_at_once_as_fit_into_memory(segmenter, monkeypatch):
    """A batch of a full-size SAM would take tens of gigabytes; what it says of each image is the same."""
    asked, encode = [], segmenter.encode_group
    monkeypatch.setattr(segmenter, "encode_group", lambda images: asked.append(len(images)) or encode(images))
    together = segmenter.encode(IMAGES)["embeddings"]
    monkeypatch.setitem(TOKENS_ENCODED, "cpu", 2 * 16 * 16)
    apart = segmenter.encode(IMAGES)["embeddings"]
    assert asked == [3, 2, 1]
    assert th.allclose(together, apart, atol=1e-5)
    monkeypatch.setitem(TOKENS_ENCODED, "cpu", 1)
    assert len(segmenter.encode(IMAGES)["embeddings"]) == 3
