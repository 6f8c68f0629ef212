"""Which run is played, and which numbers of steps are refused."""

import pytest

from alignsam_sb3.zoo import latest_model_path
from alignsam_sb3.zoo_options import translate


def test_a_run_that_died_is_passed_over(tmp_path, capsys):
    for number, names in ((1, ["SamSeg-v0.zip"]), (2, ["rl_model_16_steps.zip"]), (3, [])):
        folder = tmp_path / "ppo_mask" / f"SamSeg-v0_{number}"
        folder.mkdir(parents=True)
        for name in names:
            (folder / name).touch()
    ask = (str(tmp_path), "ppo_mask", "SamSeg-v0")
    assert latest_model_path(0, *ask, False, None, False)[1].endswith("SamSeg-v0_1/SamSeg-v0.zip")
    assert "looking at the run before" in capsys.readouterr().out
    assert latest_model_path(0, *ask, False, None, True)[1].endswith("SamSeg-v0_2/rl_model_16_steps.zip")
    with pytest.raises(SystemExit, match=r"train.py -i .*rl_model_16_steps.zip"):
        latest_model_path(3, *ask, False, None, False)
    with pytest.raises(SystemExit, match=r"Train one: train.py --algo ppo"):
        latest_model_path(0, str(tmp_path), "ppo", "SamSeg-v0", False, None, False)


@pytest.mark.parametrize("steps", ["0", "-2"])
def test_no_number_of_steps_stands_for_another(steps):
    with pytest.raises(SystemExit, match="-n takes a number of steps"):
        translate("train", ["-n", steps])
    assert "64" in translate("train", ["-n", "64"])[1]
