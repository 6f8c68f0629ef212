"""Saved policies as other versions or other hands would have left them."""

import json
from zipfile import ZipFile

from alignsam_sb3.policies.archive import RECIPE


def change_recipe(path, change):
    """The same file, its recipe changed."""
    with ZipFile(path) as before:
        entries = {name: before.read(name) for name in before.namelist()}
    entries[RECIPE] = json.dumps(change(json.loads(entries[RECIPE]))).encode()
    with ZipFile(path, "w") as after:
        for name, content in entries.items():
            after.writestr(name, content)
