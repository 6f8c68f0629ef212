"""Damaged banks."""

import copy

import numpy as np

from corpus_inputs.base import REFUSED, RIGHT, Input


def flipped(content):
    out = bytearray(content)
    for k in range(len(out) // 2, len(out) // 2 + 20):
        out[k % len(out)] ^= 0xFF
    return bytes(out)


def all_of(path, change):
    path.write_bytes(change(path.read_bytes()))


BANKS = {
    "bytes flipped in rows": lambda f: all_of(f / "embeddings.f16", flipped),
    "rows cut short": lambda f: all_of(f / "embeddings.f16", lambda c: c[: len(c) // 2]),
    "rows empty": lambda f: all_of(f / "embeddings.f16", lambda c: b""),
    "rows zeros": lambda f: all_of(f / "embeddings.f16", lambda c: bytes(len(c))),
    "rows gone": lambda f: (f / "embeddings.f16").unlink(),
    "records flipped": lambda f: all_of(f / "records", flipped),
    "records cut": lambda f: all_of(f / "records", lambda c: c[: len(c) // 2]),
    "records ones": lambda f: all_of(f / "records", lambda c: b"\1" * len(c)),
    "records gone": lambda f: (f / "records").unlink(),
    "bank.json empty": lambda f: all_of(f / "bank.json", lambda c: b""),
    "bank.json half": lambda f: all_of(f / "bank.json", lambda c: c[: len(c) // 2]),
    "bank.json a list": lambda f: all_of(f / "bank.json", lambda c: b"[]"),
    "bank.json gone": lambda f: (f / "bank.json").unlink(),
    "bank.json of others": lambda f: all_of(f / "bank.json", lambda c: c.replace(b"-4-", b"-5-")),
    "skipped.json nonsense": lambda f: (f / "skipped.json").write_bytes(b"\xff{"),
}


def bank(damage):
    def run(folder):
        from alignsam_sb3.datasets import ToyScenes
        from alignsam_sb3.features import FeatureBank, SegmenterSource
        from alignsam_sb3.segmenters import load_segmenter

        def rows():
            found = FeatureBank(
                ToyScenes("saliency", "train", n_images=4), SegmenterSource(load_segmenter("tiny", "cpu")), folder / "bank"
            )
            return np.stack([copy.deepcopy(found[i]["embeddings"]) for i in range(4)])

        expected = rows()
        damage(folder / "bank")
        assert np.allclose(rows(), expected, atol=2e-3), "other rows than before the damage, and not a word"

    return run


def bank_inputs():
    for name, damage in BANKS.items():
        yield Input(f"a bank with {name}", bank(damage), (RIGHT, REFUSED))
