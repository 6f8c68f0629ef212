"""Segmenters of the transformers library: a batch says what the library says of each image alone, and nothing else loads."""

import json
from unittest.mock import MagicMock

import hf_models
import numpy as np
import pytest
import torch as th

from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.features import SegmenterSource, build_bank
from alignsam_sb3.segmenters import PromptableSegmenter, Prompts, load_segmenter, pretrained

transformers = pytest.importorskip("transformers")

PROCESSORS = {
    "sam": ("SamProcessor", "SamImageProcessor"),
    "sam2": ("Sam2Processor", "Sam2ImageProcessor"),
    "edgetam": ("Sam2Processor", "Sam2ImageProcessor"),
    "sam3_tracker": ("Sam3TrackerProcessor", "Sam3ImageProcessor"),
}
KINDS = tuple(PROCESSORS)
RNG = np.random.default_rng(0)
SIZES = [(128, 128), (97, 261), (200, 80)]  # three aspect ratios
IMAGES = [RNG.integers(0, 255, (*size, 3), dtype=np.uint8) for size in SIZES]
BOXES = [(3.0, 4.0, 90.0, 100.5), (20.0, 10.0, 250.0, 60.0), (0.0, 0.0, 79.0, 199.0)]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def segmenter(kind, hf_folder):
    return load_segmenter(f"hf:{hf_folder(kind)}", "cpu")


@pytest.fixture(scope="module")
def library(kind, hf_folder):
    """The library's own model and processor."""
    model_class = hf_models.MODELS[kind][0]
    model = getattr(transformers, model_class).from_pretrained(hf_folder(kind)).eval()
    processor, image_processor = (getattr(transformers, name) for name in PROCESSORS[kind])
    side = hf_models.SIDE_3 if kind == "sam3_tracker" else hf_models.SIDE
    square = {"height": side, "width": side}
    sizes = {"size": {"longest_edge": side}, "pad_size": square} if kind == "sam" else {"size": square}
    return model, processor(image_processor(**sizes))


def clicks(n, size):
    coords = RNG.uniform(0, 1, (n, 2)) * [size[1] - 1, size[0] - 1]
    return coords.astype(np.float32), np.arange(n) % 2 if n > 1 else np.ones(1, np.int64)


def alone(library, image, points, box, mask, multimask):
    """The library's forward on one image."""
    model, processor = library
    given = {}
    if points is not None:
        given |= {"input_points": [[points[0].tolist()]], "input_labels": [[points[1].tolist()]]}
    if box is not None:
        given["input_boxes"] = [[list(box)]]
    inputs = processor(images=image, return_tensors="pt", **given)
    inputs = {k: v.float() if v.is_floating_point() else v for k, v in inputs.items() if "sizes" not in k}
    if mask is not None:
        inputs["input_masks"] = mask[None, None]
    with th.no_grad():
        answer = model(**inputs, multimask_output=multimask)
    return answer.pred_masks[0, 0], answer.iou_scores[0, 0], inputs


def agrees(found, wanted):
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("fed", [False, True])
@pytest.mark.parametrize(("n", "boxed"), [(0, True), *((n, boxed) for n in (1, 3, 7) for boxed in (False, True))])
def test_a_batch_of_different_images_agrees_with_the_library(segmenter, library, n, boxed, fed, multimask):
    points = [clicks(n, size) if n else ([], []) for size in SIZES]
    side = 4 * segmenter.embedding_shape[1]
    masks = [th.randn(side, side) * 3 for _ in SIZES] if fed else None
    boxes = BOXES if boxed else None
    prompts = Prompts.of([p[0] for p in points], [p[1] for p in points], SIZES, masks, boxes)
    answer = segmenter.decode(segmenter.encode(IMAGES), prompts, multimask)
    for i, image in enumerate(IMAGES):
        mask = masks[i] if fed else None
        logits, iou, _ = alone(library, image, points[i] if n else None, BOXES[i] if boxed else None, mask, multimask)
        agrees(answer.logits[i], logits)
        agrees(answer.iou[i], iou)
    assert len(answer.logits[0]) == (3 if multimask else 1)


def test_points_boxes_and_pixels_are_the_processors(segmenter, library):
    for image, size, box in zip(IMAGES, SIZES, BOXES, strict=True):
        points = clicks(5, size)
        wanted = alone(library, image, points, box, None, True)[2]
        sizes = np.array([size])
        assert (segmenter.frame.to_frame(th.as_tensor(points[0])[None], sizes) - wanted["input_points"][0]).abs().max() < 0.01
        corners = segmenter.frame.to_frame(th.tensor(box).reshape(1, 2, 2), sizes)
        assert (corners.reshape(-1) - wanted["input_boxes"].reshape(-1)).abs().max() < 0.01
        assert (segmenter._pixels([image]) - wanted["pixel_values"]).abs().max() < 1 / 255


def test_masks_come_back_as_the_processor_brings_them(segmenter, library, kind):
    logits = th.randn(1, 1, 3, 32, 32)
    for size in SIZES:
        extra = [[segmenter.frame.extent(size)]] if kind == "sam" else []
        wanted = library[1].post_process_masks(logits, [size], *extra, binarize=False)[0][0]
        assert th.allclose(segmenter.postprocess(logits[0, 0], size), wanted, atol=1e-5)


def test_the_single_mask_gives_way_where_it_is_not_stable_image_by_image(tiny_sam2_folder, monkeypatch):
    segmenter = load_segmenter(f"hf:{tiny_sam2_folder}", "cpu")
    images, sizes = IMAGES * 4, SIZES * 4
    features = segmenter.encode(images)
    prompts = Prompts.of([clicks(2, size)[0] for size in sizes], [[1, 0]] * 12, sizes)
    best, _ = segmenter.decode(features, prompts, True).best()
    for threshold in (0.6, 0.7, 0.5, 0.8, 0.4, 0.3, 0.2):  # what random weights are between differs with torch's version
        monkeypatch.setattr(segmenter.model.mask_decoder, "dynamic_multimask_stability_thresh", threshold)
        one = segmenter.decode(features, prompts, False)
        fallen = [th.equal(best[i], one.logits[i, 0]) for i in range(12)]
        if 0 < sum(fallen) < 12:
            break
    assert 0 < sum(fallen) < 12
    for i in range(12):
        mine = {name: x[i : i + 1] for name, x in features.items()}
        single = Prompts.of([prompts.point_coords[i].numpy()], [[1, 0]], [sizes[i]])
        agrees(one.logits[i], segmenter.decode(mine, single, False).logits[0])


def test_a_bank_keeps_the_fine_features(segmenter, toy):
    bank = build_bank(toy, SegmenterSource(segmenter))
    kept = {name: th.as_tensor(values)[None] for name, values in bank[0].items()}
    fresh = segmenter.encode([toy[0].image])
    assert {name: tuple(x.shape[1:]) for name, x in kept.items()} == dict(segmenter.feature_shapes)
    prompts = Prompts.of([[(5, 6)]], [[1]], [toy[0].image.shape[:2]])
    wanted = segmenter.decode(fresh, prompts).logits
    assert (segmenter.decode(kept, prompts).logits - wanted).abs().max() < 0.01 * wanted.abs().max()
    if segmenter.family.fine:
        kept["high_res_1"] = kept["high_res_1"] + th.randn_like(kept["high_res_1"])
        assert (segmenter.decode(kept, prompts).logits - wanted).abs().max() > 0.05 * wanted.abs().max()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3, 40), (2000, 2)])
def test_odd_sizes(segmenter, size):
    image = RNG.integers(0, 255, (*size, 3), dtype=np.uint8)
    answer = segmenter.decode(segmenter.encode([image]), Prompts.of([[(0, 0)]], [[1]], [size]))
    assert segmenter.postprocess(answer.best()[0], size).shape == (1, *size)


def test_bf16_changes_little_and_has_its_own_bank(segmenter, kind, hf_folder):
    fast = load_segmenter(f"hf:{hf_folder(kind)}?bf16", "cpu")
    prompts = Prompts.of([clicks(2, size)[0] for size in SIZES], [[1, 0]] * 3, SIZES)
    wanted, found = (s.decode(s.encode(IMAGES), prompts) for s in (segmenter, fast))
    assert found.logits.dtype == th.float32
    assert 0 < (found.logits - wanted.logits).abs().mean() < 0.1 * wanted.logits.abs().max()
    assert fast.fingerprint != segmenter.fingerprint


def test_it_is_frozen_and_satisfies_the_contract(segmenter):
    assert isinstance(segmenter, PromptableSegmenter)
    assert not segmenter.model.training
    assert not any(p.requires_grad for p in segmenter.model.parameters())
    assert all(p.dtype == th.float32 for p in segmenter.model.parameters())


def test_the_fingerprint_follows_weights_and_configuration_but_not_the_path(tiny_sam2_folder, tmp_path):
    one = load_segmenter(f"hf:{tiny_sam2_folder}", "cpu").fingerprint
    same = hf_models.save("sam2", tmp_path / "same")
    assert load_segmenter(f"hf:{same}", "cpu").fingerprint == one
    other = hf_models.save("sam2", tmp_path / "other", seed=1)
    assert load_segmenter(f"hf:{other}", "cpu").fingerprint != one
    (same / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5, 0.5], "size": {"height": 1024, "width": 1024}}')
    load_segmenter.cache_clear()
    grey = load_segmenter(f"hf:{same}", "cpu")
    assert grey.fingerprint != one
    assert grey.encode(IMAGES)["embeddings"].shape == (3, 32, 8, 8)  # the model's size wins


@pytest.mark.parametrize("kind", ["sam2_video", "sam3_video"])
def test_the_layouts_of_the_released_repositories_load_whole(kind, hf_folder):
    """They hold a tracker for films, of which the part for images is taken."""
    segmenter = load_segmenter(f"hf:{hf_folder(kind)}", "cpu")
    video = hf_models.build(kind)
    tracker = getattr(video, "tracker_model", video)
    with th.no_grad():
        assert th.equal(segmenter.model.mask_decoder.conv_s0.weight, tracker.mask_decoder.conv_s0.weight)
        neck = getattr(video, "tracker_neck", None) or video.vision_encoder.neck
        for name, value in neck.state_dict().items():
            assert th.equal(segmenter.model.vision_encoder.neck.state_dict()[name], value)


def test_what_cannot_be_loaded_says_why(hf_folder, tiny_sam2_folder, tmp_path):
    for kind, message in (("sam_hq", "its masks are not SAM-HQ's"), ("sam3", "asked in words")):
        with pytest.raises(ValueError, match=message):
            load_segmenter(f"hf:{hf_folder(kind)}")
    with pytest.raises(ValueError, match="did you mean 'bf16'"):
        load_segmenter(f"hf:{tiny_sam2_folder}?fp16")
    with pytest.raises(FileNotFoundError, match="no folder at '/nosuch'"):
        load_segmenter("hf:/nosuch")
    with pytest.raises(FileNotFoundError, match="no folder at ''"):
        load_segmenter("hf")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        load_segmenter(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text('{"model_type": "sam2"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="only pickled weights"):
        load_segmenter(f"hf:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="holds no Sam2Model that can be read"):
        load_segmenter(f"hf:{tmp_path}")
    for text, message in (("{", "no configuration"), ('{"model_type": "sam22"}', "did you mean 'sam2'")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load_segmenter(f"hf:{tmp_path}")


def test_damaged_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = hf_models.save("sam2", tmp_path / "sam2")
    weights = load_file(folder / "model.safetensors")
    name = "mask_decoder.conv_s0.weight"
    save_file({k: v for k, v in weights.items() if k != name}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"lack 1 tensors of a Sam2Model .first '{name}'"):
        load_segmenter(f"hf:{folder}")
    save_file({**weights, name: weights[name] * float("nan")}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="NaN or infinite weights"):
        load_segmenter(f"hf:{folder}")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = [[64, 64], [32, 32], [16, 16]]
    vision = {**hf_models.VISION_2, "model_type": "sam2_vision_model", "backbone_feature_sizes": sizes}
    hf_models.edit_config(folder, vision_config=vision)
    with pytest.raises(ValueError, match="do not fit each other"):
        load_segmenter(f"hf:{folder}")


def test_no_code_of_a_folder_runs(tmp_path):
    """Neither a module that the configuration names, nor a kernel of the Hub in the place of attention."""
    folder = hf_models.save("sam2", tmp_path / "sam2")
    mark = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Model: pass\n")
    code = {"auto_map": {"AutoConfig": "evil.Model", "AutoModel": "evil.Model", "AutoImageProcessor": "evil.Model"}}
    kernel = {"attn_implementation": "nobody/kernel", "_attn_implementation": "nobody/kernel"}
    hiera = {**hf_models.HIERA, **code, **kernel}
    vision = {**hf_models.VISION_2, "model_type": "sam2_vision_model", "backbone_config": hiera, **code, **kernel}
    hf_models.edit_config(folder, vision_config=vision, **code, **kernel)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Sam2ImageProcessor", **code}))
    segmenter = load_segmenter(f"hf:{folder}", "cpu")
    assert segmenter.encode(IMAGES)["embeddings"].shape == (3, 32, 8, 8)
    assert segmenter.model.vision_encoder.backbone.config._attn_implementation == "sdpa"
    assert not mark.exists()


def test_nothing_is_downloaded_where_that_is_forbidden():
    with pytest.raises(FileNotFoundError, match="ALIGNSAM_OFFLINE or HF_HUB_OFFLINE forbids it"):
        load_segmenter("hf:nobody/no-such-model")


def test_the_hubs_refusals_say_what_to_do(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    reply = MagicMock(headers={}, status_code=403)
    cases = [
        (errors.GatedRepoError("gated", response=reply), PermissionError, "accept its licence at https://huggingface.co/o/m"),
        (errors.RepositoryNotFoundError("gone", response=reply), FileNotFoundError, "no repository 'o/m@v1' on the Hub"),
        (errors.HFValidationError("bad"), ValueError, "neither a folder nor OWNER/NAME"),
        (errors.HfHubHTTPError("503", response=reply), ConnectionError, "cannot download"),
    ]
    for raised, kind, message in cases:

        def refuse(repository, revision, allow_patterns, local_files_only, raised=raised):
            assert (repository, revision) == ("o/m", "v1")
            assert local_files_only
            assert not any(pattern.endswith((".bin", ".py", ".pt", "*")) for pattern in allow_patterns)
            raise raised

        monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
        with pytest.raises(kind, match=message):
            pretrained.obtain_folder("o/m@v1", "hf")


def test_a_missing_library_names_the_extra(monkeypatch, tiny_sam2_folder):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r'pip install "alignsam_sb3\[hf\]"'):
        pretrained.library("Sam2Model")


@pytest.fixture(scope="module")
def toy():
    return ToyScenes("saliency", "train", n_images=3)
