"""The examples of README and docs/ run as they are printed."""

import ast
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import yaml
from alone import run_alone
from PIL import Image

import alignsam_sb3
from alignsam_sb3 import SamMaskablePPO, SamSegVecEnv, Task
from alignsam_sb3.datasets import DATASETS, load_dataset
from alignsam_sb3.metrics import METRICS
from alignsam_sb3.policies.frozen import UNSAID
from alignsam_sb3.rewards import REWARDS
from alignsam_sb3.segmenters import SEGMENTERS, load_segmenter
from alignsam_sb3.segmenters.backbones import BACKBONES
from alignsam_sb3.segmenters.checkpoints import CHECKPOINTS
from alignsam_sb3.semantics import load_clip
from alignsam_sb3.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ASSETS = ROOT / "alignsam_sb3" / "assets" / "README.md"
TEXTS = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ASSETS]
HOLE = "\0"


def example(page, heading):
    """The first Python block under a heading."""
    found = re.search(rf"#+ {heading}\n.*?```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert found, f"{page} has no example under {heading!r}"
    assert len(found[1].splitlines()) <= 30
    return found[1]


@pytest.fixture
def registries():
    """Registries as they were before."""
    kept = [(registry, dict(registry)) for registry in (DATASETS, BACKBONES, REWARDS, METRICS)]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy that has learned nothing, and a photograph."""
    folder = tmp_path_factory.mktemp("policy")
    venv = SamSegVecEnv.of(Task(dataset_kwargs={"n_images": 8}, max_steps=2), 2)
    SamMaskablePPO("ExplicitMaskablePolicy", venv, n_steps=4, batch_size=8).save(folder / "policy.zip")
    Image.fromarray(load_dataset("toy:semantic", "eval", n_images=2)[0].image).save(folder / "photo.png")
    return folder


def test_readme_segments_an_image(policy, monkeypatch):
    monkeypatch.chdir(policy)
    exec(example("README.md", "Segment an image"), {})
    assert np.asarray(Image.open("mask.png")).shape == np.asarray(Image.open("photo.png")).shape[:2]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_tables_say_which_embedded_models_they_were_measured_with():
    today = {load_segmenter("tiny", "cpu").fingerprint, load_clip("tiny", "cpu").fingerprint}
    said = re.compile(r"(?:tiny|clip)-[0-9a-f]{16}")
    named = {"assets" if page == ASSETS else page.name: set(said.findall(page.read_text())) for page in TEXTS}
    known = named["assets"] | set(UNSAID.values())  # assets/README.md has the history of both models
    assert all(found <= known for found in named.values())
    assert named["README.md"] == today  # its table is of what the reader gets
    assert today <= named["assets"]
    for page in ("evaluate.md", "ablation.md", "rivals.md", "reward_network.md", "tuning.md", "train.md", "language.md"):
        assert any(name.startswith("clip-") for name in named[page]), f"{page}: measured with which CLIP?"


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_fit_on_a_screen(page):
    lines = page.read_text().splitlines()
    long = [(number, line[:60]) for number, line in enumerate(lines, 1) if len(line) > 120 and line[:1] != "|"]
    assert not long  # a table's row has to be one line


def as_said(text):
    """A text of the code, a mark where values are put in."""
    parts = text.values if isinstance(text, ast.JoinedStr) else [text]
    return "".join(part.value if isinstance(part, ast.Constant) else HOLE for part in parts)


def messages_of_the_package():
    """Every text in it, and what ``nearest`` makes of the kind of thing that it is given first."""
    for path in [*(ROOT / "alignsam_sb3").rglob("*.py"), *(ROOT / "envs").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                yield as_said(node)
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "nearest":
                yield f"unknown {as_said(node.args[0])} {HOLE}: did you mean {HOLE}?"


def test_questions_are_messages_of_the_package():
    asked = re.findall(r"\*\*(.+?)\*\*", (ROOT / "docs" / "faq.md").read_text())
    messages = [question for question in asked if not question.endswith(".")]
    assert len(messages) >= 10
    texts = list(messages_of_the_package())
    for message in messages:
        fixed = [
            re.escape(part)
            for part in re.split(r"'[^']+'|\b[A-Z]\b|\bDIR\b|\bpolicy\.zip\b|\bViT-[-\w]+", message)
            if part.strip()
        ]
        assert any(re.search(".*".join(fixed), text, re.DOTALL) for text in texts), message


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_pages_link_is_there(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link.partition("#")[0]).exists()]
    assert not missing


def test_scripts_and_modules_that_pages_name_are_there():
    for page in PAGES:
        text = page.read_text()
        named = set(re.findall(r"\b(?:scripts|examples|tests|envs|hyperparams)/[\w/]+\.(?:py|yml)", text))
        assert not [path for path in named if not (ROOT / path).is_file()], page.name
        for module in re.findall(r"python -m (alignsam_sb3[\w.]*)", text):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), (page.name, module)


def commands_in(text):
    """Command lines of a page's blocks, continued lines joined, comments left out, as words."""
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := re.sub(r"(^|\s)#.*", "", line).removeprefix(".venv/bin/").split():
                yield words


def sources(words):
    """The files that say which options a command has."""
    package, studies = ROOT / "alignsam_sb3", ROOT / "scripts" / "studies"
    evaluation = [package / "evaluation_options.py"]
    zoo = [package / "zoo_options.py", Path(find_spec("rl_zoo3.train").origin)]
    if words[0] == "alignsam":
        own = {"train": zoo, "tune": zoo, "evaluate": evaluation, "describe": [package / "datasets" / "__main__.py"]}
        return own.get(words[1], [*(package / "cli").glob("*.py"), *(zoo if words[1] == "cache" else ())])
    if words[:3] == ["python", "-m", "alignsam_sb3.evaluation"]:
        return evaluation
    if words[:2] == ["python", "-m"] and words[2] != "pytest":
        path = ROOT / words[2].replace(".", "/")
        return zoo if words[2] == "rl_zoo3.train" else [path / "__main__.py" if path.is_dir() else path.with_suffix(".py")]
    if words[0] == "python" and words[1] != "-m":
        return zoo if words[1] in ("scripts/train.py", "scripts/enjoy.py") else [ROOT / words[1], studies / "tasks.py"]
    return []


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_that_pages_name_exist(page):
    for words in commands_in(page.read_text()):
        files = sources(words)
        known = "".join(path.read_text() for path in [*files, ROOT / "alignsam_sb3" / "datasets" / "options.py"])
        assert not [word for word in words if files and word.startswith("--") and f'"{word}"' not in known], words


def test_the_commands_that_pages_name_exist():
    from alignsam_sb3.cli import COMMANDS

    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        named = set(re.findall(r"^(?:\.venv/bin/)?alignsam (\w+)", page.read_text(), re.MULTILINE))
        assert named <= COMMANDS.keys(), page.name


def test_a_data_set(tmp_path, registries):
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        picture = np.zeros((30, 40), np.uint8)
        picture[5 : 15 + i, 5:20] = 250
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{i}.png")
    exec(example("docs/extend.md", "A data set"), {})
    data = load_dataset(f"bright:{tmp_path}", "train", folds=2)
    assert len(data) == 2
    assert data[0].target(0).sum() >= 150


def test_a_segmenter(registries):
    exec(example("docs/extend.md", "A segmenter"), {})
    segmenter = load_segmenter("resnet_sam:random", "cpu")
    assert segmenter.embedding_shape == (256, 16, 16)
    encoded = segmenter.encode([np.zeros((50, 70, 3), np.uint8)])
    assert encoded["embeddings"].shape == (1, 256, 16, 16)


def test_a_reward(registries):
    made = {}
    exec(example("docs/extend.md", "A reward"), made)
    venv = made["venv"]
    venv.seed(0)
    venv.reset()
    _, rewards, _, _ = venv.step(np.array([np.flatnonzero(mask)[0] for mask in venv.env_method("action_masks")]))
    assert np.allclose(rewards, venv.batch.dice - 0.02, atol=1e-6)


def test_a_metric(registries):
    exec(example("docs/extend.md", "A metric"), {})
    truth = np.zeros((4, 4), bool)
    truth[:2] = True
    assert METRICS["area_error"](truth, truth) == 0
    assert METRICS["area_error"](truth[:, ::-1] | ~truth, truth) == 1
    assert METRICS["area_error"](~truth & False, truth, truth) == 1


def test_a_player():
    made = {}
    exec(example("docs/extend.md", "A player"), made)
    first, *_, last = made["rows"]["middle"].mean("dice")
    assert first == last  # it clicks once
    assert made["rows"]["random"].clicks != made["rows"]["middle"].clicks


def test_an_extractor():
    made = {}
    exec(example("docs/extend.md", "An extractor"), made)
    assert type(made["model"].policy.features_extractor).__name__ == "MapsOnly"
    assert made["model"].num_timesteps == 8


def imported():
    """What the package exports, and what the examples of the pages import: (module, name)."""
    pages = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]
    yield from (("alignsam_sb3", name) for name in alignsam_sb3.__all__)
    for text in [*pages, *(path.read_text() for path in (ROOT / "examples").glob("*.py"))]:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alignsam_sb3"):
                yield from ((node.module, name.name) for name in node.names)


def test_the_reference_has_what_users_import():
    modules = set(re.findall(r"automodule:: ([\w.]+)", (ROOT / "docs" / "reference.md").read_text()))
    things = [getattr(import_module(module), name) for module, name in imported()]
    assert len(things) > 30
    assert not [thing for thing in things if callable(thing) and thing.__module__ not in modules]


def test_every_kind_of_data_set_and_segmenter_is_in_its_table():
    for page, names in (("datasets", DATASETS), ("segmenters", {*CHECKPOINTS, *SEGMENTERS})):
        text = (ROOT / "docs" / f"{page}.md").read_text()
        assert not [name for name in names if f"`{name}" not in text], page


def test_every_extra_is_in_its_table():
    stated = ConfigParser()
    stated.read(ROOT / "setup.cfg")
    rows = [line.split("|")[1] for line in (ROOT / "docs" / "start.md").read_text().splitlines() if line[:1] == "|"]
    named = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert set(stated["options.extras_require"]) <= named


def test_citation_is_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    assert cited["preferred-citation"]["year"] == 2024


def run_example(name, *args, cwd):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    status, out, err = run_alone(ROOT / "examples" / name, *args, cwd=cwd, env=env)
    assert status == 0, err
    return out


def test_the_example_that_annotates(policy, tmp_path):
    (tmp_path / "photos").mkdir()
    shutil.copy(policy / "photo.png", tmp_path / "photos")
    said = run_example("annotate_photographs.py", policy / "policy.zip", tmp_path / "photos", cwd=tmp_path)
    assert "1 images annotated" in said
    assert (tmp_path / "annotated" / "coco.json").is_file()
    assert Image.open(tmp_path / "annotated" / "sheet.png").width >= 200


def test_the_example_that_trains_on_a_folder(tmp_path):
    scenes = load_dataset("toy:saliency", "train", n_images=10)
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for i in range(10):
        Image.fromarray(scenes[i].image).save(tmp_path / "data" / "images" / f"{i}.png")
        Image.fromarray(scenes[i].target(0).astype(np.uint8) * 255).save(tmp_path / "data" / "masks" / f"{i}.png")
    said = run_example("train_on_a_folder.py", f"mask_folder:{tmp_path / 'data'}", 128, cwd=tmp_path)
    assert "Dice after each click" in said
    assert (tmp_path / "policy.zip").is_file()
    assert Image.open(tmp_path / "unseen.png").width == 3 * 256


def test_the_picture_of_the_layers_is_that_of_the_contract(tmp_path):
    script = str(ROOT / "scripts" / "assets" / "draw_layers.py")
    subprocess.run([sys.executable, script, "--out", str(tmp_path / "layers.svg")], check=True)
    assert (tmp_path / "layers.svg").read_text() == (ROOT / "docs" / "layers.svg").read_text()
