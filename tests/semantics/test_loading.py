"""Every kind of file that a CLIP comes in, and what is said of those that are none."""

import json
import warnings

import open_clip
import pytest
import torch as th
from open_clip.model import CLIP
from safetensors.torch import save_file

from alignsam_sb3.semantics import loading
from alignsam_sb3.semantics.loading import load_clip

VISION = {"image_size": 64, "layers": 3, "width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}


@pytest.fixture(autouse=True)
def forget():
    """Loaded models are kept by name; each test writes its own files."""
    load_clip.cache_clear()
    yield
    load_clip.cache_clear()


@pytest.fixture(scope="module", autouse=True)
def known_architecture(tmp_path_factory):
    """A small architecture under a name that open_clip knows, as its users add theirs."""
    path = tmp_path_factory.mktemp("configs") / "test-small.json"
    path.write_text(json.dumps({"embed_dim": 32, "vision_cfg": VISION, "text_cfg": TEXT}))
    open_clip.add_model_config(path)


@pytest.fixture(scope="module")
def weights():
    th.manual_seed(0)
    clip = CLIP(32, dict(VISION), dict(TEXT))
    return {key: value + 0.1 * th.randn_like(value) for key, value in clip.state_dict().items()}


@pytest.fixture
def image():
    return th.randint(0, 256, (50, 70, 3), generator=th.Generator().manual_seed(0), dtype=th.uint8).numpy()


def reference(weights, quick):
    clip = CLIP(32, dict(VISION), dict(TEXT), quick_gelu=quick)
    clip.load_state_dict(weights)
    return clip.eval()


def same(surgery, clip, tolerance=1e-6):
    found = surgery.clip.state_dict()
    return all((found[key] - value).abs().max() <= tolerance for key, value in clip.state_dict().items())


def has_quick_gelu(surgery):
    return "QuickGELU" in str(surgery.clip.visual)


@pytest.mark.parametrize("kind", ["pt", "safetensors", "wrapped"])
def test_a_plain_state_dict_loads_in_full_precision(weights, tmp_path, kind):
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        save_file(weights, path)
    else:
        th.save(weights if kind == "pt" else {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, path)
    surgery = load_clip(f"test-small:{path}", "cpu")
    assert same(surgery, reference(weights, False))
    assert not has_quick_gelu(surgery)
    assert surgery.clip.visual.conv1.weight.dtype == th.float32


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("name", ["openai", "test-small"])
def test_openais_files_load_with_quickgelu(weights, tmp_path, image, archive, name):
    path, clip = tmp_path / "ViT.pt", reference(weights, True)
    sizes = {"input_resolution": th.tensor(64), "context_length": th.tensor(77), "vocab_size": th.tensor(49408)}
    if archive:
        for key, value in sizes.items():
            if hasattr(clip, key):
                delattr(clip, key)
            clip.register_buffer(key, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            th.jit.trace(clip.visual, th.zeros(1, 3, 64, 64))  # the towers can be traced
            scripted = th.jit.trace_module(Holder(clip), {"forward": (th.zeros(1, 3, 64, 64),)})
        th.jit.save(scripted, str(path))
    else:
        th.save({**weights, **sizes}, path)
    surgery = load_clip(f"{name}:{path}", "cpu")
    assert has_quick_gelu(surgery)
    assert same(surgery, reference(weights, True))  # not rounded to half precision on the way
    assert surgery.similarity([image], ["cat", "dog"]).maps.shape == (1, 2, 4, 4)


class Holder(th.nn.Module):
    """Saves a CLIP's weights under their own names while only its image tower is traced."""

    def __init__(self, clip):
        super().__init__()
        for name, child in clip.named_children():
            self.add_module(name, child)
        for name, parameter in clip.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, getattr(clip, name))

    def forward(self, image):
        return self.visual(image)


def test_the_input_size_is_part_of_the_name(weights, tmp_path, image):
    th.save(weights, tmp_path / "w.pt")
    surgery = load_clip(f"test-small:{tmp_path / 'w.pt'}@128", "cpu")
    assert surgery.similarity([image], ["cat", "dog"]).maps.shape == (1, 2, 8, 8)
    assert surgery.fingerprint != load_clip(f"test-small:{tmp_path / 'w.pt'}", "cpu").fingerprint


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("ViT-B-16-quickgel:openai", ValueError, "did you mean 'ViT-B-16-quickgelu'"),
        ("ViT-B-16-quickgelu:openia", ValueError, "did you mean 'openai'.*or give a file"),
        ("RN50:openai", TypeError, "needs open_clip's own ViT"),
        ("ViT-B-16-SigLIP:webli", ValueError, "no plain CLIP with open_clip's own towers and tokenizer"),
        ("tinny", ValueError, "did you mean 'tiny'"),
        ("openai:/nowhere/ViT-B-16.pt", FileNotFoundError, "/nowhere/ViT-B-16.pt.*named like tiny"),
        ("test-small:/nowhere/w.safetensors", FileNotFoundError, "no weights of CLIP 'test-small'"),
        ("tiny:/nowhere/w.safetensors", FileNotFoundError, "no tiny CLIP"),
    ],
)
def test_what_is_not_there_is_named(spec, error, message):
    with pytest.raises(error, match=message):
        load_clip(spec, "cpu")


def test_files_that_do_not_fit_are_named(weights, tmp_path):
    less = {key: value for key, value in weights.items() if key != "visual.proj"} | {"extra": th.zeros(1)}
    th.save(less, tmp_path / "less.pt")
    with pytest.raises(ValueError, match=r"1 weights missing \(first \['visual.proj'\]\), 1 unknown \(first \['extra'\]\)"):
        load_clip(f"test-small:{tmp_path / 'less.pt'}", "cpu")
    with pytest.raises(ValueError, match="no CLIP in OpenAI's layout"):
        load_clip(f"openai:{tmp_path / 'less.pt'}", "cpu")
    (tmp_path / "text.pt").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="no readable checkpoint"):
        load_clip(f"test-small:{tmp_path / 'text.pt'}", "cpu")
    th.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        load_clip(f"test-small:{tmp_path / 'list.pt'}", "cpu")


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_nothing_is_unpickled(weights, tmp_path, capsys):
    for k, content in enumerate(({**weights, "evil": Evil()}, Evil(), {"state_dict": Evil()})):
        th.save(content, tmp_path / f"evil{k}.pt")
        with pytest.raises(ValueError, match=r"another architecture.*first \['evil'\]|holds no state dict"):
            load_clip(f"test-small:{tmp_path / f'evil{k}.pt'}", "cpu")
    assert "unpickled" not in capsys.readouterr().out


class Hostile(th.nn.Module):
    """TorchScript runs ``__setstate__`` while it loads."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path

    def forward(self, x: th.Tensor) -> th.Tensor:
        return x

    @th.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return (self.path, self.training)

    @th.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.path = state[0]
        self.training = state[1]
        th.save(th.zeros(1), self.path)


@pytest.mark.parametrize("spec", ["openai", "test-small"])
def test_an_archive_that_writes_a_file_when_it_is_loaded_is_not_run(tmp_path, spec):
    """The archive is real: ``torch.jit.load`` of it does write the file."""
    written, path = tmp_path / "written", tmp_path / "hostile.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        th.jit.save(th.jit.script(Hostile(str(written))), str(path))
        th.jit.load(str(path))
    assert written.exists()
    written.unlink()
    with pytest.raises(ValueError, match="holds no state dict"):
        load_clip(f"{spec}:{path}", "cpu")
    assert not written.exists()


def test_offline_names_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the hub reads the variable when it is imported
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"ViT-B-16-quickgelu:openai are in no cache.*give the file"):
        load_clip("ViT-B-16-quickgelu:openai", "cpu")


def test_a_failed_download_says_what_to_do(monkeypatch, tmp_path):
    def cut(url):
        raise OSError("connection reset")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(loading, "download_pretrained_from_url", cut)
    with pytest.raises(ConnectionError, match=r"cannot be downloaded \(OSError: connection reset\): fetch them on another"):
        load_clip("ViT-B-16-quickgelu:openai", "cpu")


def test_tags_that_need_quickgelu_get_it(monkeypatch, weights, tmp_path):
    """``ViT-B-16:openai`` names the architecture without QuickGELU; open_clip only warns."""
    th.save(weights, tmp_path / "w.pt")
    monkeypatch.setattr(open_clip, "list_pretrained_tags_by_model", lambda name: ["openai"])
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda name, tag: {"quick_gelu": True, "mean": (0.1, 0.2, 0.3)})
    monkeypatch.setattr(loading, "download_pretrained", lambda config: tmp_path / "w.pt")
    surgery = load_clip("test-small:openai", "cpu")
    assert has_quick_gelu(surgery)
    assert surgery._mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
