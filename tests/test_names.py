"""Errors name the nearest valid choice, and no more than can be read."""

from alignsam_sb3.names import SHOWN, nearest


def test_few_names_are_all_shown():
    assert nearest("reward", "dice_gian", ["paper", "dice_gain"]) == (
        "unknown reward 'dice_gian': did you mean 'dice_gain'? Known: dice_gain, paper"
    )
    assert nearest("reward", "zzz", ["paper"]) == "unknown reward 'zzz'. Known: paper"


def test_of_many_names_the_nearest_are_shown_and_the_others_counted():
    names = [f"ViT-{k}" for k in range(100)] + ["RN50"]
    said = nearest("model", "RN5", names)
    assert said.startswith("unknown model 'RN5': did you mean 'RN50'? Known: RN50, ViT-")
    assert said.count("ViT-") == SHOWN // 2 - 1
    assert said.endswith(f", and {101 - SHOWN // 2} more")
