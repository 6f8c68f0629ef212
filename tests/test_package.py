import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import alignsam_sb3

ROOT = Path(__file__).resolve().parents[1]
PROBE = (
    "import alignsam_sb3.envs, gymnasium; from alignsam_sb3.envs.actions import ClickActions; "
    "from alignsam_sb3.hyperparams.ppo import hyperparams; print(gymnasium.spec([*hyperparams][0]).id)"
)
ALSO = {"Makefile", "pyproject.toml", ".ci", ".gitignore", "LICENSE", "docs", "examples"}
ALSO |= {"CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff"}


def test_the_top_level_is_as_agreed():
    expected = {"alignsam_sb3", "envs", "hyperparams", "scripts", "tests", "setup.cfg", "README.md"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    names = {path.split("/")[0] for path in tracked}
    assert expected <= names
    assert names - expected <= ALSO


def test_an_uninstalled_checkout_finds_envs():
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "SamSeg-v0", done.stderr


def test_importing_is_light():
    """Registering environments must not load torch."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, alignsam_sb3; print('torch' in sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False", done.stderr


def test_version():
    try:
        installed = importlib.metadata.version("alignsam_sb3")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed")
    assert installed == alignsam_sb3.__version__


@pytest.mark.slow
def test_the_wheel_holds_envs_and_assets_and_works_in_the_checkouts_root(tmp_path):
    subprocess.run([sys.executable, "-m", "build", "--wheel", "-o", tmp_path, ROOT], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entries,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        commands = archive.read(entries).decode()
        archive.extractall(tmp_path / "site")
    assert "alignsam = alignsam_sb3.cli:main" in commands
    assert "alignsam_sb3/envs/sam_seg.py" in names
    assets = subprocess.run(["git", "ls-files", "alignsam_sb3/assets"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(assets.stdout.split()) >= 5
    hyperparams = ("__init__.py", "ppo.py", "ppo_mask.yml")
    expected = [*assets.stdout.split(), "alignsam_sb3/py.typed", *(f"alignsam_sb3/hyperparams/{name}" for name in hyperparams)]
    assert not [name for name in expected if name not in names]
    assert not [n for n in names if n.startswith(("envs/", "tests/", "scripts/"))]
    for folder in (tmp_path, ROOT):
        done = subprocess.run(
            [sys.executable, "-c", PROBE], cwd=folder, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.strip() == "SamSeg-v0", done.stderr
