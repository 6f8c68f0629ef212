"""The table of segmenters says what the segmenters say."""

import pytest

from alignsam_sb3.segmenters import SEGMENTERS, hf
from alignsam_sb3.segmenters.__main__ import main, rows
from alignsam_sb3.segmenters.checkpoints import CHECKPOINTS


def test_every_segmenter_has_a_row_with_what_a_bank_keeps(tiny):
    table = rows()
    assert {name.partition(":")[0] for name in table} == set(SEGMENTERS)
    assert table["tiny"].shapes == tuple(tiny.feature_shapes.values())
    assert table["edge_sam"].licence == CHECKPOINTS["edge_sam"].licence
    assert table["vit_b"].megabytes == pytest.approx(256 * 64 * 64 * 2 / 1e6)


def test_rows_of_the_transformers_library_have_the_shapes_of_its_full_size_models():
    transformers = pytest.importorskip("transformers")
    for row in rows().values():
        if row.name.startswith("hf:"):
            family = hf.FAMILIES[row.measured.split(":")[1]]
            config = getattr(transformers, family.config)(vision_config=dict(family.vision) or None)
            assert row.shapes == tuple(hf._feature_shapes(config, family).values())


def test_list_prints_all_and_measures_what_it_is_asked_to(capsys, tiny_sam2_folder):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in rows())
    assert main(["list", "--measure", "--device", "cpu", "--only", "tiny", f"hf:{tiny_sam2_folder}"]) == 0
    head, *lines = capsys.readouterr().out.strip().splitlines()
    assert "encode s" in head
    for line, megabytes in zip(lines, (0.23, 0.02), strict=True):
        kept, encode, decode = (float(value) for value in line.split()[1:4])
        assert kept == megabytes
        assert 0 < encode < 60 and 0 <= decode < 60


def test_what_is_unknown_names_the_nearest(capsys):
    assert main(["list", "--only", "mobilesam"]) == 1
    assert "did you mean 'mobile_sam'" in capsys.readouterr().err
    assert main(["list", "--only", "hf:/nosuch"]) == 1
    assert "no folder at '/nosuch'" in capsys.readouterr().err
