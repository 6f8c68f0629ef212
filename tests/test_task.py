"""Task: every option once, checked, kept as plain values, turned to evaluation without the truth."""

import json
from dataclasses import fields

import pytest

from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.rewards import no_ground_truth
from alignsam_sb3.rewards.network import load_scorer
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.semantics import load_clip
from alignsam_sb3.task import Task, merge_options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "positiv"}, "did you mean 'positive'"),
        ({"on_error": "skpi"}, "did you mean 'skip'"),
        ({"bank": "hots"}, "did you mean 'host'"),
        ({"box": "clop"}, "did you mean 'clip'"),
        ({"reward": "dice_gian"}, "did you mean 'dice_gain'"),
        ({"patchs": 8}, "unknown option of SamSeg-v0.*did you mean 'patches'"),
        ({"max_steps": 0}, "max_steps must be a whole number between 1 and 10000"),
        ({"max_steps": 10_001}, "whole number between 1 and 10000"),
        ({"prompts": {"disc": "red disc"}, "clip": None}, "there is none: give clip"),
        ({"box": "clip", "clip": None}, "there is none: give clip='tiny'"),
        ({"initial_pair": True, "remove": True}, "do not go together"),
        ({"labels": "oracle-train-only", "split": "eval"}, r"looks at the truth.*labels='positive'"),
        ({"box": "truth-jittered-train-only", "split": "eval"}, "looks at the truth.*box='clip'"),
        ({"labels": "oracle-train-only", "reward": "network"}, "labels='oracle-train-only' asks the truth"),
        ({"box": "truth-jittered-train-only", "reward": "network"}, "box='truth-jittered-train-only' asks the truth"),
        ({"initial_pair": True, "reward": "network"}, "give srm=True"),
        ({"initial_pair": True, "split": "val2017"}, "give srm=True"),
    ],
)
def test_what_does_not_exist_or_go_together_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        Task.from_kwargs(**options)


EVERYTHING = {
    "dataset": "toy:semantic",
    "dataset_kwargs": {"n_images": 9},
    "prompts": {"disc": "red disc"},
    "segmenter": "tiny",
    "clip": "tiny",
    "reward": "shaped",
    "reward_network": "tiny_named",
    "max_steps": 7,
    "patches": 5,
    "labels": "srm",
    "srm": True,
    "initial_pair": True,
    "box": "clip",
    "remove": False,
    "click_cost": 0.01,
    "done": True,
    "absent": 0.0,
    "on_error": "skip",
}
ABSENT = {**EVERYTHING, "absent": 0.25, "box": None, "initial_pair": False}  # which do not go together


@pytest.mark.parametrize("options", [EVERYTHING, ABSENT], ids=["everything", "absent"])
def test_a_task_is_plain_values_and_they_make_it_again(options):
    assert {f.name for f in fields(Task)} - options.keys() == {"split", "device", "bank"}  # or this test says too little
    task = Task.from_kwargs(**options, split="train", device="cpu", bank="host")
    plain = json.loads(json.dumps(task.to_json()))
    assert plain == options
    assert Task.from_kwargs(**plain, device="cpu", bank="host") == task
    assert json.loads(json.dumps(Task().to_json())) == Task().to_json()
    assert Task(dataset_kwargs=None, prompts=None) == Task()  # what a hyperparameter file says for nothing


def test_objects_are_named():
    @no_ground_truth
    def sparing(context):
        return context.score_after - context.score_before

    scenes = ToyScenes("saliency", "train", 4)
    segmenter, clip, scorer = load_segmenter("tiny", "cpu"), load_clip("tiny", "cpu"), load_scorer("tiny", "cpu")
    task = Task(dataset=scenes, segmenter=segmenter, clip=clip, reward=sparing, reward_network=scorer)
    plain = json.loads(json.dumps(task.to_json()))
    assert plain["dataset"] == scenes.fingerprint
    assert plain["segmenter"] == segmenter.fingerprint
    assert plain["clip"] == "tiny"
    assert plain["reward"] == "sparing"
    assert plain["reward_network"] is None
    assert not task.uses_ground_truth
    assert Task().uses_ground_truth


def test_evaluation_asks_no_truth_and_changes_nothing_else():
    def changed(**options):
        task = Task(**options)
        there = task.for_evaluation()
        return {f.name: getattr(there, f.name) for f in fields(Task) if getattr(there, f.name) != getattr(task, f.name)}

    assert changed() == {"split": "eval"}
    assert changed(reward="paper", srm=True, initial_pair=True) == {"split": "eval"}
    assert changed(labels="oracle-train-only") == {"split": "eval", "labels": "positive"}
    assert changed(labels="oracle-train-only", srm=True) == {"split": "eval", "labels": "srm"}
    assert changed(box="truth-jittered-train-only") == {"split": "eval", "box": "clip"}
    assert changed(box="truth-jittered-train-only", clip=None) == {"split": "eval", "box": None}
    assert Task().for_evaluation(max_steps=9) == Task(split="eval", max_steps=9)
    assert not Task().for_evaluation().may_begin_from_truth
    assert Task().may_begin_from_truth
    assert not Task(reward="network").may_begin_from_truth


def test_options_are_merged_and_those_of_another_kind_of_data_left_out():
    file = {"dataset": "toy:semantic", "dataset_kwargs": {"min_area": 0.02, "n_images": 50}, "clip": "tiny"}
    same = merge_options(file, {"dataset": "toy:blur", "dataset_kwargs": {"n_images": 9}, "clip": None})
    assert same == {"dataset": "toy:blur", "dataset_kwargs": {"min_area": 0.02, "n_images": 9}, "clip": None}
    assert merge_options(file, {"dataset": "coco:/data"})["dataset_kwargs"] == {}
    given = {"dataset": "coco:/data", "dataset_kwargs": {"max_images": 3}}
    assert merge_options(file, given)["dataset_kwargs"] == {"max_images": 3}
    assert merge_options({}, {"srm": True}) == {"srm": True}
    assert file["dataset_kwargs"] == {"min_area": 0.02, "n_images": 50}  # nothing is written to
