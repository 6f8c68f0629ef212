"""Sphinx: ``make docs``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import alignsam_sb3  # noqa: E402

project, author = "alignsam_sb3", "The alignsam_sb3 contributors"
release = alignsam_sb3.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
html_theme, html_title = "furo", f"alignsam_sb3 {release}"
exclude_patterns = ["_build"]
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # those of Gymnasium and SB3 are in another markup
autodoc_typehints = "description"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "__init__, __new__"}
suppress_warnings = ["ref.python"]  # one name in two modules
