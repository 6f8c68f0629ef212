"""Every bad input ends in an error that explains, a counted skip or the right answer: no traceback, no hang, nothing wrong."""

import json
import logging
import pickle
import sys
import time
import warnings
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from corpus_inputs import INPUTS
from corpus_inputs.base import REFUSED, RIGHT, SKIPPED

LONGEST = 60  # seconds
EXPLAINED = (ValueError, OSError, ImportError)
OPAQUE = (json.JSONDecodeError, UnicodeError, pickle.UnpicklingError, zipfile.BadZipFile)


def outcome(bad, folder, capsys):
    """What came, and what was said."""
    try:
        skipped = bad.run(folder)
    except EXPLAINED as error:
        said = str(error)
        assert type(error) not in OPAQUE, f"{type(error).__name__}: {said}"
        assert len(said) > 15, f"says no more than {said!r}"
        assert " " in said, f"says no more than {said!r}"
        return REFUSED, said
    except SystemExit as end:
        said = str(end.code) if isinstance(end.code, str) else capsys.readouterr().err
        assert end.code, "ended as if all were well"
        assert len(said) > 15, f"says no more than {said!r}"
        assert "Traceback" not in said
        return REFUSED, said
    return (SKIPPED, str(skipped)) if skipped else (RIGHT, "")


def cases():
    """All of them; three in four are slow, so that the quick tests stay quick."""
    for k, bad in enumerate(INPUTS):
        yield pytest.param(bad, id=bad.what[:80].replace("\0", "0"), marks=[pytest.mark.slow] if k % 4 else [])


@pytest.mark.parametrize("bad", cases())
def test_it_is_explained_counted_or_right(bad, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest-xdist cannot send a captured log with a lone surrogate
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        came, said = outcome(bad, tmp_path, capsys)
    assert time.monotonic() - start < LONGEST
    assert came in bad.expected, f"{came} ({said[:300]}), not {' or '.join(bad.expected)}"


def test_there_are_enough_of_them():
    assert len(INPUTS) >= 250
    assert len({bad.what for bad in INPUTS}) == len(INPUTS)
