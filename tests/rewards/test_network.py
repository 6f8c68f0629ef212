"""The reward network: what it predicts and learns from, that it has gradients, resumes, and refuses what does not fit."""

import json
import logging

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from PIL import Image

from alignsam_sb3 import metrics
from alignsam_sb3.datasets import load_dataset
from alignsam_sb3.features import SegmenterSource, build_bank
from alignsam_sb3.frame import Frame
from alignsam_sb3.rewards.network import METRICS, RewardNetwork, RewardNetworkConfig, RewardScorer, load_scorer, score_of
from alignsam_sb3.rewards.network.__main__ import main
from alignsam_sb3.rewards.network.corpus import Corpus, build_corpus, true_metrics
from alignsam_sb3.rewards.network.damage import damaged, softened
from alignsam_sb3.rewards.network.fit import Examples, balanced
from alignsam_sb3.rewards.network.frame import spoken_in_frame
from alignsam_sb3.rewards.network.measure import calibration_error, measure, predict_corpus, regret
from alignsam_sb3.rewards.network.model import soft_metrics
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.segmenters.tiny import ASSET as TINY_SAM
from alignsam_sb3.semantics import LanguagePrior, load_clip
from alignsam_sb3.semantics.tiny import ASSET as TINY_CLIP
from alignsam_sb3.weights import read_embedded, save_embedded

FIT = ["fit", "--dataset", "toy:saliency", "--dataset-kwargs", '{"n_images": 12}', "--images", "12", "--batch", "4"]


@pytest.fixture(scope="module")
def scorer():
    return load_scorer("tiny", "cpu")


@pytest.fixture(scope="module")
def unseen(tiny):
    return unseen_scenes(tiny, 40)


def unseen_scenes(tiny, count):
    """A data set, what the segmenter says of it, and masks of every quality on it."""
    dataset = load_dataset("toy:saliency", "eval", n_images=count)
    bank = build_bank(dataset, SegmenterSource(tiny))
    return dataset, bank, build_corpus(dataset, tiny, bank, count, 0, Frame(64))


def random_inputs(batch=3, side=32):
    generator = th.Generator().manual_seed(0)
    return (
        th.rand(batch, 3, side, side, generator=generator),
        th.rand(batch, 1, side, side, generator=generator),
        th.randn(batch, 8, 4, 4, generator=generator),
        th.ones(batch, 1, side, side),
        th.zeros(batch, dtype=th.long),
    )


def small(categories=("thing",)):
    th.manual_seed(0)
    return RewardNetwork(RewardNetworkConfig(categories, "tiny", "f", 8, side=32, width=16)).eval()


def test_the_score_of_the_truth_is_its_dice():
    truth = np.zeros((40, 40), bool)
    truth[5:25, 5:25] = True
    mask = np.roll(truth, 6, 1)
    known = th.tensor(true_metrics(mask, truth, None))
    assert float(score_of(known)) == pytest.approx(metrics.dice(mask, truth), abs=1e-5)


def test_soft_metrics_of_hard_masks_are_the_metrics():
    truth, mask = np.zeros((32, 32), bool), np.zeros((32, 32), bool)
    truth[4:20, 4:20], mask[8:24, 4:20] = True, True
    found = soft_metrics(*(th.from_numpy(m).float()[None, None] for m in (mask, truth)))[0]
    for k, name in enumerate(METRICS[:4]):
        assert float(found[k]) == pytest.approx(metrics.METRICS[name](mask, truth, None), abs=1e-3)


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_empty_and_full_masks_give_numbers_and_gradients(fill):
    inputs = list(random_inputs())
    inputs[1] = th.full_like(inputs[1], fill).requires_grad_()
    predicted, painted = small()(*inputs)
    assert predicted.shape == (3, 5)
    assert painted.shape == (3, 1, 32, 32)
    score_of(predicted).sum().backward()
    assert th.isfinite(predicted).all()
    assert th.isfinite(inputs[1].grad).all()


def test_a_mask_is_scored_by_itself_and_padding_does_not_count():
    network, inputs = small(), list(random_inputs())
    alone = network(*[x[:1] for x in inputs])[0]
    assert th.allclose(network(*inputs)[0][:1], alone, atol=1e-5)
    inside = inputs[3].clone()
    inside[..., 20:, :] = 0
    spilled = inputs[1].clone()
    spilled[..., 20:, :] = 1
    for k in (1, 3):
        assert inputs[k].shape == inside.shape
    inputs[3] = inside
    once = network(*inputs)[0]
    inputs[1] = spilled
    assert th.allclose(network(*inputs)[0], once, atol=1e-6)


def test_moving_a_mask_up_the_gradient_raises_its_true_dice(scorer, unseen):
    """The network is a usable loss: it knows in which direction a mask is better."""
    _, bank, corpus = unseen
    better = []
    for row in range(12):
        k = int(np.abs(corpus.targets[row, :, 0] - 0.6).argmin())
        mask = (th.from_numpy(corpus.masks[row, k]).float() / 255)[None, None].requires_grad_()
        photo = th.from_numpy(corpus.photos[row]).float()[None] / 255
        embedding = th.from_numpy(bank[int(corpus.images[row])]["embeddings"])[None]
        predicted, _ = scorer.network(photo, mask, embedding, th.ones_like(mask), th.zeros(1, dtype=th.long))
        score_of(predicted).sum().backward()
        moved = (mask + 0.5 * mask.grad / mask.grad.abs().amax()).clamp(0, 1).detach()
        truth = corpus.truths[row] > 127
        before, after = (metrics.dice(m[0, 0].numpy() > 0.5, truth) for m in (mask.detach(), moved))
        better.append(after - before)
    assert np.mean(better) > 0


@pytest.mark.slow
def test_the_embedded_network_meets_its_bar_on_unseen_scenes(scorer, tiny):
    _, bank, corpus = unseen_scenes(tiny, 150)
    found = measure(scorer, Examples(corpus, bank, [0], Frame(64)))
    assert found["masks"]["spearman"] >= 0.95
    assert found["masks"]["mae"] <= 0.05
    assert found["regret"] <= 0.02
    network, head = (found["segmenter's own"][name] for name in ("network", "IoU head"))
    assert network["spearman"] > head["spearman"]
    assert network["mae"] < head["mae"]


def test_masks_have_every_quality(unseen):
    _, _, corpus = unseen
    dice = corpus.targets[..., 0].ravel()
    assert np.histogram(dice, bins=10, range=(0, 1))[0].min() > 0
    weights = balanced(corpus.targets)
    bins = np.minimum((dice * 10).astype(int), 9)
    assert np.bincount(bins, weights) == pytest.approx([0.1] * 10)
    own = np.isfinite(corpus.segmenter_iou)
    assert own.any(1).all()
    assert (~own).any(1).all()


def test_damage_keeps_size_and_holds_truth_nothing_and_everything():
    rng = np.random.default_rng(0)
    truth = np.zeros((30, 50), bool)
    truth[5:20, 10:30] = True
    masks = damaged(truth, truth[None][:0], 14, rng)
    assert len(masks) == 14
    assert all(m.shape == truth.shape and m.dtype == bool for m in masks)
    assert (masks[0] == truth).all()
    assert not masks[1].any()
    assert masks[2].all()
    assert len({m.tobytes() for m in masks}) > 10
    nothing = damaged(np.zeros((8, 8), bool), truth[None][:0], 14, rng)  # an empty truth is damaged without an error
    assert len(nothing) == 14


def test_a_softened_mask_is_the_same_mask():
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    for seed in range(10):
        assert ((softened(mask, np.random.default_rng(seed)) > 127) == (mask > 127)).all()


def test_masks_keep_their_aspect_in_the_frame():
    cells = Frame(64).cells(np.ones((30, 60), bool), 64)
    assert (cells[:32] == 255).all()
    assert not cells[32:].any()


def test_regret_and_calibration_by_hand():
    dice = np.array([[0.2, 0.9, 0.5], [0.3, 0.1, 0.4]])
    assert regret(dice, dice) == 0
    assert regret(-dice, dice) == pytest.approx((0.7 + 0.3) / 2)
    assert regret(np.array([[np.nan, np.nan, 1.0], [1.0, 0.0, np.nan]]), dice) == 0
    said = np.array([0.05, 0.05, 0.95, 0.95])
    assert calibration_error(said, said) == 0
    assert calibration_error(said, np.array([0.15, 0.15, 0.75, 0.75])) == pytest.approx((0.1 + 0.2) / 2)


def test_fit_goes_on_where_it_stopped_and_saves_what_loads(tmp_path, capsys):
    out = tmp_path / "fit"
    main([*FIT, "--steps", "6", "--out", str(out)])
    assert {"reward_network.safetensors", "fit.json", "curves.png", "checkpoint.pt", "corpus.npz"} <= {
        p.name for p in out.iterdir()
    }
    history = json.loads((out / "fit.json").read_text())["history"]
    main([*FIT, "--steps", "6", "--out", str(out)])
    assert "going on from step 6" in capsys.readouterr().out
    assert json.loads((out / "fit.json").read_text())["history"] == history
    with pytest.raises(ValueError, match="belongs to another fit"):
        main([*FIT, "--steps", "7", "--out", str(out)])
    assert load_scorer(out, "cpu").config.categories == ("salient object",)
    main(["measure", "--network", str(out), "--dataset", "toy:saliency", "--dataset-kwargs", '{"n_images": 12}'])
    assert "IoU head" in capsys.readouterr().out
    assert (out / "calibration.png").is_file()


def test_an_interrupted_fit_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    from alignsam_sb3.rewards.network.fit import Fit

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    main([*FIT, "--steps", "6", "--out", str(whole)])
    take = Fit._take_step

    def interrupted(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return take(self)

    monkeypatch.setattr(Fit, "_take_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        main([*FIT, "--steps", "6", "--out", str(parts)])
    monkeypatch.setattr(Fit, "_take_step", take)
    main([*FIT, "--steps", "6", "--out", str(parts)])
    histories = [json.loads((folder / "fit.json").read_text())["history"] for folder in (whole, parts)]
    assert histories[0] == histories[1]


def test_what_does_not_fit_is_refused(scorer, tmp_path):
    with pytest.raises(ValueError, match=r"unknown category .*'salient object'.*rewards.network fit"):
        scorer.check(["salient objects"], scorer.config.fingerprint)
    with pytest.raises(ValueError, match="was fitted on embeddings of 'tiny'"):
        scorer.check(["salient object"], "other")
    with pytest.raises(FileNotFoundError, match=r"no reward network at .*rewards.network fit"):
        load_scorer(tmp_path / "none")
    (tmp_path / "reward_network.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is no reward network"):
        load_scorer(tmp_path)
    broken = small()
    with th.no_grad():
        broken.truth.bias.fill_(float("nan"))
    RewardScorer(broken).save(tmp_path / "nan.safetensors", {})
    with pytest.raises(ValueError, match="NaN or infinite weights"):
        load_scorer(tmp_path / "nan.safetensors")


def test_photos_and_masks_of_any_size_are_scored(scorer, tiny):
    rng = np.random.default_rng(0)
    questions = []
    for height, width in ((1, 1), (37, 200), (301, 64)):
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        embedding = tiny.encode([image])["embeddings"][0].numpy()
        questions += [scorer.query(image, embedding, m, "salient object") for m in (image[..., 0] > 99, image[..., 0] / 255)]
    scores = scorer.score(questions)
    assert len(scores) == 6
    assert all(0 <= s <= 1 for s in scores)


def test_a_corpus_is_kept_only_for_what_it_was_made_from(unseen, tmp_path):
    corpus = unseen[2]
    corpus.save(tmp_path / "c.npz", "key")
    assert Corpus.load(tmp_path / "c.npz", "other") is None
    kept = Corpus.load(tmp_path / "c.npz", "key")
    assert (kept.masks == corpus.masks).all()
    joined = kept.join(corpus)
    assert len(joined) == 2 * len(corpus)


@pytest.fixture
def unlabelled(tmp_path):
    """A folder of photographs without any masks."""
    scenes = load_dataset("toy:saliency", "eval", n_images=10)
    for i in range(10):
        Image.fromarray(scenes[i].image).save(tmp_path / f"{i}.png")
    return f"images:{tmp_path}"


def test_without_any_masks_the_network_rewards(unlabelled, caplog):
    kwargs = {"dataset": unlabelled, "dataset_kwargs": {"categories": ["salient object"]}, "device": "cpu"}
    with pytest.raises(ValueError, match=r"'dice_gain' needs ground truth.*reward='network'"):
        gym.make("SamSegImplicit-v0", **kwargs)
    env = gym.make("SamSegImplicit-v0", reward="network", **kwargs).unwrapped
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    total = 0.0
    for _ in range(3):
        _, reward, terminated, _, info = env.step(int(np.flatnonzero(env.action_masks())[5]))
        total += reward
    assert terminated
    assert total == pytest.approx(info["reward_net_score"])
    assert np.isnan(info["dice"])
    assert info["is_success"] is False


def test_training_without_masks(unlabelled):
    from alignsam_sb3.envs.vec_env import SamSegVecEnv
    from stable_baselines3.common.env_util import make_vec_env

    from alignsam_sb3.callbacks import SegmentationCallback, WarmStartCallback
    from alignsam_sb3.policies import SamMaskablePPO

    kwargs = {
        "dataset": unlabelled,
        "dataset_kwargs": {"categories": ["salient object"]},
        "reward": "network",
        "device": "cpu",
    }
    venv = make_vec_env("SamSegImplicit-v0", 4, seed=0, env_kwargs=kwargs, vec_env_cls=SamSegVecEnv)
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=8, batch_size=16, n_epochs=1, seed=0)
    seen = {}

    class Watch(SegmentationCallback):
        def _on_rollout_end(self):
            seen.update(self.logger.name_to_value)

    model.learn(32, callback=[Watch(), WarmStartCallback(steps=8)])
    assert 0 <= seen["custom/reward_net_score"] <= 1
    assert seen["custom/best_reward"] >= seen["custom/reward_net_score"] - 1e-6
    assert "custom/gt_dice" not in seen
    assert "rollout/dice" not in seen


def test_one_call_scores_all_environments_and_the_truth_is_logged_beside(monkeypatch, caplog):
    from alignsam_sb3.envs.vec_env import SamSegVecEnv
    from stable_baselines3.common.env_util import make_vec_env

    caplog.set_level(logging.INFO)
    kwargs = {"dataset_kwargs": {"n_images": 12}, "reward_network": "tiny", "reward": "network", "device": "cpu"}
    venv = make_vec_env("SamSegImplicit-v0", 4, seed=0, env_kwargs=kwargs, vec_env_cls=SamSegVecEnv)
    singles = make_vec_env("SamSegImplicit-v0", 4, seed=0, env_kwargs=kwargs)
    calls = []
    real = RewardScorer.predict

    def counted(self, photos, *rest):
        calls.append(len(photos))
        return real(self, photos, *rest)

    monkeypatch.setattr(RewardScorer, "predict", counted)
    observations = [v.reset() for v in (venv, singles)]
    actions = [int(np.flatnonzero(mask)[3]) for mask in observations[0]["action_mask"]]
    _, rewards, _, _ = venv.step(np.array(actions))
    assert calls == [4]
    _, alone, _, infos = singles.step(np.array(actions))
    assert np.allclose(rewards, alone, atol=1e-5)
    assert np.allclose(rewards, [info["reward_net_score"] for info in infos], atol=1e-5)
    assert venv.batch.dice == pytest.approx([info["dice"] for info in infos], abs=1e-4)


def test_without_truth_nothing_is_fitted_or_measured(unlabelled, tmp_path):
    for command in (["fit", "--out", str(tmp_path / "out")], ["measure", "--network", "tiny", "--out", str(tmp_path)]):
        with pytest.raises(ValueError, match="has no masks to compare with"):
            main([*command, "--dataset", unlabelled, "--dataset-kwargs", '{"categories": ["salient object"]}'])


def test_a_reward_that_looks_at_no_truth_is_not_warmed_by_it(capsys):
    from alignsam_sb3.envs.vec_env import SamSegVecEnv
    from stable_baselines3.common.env_util import make_vec_env

    from alignsam_sb3.callbacks import WarmStartCallback
    from alignsam_sb3.policies import SamMaskablePPO

    kwargs = {"dataset_kwargs": {"n_images": 12}, "reward": "network", "device": "cpu"}
    venv = make_vec_env("SamSegImplicit-v0", 2, seed=0, env_kwargs=kwargs, vec_env_cls=SamSegVecEnv)
    assert venv.get_attr("config")[0]["reward_network"] == "tiny"  # so that an evaluation has the score
    model = SamMaskablePPO("ImplicitMaskablePolicy", venv, n_steps=4, batch_size=8, n_epochs=1, seed=0)
    model.learn(8, callback=WarmStartCallback(steps=8))
    assert "No warm start" in capsys.readouterr().out


def test_other_annotations_are_another_corpus(tmp_path, tiny):
    from alignsam_sb3.rewards.network.corpus import corpus_key, found_key

    scene = load_dataset("toy:saliency", "train", n_images=1)[0]
    for folder, content in (("images", scene.image), ("masks", (scene.target(0) * 255).astype(np.uint8))):
        (tmp_path / folder).mkdir()
        for i in range(4):
            Image.fromarray(np.roll(content, i, axis=0)).save(tmp_path / folder / f"{i}.png")  # copies share a fold
    keys = set()
    for inverted in (False, True):
        dataset = load_dataset(f"mask_folder:{tmp_path}", "train", inverted=inverted, folds=2)
        keys.add(corpus_key(found_key(dataset, tiny), 4, 0, 64))
    assert len(keys) == 2


NAMED = {"min_area": 0.02, "n_images": 60}


@pytest.fixture(scope="module")
def named(tiny):
    """The embedded network of the named shapes, with unseen scenes and what the tiny CLIP says of them."""
    dataset = load_dataset("toy:semantic", "eval", **NAMED)
    bank = build_bank(dataset, SegmenterSource(tiny))
    language = build_bank(dataset, LanguagePrior(load_clip("tiny", "cpu"), dataset.categories))
    corpus = build_corpus(dataset, tiny, bank, 80, 0, Frame(64))
    return load_scorer("tiny_named", "cpu"), Examples(corpus, bank, list(range(8)), Frame(64), language=language)


@pytest.mark.slow
def test_a_network_that_hears_language_knows_which_of_the_named_shapes_is_meant(named):
    scorer, examples = named
    found = measure(scorer, examples)
    assert found["masks"]["spearman"] >= 0.9
    assert found["masks"]["mae"] <= 0.07
    assert found["regret"] <= 0.06
    said = predict_corpus(scorer, examples)
    examples._categories = np.roll(examples._categories, 3)  # asked for another shape than the maps speak of
    assert not np.allclose(said, predict_corpus(scorer, examples), atol=0.01)


def test_it_is_refused_where_language_says_other_things(named):
    scorer, _ = named
    shapes, fingerprint = scorer.config.categories, scorer.config.fingerprint
    with pytest.raises(ValueError, match=r"sees what CLIP 'tiny' says of 'disc'.*no language prior"):
        scorer.check(shapes, fingerprint)
    with pytest.raises(ValueError, match="and here is other"):
        scorer.check(shapes, fingerprint, "other")
    question = scorer.query(np.zeros((20, 20, 3), np.uint8), np.zeros((96, 16, 16), np.float32), np.ones((20, 20)), "disc")
    with pytest.raises(ValueError, match="wants to know what language says"):
        scorer.score([question])


def test_the_named_task_takes_the_embedded_network_that_knows_its_names():
    options = {"dataset": "toy:semantic", "dataset_kwargs": NAMED, "device": "cpu", "patches": 8}
    env = gym.make("SamSeg-v0", reward="network", **options).unwrapped
    assert env.config["reward_network"] == "tiny_named"
    apart = []
    for seed in range(12):
        env.reset(seed=seed)
        *_, info = env.step(env.oracle_action())
        apart.append(abs(info["reward_net_score"] - info["dice"]))
    assert np.mean(apart) < 0.12
    with pytest.raises(ValueError, match="no language prior"):
        gym.make("SamSeg-v0", reward="network", clip=None, **options)


def test_spoken_maps_lie_in_the_frame():
    found = {name: np.linspace(0, 1, 3 * 25, dtype=np.float32).reshape(3, 5, 5) for name in ("similarity_maps", "cosine_maps")}
    spoken = spoken_in_frame(found, 1, (40, 80), Frame(32))
    assert spoken.shape == (4, 8, 8)
    assert (spoken[:, 4:] == -1).all()  # padding below a wide image
    assert (spoken[1, :4] > spoken[0, :4]).all()  # the strongest of the others is the last one
    alone = spoken_in_frame({name: maps[:1] for name, maps in found.items()}, 0, (40, 80), Frame(32))
    assert (alone[[1, 3]] == -1).all()


def test_a_fit_with_language_goes_on_and_is_measured(tmp_path, capsys):
    common = ["--dataset", "toy:semantic", "--dataset-kwargs", '{"n_images": 24}', "--images", "8"]
    first, again = tmp_path / "first", tmp_path / "again"
    main(["fit", *common, "--clip", "tiny", "--batch", "4", "--steps", "3", "--out", str(first)])
    main(["fit", *common, "--init", str(first), "--batch", "4", "--steps", "3", "--out", str(again)])
    config = load_scorer(again, "cpu").config
    assert config.clip == "tiny"
    assert tuple(config.texts) == tuple(config.categories)
    main(["measure", "--network", str(again), *common])
    assert "IoU head" in capsys.readouterr().out


def test_a_fit_goes_on_with_another_segmenter_and_says_so(tmp_path, capsys):
    common = ["--dataset", "toy:saliency", "--dataset-kwargs", '{"n_images": 24}', "--images", "8", "--batch", "4"]
    config, weights = read_embedded(TINY_SAM)
    weights["mask_decoder.iou_token.weight"] += 0.1
    save_embedded(weights, config, tmp_path / "other.safetensors", {})
    other, again = f"tiny:{tmp_path / 'other.safetensors'}", tmp_path / "again"
    main(["fit", *common, "--init", "tiny", "--segmenter", other, "--steps", "3", "--out", str(again)])
    here = load_segmenter(other, "cpu").fingerprint
    assert f"goes on with those of {here}" in capsys.readouterr().out
    assert load_scorer(again, "cpu").config.fingerprint == here != load_scorer("tiny", "cpu").config.fingerprint


def test_a_fit_goes_on_with_another_clip(tmp_path):
    common = ["--dataset", "toy:semantic", "--dataset-kwargs", '{"n_images": 24}', "--images", "8", "--batch", "4"]
    first, again = tmp_path / "first", tmp_path / "again"
    main(["fit", *common, "--clip", "tiny", "--steps", "3", "--out", str(first)])
    config, weights = read_embedded(TINY_CLIP)
    weights["visual.proj"] += 0.1
    save_embedded(weights, config, tmp_path / "other.safetensors", {})
    other = f"tiny:{tmp_path / 'other.safetensors'}"
    main(["fit", *common, "--init", str(first), "--clip", other, "--steps", "3", "--out", str(again)])
    before, after = load_scorer(first, "cpu").config, load_scorer(again, "cpu").config
    assert after.clip == other
    assert after.language == LanguagePrior(load_clip(other, "cpu"), after.texts).fingerprint != before.language
    with pytest.raises(ValueError, match="keeps the texts"):
        main(["fit", *common, "--init", str(first), "--texts", *"abcdefgh", "--out", str(again)])
