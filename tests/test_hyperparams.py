"""The two hyperparameter files: stock zoo reads one YAML for each algorithm, and YAML cannot include another file."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", ["", "Implicit", "Srm", "SrmImplicit", "Paper", "PaperImplicit", "Coco"])
def test_ppo_and_maskable_ppo_differ_in_the_policy_alone(name):
    stock, masked = (yaml.safe_load((ROOT / "hyperparams" / f"{algo}.yml").read_text()) for algo in ("ppo", "ppo_mask"))
    stock, masked = stock[f"SamSeg{name}-v0"], masked[f"SamSeg{name}-v0"]
    assert masked.pop("policy") == stock.pop("policy").replace("Policy", "MaskablePolicy")
    assert stock == masked
