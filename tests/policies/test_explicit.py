"""The explicit branch: per image, any shape, any number of categories, gradients only in the policy."""

import numpy as np
import pytest
import torch as th
from alignsam_sb3.envs.sam_seg import SamSegEnv
from alignsam_sb3.envs.spaces import CompactBox
from alignsam_sb3.envs.vec_env import SamSegVecEnv
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from alignsam_sb3.datasets import ToyScenes
from alignsam_sb3.maps import guide_maps, scale_target, standard_cosines
from alignsam_sb3.policies import ExplicitExtractor, SamMaskablePPO, SamPPO
from alignsam_sb3.policies.cells import Advice, weighted_by
from alignsam_sb3.policies.explicit import cool_belief
from alignsam_sb3.segmenters import load_segmenter
from alignsam_sb3.semantics import load_clip


def space(channels=16, side=16, categories=8, patches=8, max_steps=5):
    return spaces.Dict(
        {
            "sam_image_embeddings": CompactBox(-np.inf, np.inf, (channels, side, side), np.float32),
            "sam_pred_mask_prob": CompactBox(0, 1, (4 * side, 4 * side), np.float32),
            "similarity_maps": CompactBox(-1, 1, (categories, side, side), np.float32),
            "cosine_maps": CompactBox(-1, 1, (categories, side, side), np.float32),
            "target_category": spaces.Discrete(categories),
            "num_steps": CompactBox(0, max_steps, (1,), np.float32),
            "action_mask": spaces.MultiBinary(2 * patches**2),
        }
    )


def observations(described, batch, seed=0):
    """As SB3 hands them to an extractor: the category one-hot."""
    rng = th.Generator().manual_seed(seed)
    maps = th.rand(batch, *described["similarity_maps"].shape, generator=rng)
    maps[:, :, -3:] = -1.0
    n = int(described["target_category"].n)
    return {
        "sam_image_embeddings": th.randn(batch, *described["sam_image_embeddings"].shape, generator=rng),
        "sam_pred_mask_prob": th.rand(batch, *described["sam_pred_mask_prob"].shape, generator=rng),
        "similarity_maps": maps,
        "cosine_maps": (0.3 * maps).where(maps >= 0, -1.0) - 0.1 * th.rand(maps.shape, generator=rng),
        "target_category": th.eye(n)[th.randint(n, (batch,), generator=rng)],
        "num_steps": th.randint(5, (batch, 1), generator=rng).float(),
        "action_mask": th.ones(batch, *described["action_mask"].shape),
    }


def trained_looking(extractor):
    """Give every weight an effect, as after training."""
    for parameter in extractor.parameters():
        parameter.data.add_(0.05 * th.randn_like(parameter))
    return extractor


@pytest.mark.parametrize(
    ("channels", "side", "categories", "patches"), [(16, 16, 8, 8), (8, 64, 1, 32), (4, 8, 80, 12), (6, 20, 3, 5)]
)
def test_any_embedding_grid_and_number_of_categories(channels, side, categories, patches):
    described = space(channels, side, categories, patches)
    extractor = ExplicitExtractor(described)
    out = extractor(observations(described, 3))
    assert out.shape == (3, extractor.features_dim) == (3, 128 + 2 * patches**2)
    assert th.isfinite(out).all()


def test_a_sample_does_not_depend_on_its_neighbours():
    described = space()
    extractor = trained_looking(ExplicitExtractor(described))
    batch = observations(described, 8)
    with th.no_grad():
        together = extractor(batch)
        for i in range(8):
            alone = extractor({key: value[i : i + 1] for key, value in batch.items()})
            assert th.allclose(alone[0], together[i], atol=1e-5)
        others = {key: value.roll(3, 0) for key, value in batch.items()}
        mixed = {key: th.cat([value[:1], others[key][1:]]) for key, value in batch.items()}
        assert th.allclose(extractor(mixed)[0], together[0], atol=1e-5)


@pytest.mark.parametrize(("attend", "seen"), [("joint", (True, True)), ("stream", (True, False)), ("none", (False, False))])
def test_what_attends_to_what(attend, seen):
    """By default the tokens of both streams; the others are there to measure what that brings."""
    described = space()
    extractor = trained_looking(ExplicitExtractor(described, attend=attend))
    batch = observations(described, 1)
    tokens = extractor.sam_stream(extractor.narrow(batch["sam_image_embeddings"])).flatten(2)
    language = extractor.clip_stream(
        guide_maps(batch["similarity_maps"], batch["cosine_maps"], batch["target_category"])
    ).flatten(2)
    joined = th.cat([tokens, language], 2).transpose(1, 2).detach().requires_grad_()
    extractor.fusion(joined)[0, 0].sum().backward()  # SAM's first token: does it see SAM's others, and language's?
    n = tokens.shape[2]
    assert (bool(joined.grad[0, 1:n].any()), bool(joined.grad[0, n:].any())) == seen


def test_an_unknown_attention_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'joint'"):
        ExplicitExtractor(space(), attend="joined")


def test_the_target_decides():
    described = space()
    extractor = trained_looking(ExplicitExtractor(described))
    batch = observations(described, 1)
    other = {**batch, "target_category": batch["target_category"].roll(1, 1)}
    assert (extractor(batch) - extractor(other)).abs().max() > 1e-3


def test_the_order_of_categories_does_not_matter():
    described = space()
    extractor = trained_looking(ExplicitExtractor(described))
    batch = observations(described, 2)
    order = th.randperm(8, generator=th.Generator().manual_seed(1))
    turned = {
        **batch,
        "similarity_maps": batch["similarity_maps"][:, order],
        "cosine_maps": batch["cosine_maps"][:, order],
        "target_category": batch["target_category"][:, order],
    }
    assert th.allclose(extractor(batch), extractor(turned), atol=1e-5)


def test_scaling_is_per_image():
    maps, target = th.ones(3, 4, 2, 2), th.eye(4)[[0, 2, 0]]
    scaled = scale_target(maps, target)
    assert th.allclose(scaled[0], scaled[2])
    assert th.allclose(scaled[1, 2], th.ones(2, 2))
    assert th.allclose(scaled[1, 0], th.full((2, 2), float(np.exp(-1 / 0.33))))


def test_padding_is_marked_and_one_category_has_no_rivals():
    maps = th.rand(1, 1, 4, 4)
    maps[:, :, 3] = -1
    guides = guide_maps(maps, maps, th.ones(1, 1))
    assert th.equal(guides[0, 0, :3], maps[0, 0, :3])
    assert guides[0, 0, 3].abs().max() == 0
    assert guides[0, 1].abs().max() == 0
    assert guides[0, 2, :3].min() == 1
    assert guides[0, 2, 3].max() == 0
    assert guides[0, 3:, 3].abs().max() == 0
    assert guides[0, 4].abs().max() == 0


def test_cosines_are_compared_within_one_image():
    cosines = th.zeros(2, 2, 3, 3)
    cosines[:, 0, 0, 0], cosines[:, 1, 1, 1] = 0.3, 0.5  # each text suits one place, the second text suits its own better
    cosines[1] = 0.1 * cosines[1] + 0.2  # another CLIP's range
    cosines[:, :, 2] = -1.0  # padding
    inside = th.ones(2, 1, 3, 3)
    inside[:, :, 2] = 0
    standard = standard_cosines(cosines, inside)
    assert th.allclose(standard[0], standard[1], atol=1e-2)
    assert standard[0, 1, 1, 1] > standard[0, 0, 0, 0] > standard[0, 0, 1, 1]
    assert standard[:, :, 2].abs().max() == 0
    flat = standard_cosines(th.full((1, 2, 3, 3), 0.25), th.ones(1, 1, 3, 3))
    assert flat.abs().max() < 1e-3


def test_an_early_belief_counts_less():
    belief = th.tensor([0.95, 0.5, 0.05]).reshape(1, 1, 1, 3)
    early, late = (cool_belief(belief, th.tensor([[s]]), th.tensor(0.5)).flatten() for s in (0.0, 1.0))
    assert th.allclose(late, belief.flatten(), atol=1e-5)
    assert early[1] == 0.5
    assert 0.8 < early[0] < 0.95  # never hidden, as exp(steps left) hides it


def test_an_untrained_policy_clicks_where_language_says(make_env):
    venv = make_vec_env(lambda: make_env(clip="tiny", patches=16), 2, vec_env_cls=SamSegVecEnv)
    model = SamMaskablePPO("ExplicitMaskablePolicy", venv, n_steps=6, batch_size=4, seed=0, device="cpu")
    seen = venv.reset()
    actions, _ = model.predict(seen, deterministic=True)
    for maps, action in zip(seen["similarity_maps"], actions, strict=True):
        assert action == maps[0].argmax()  # a positive click, on the cell of the maximum


def test_advice_turns_to_what_is_missed_and_to_what_is_wrongly_taken():
    wanted = th.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    advice = Advice(8.0)
    assert advice(wanted, th.full((1, 1, 2, 2), 0.5)).tolist() == [[8, 8, 0, 0, 0, 0, 0, 0]]
    taken = th.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    assert advice(wanted, taken).tolist() == [[0, 8, 0, 0, 0, 0, 4, 0]]


def test_observations_without_maps_are_refused():
    described = space()
    del described.spaces["similarity_maps"]
    with pytest.raises(ValueError, match=r"needs observations with 'similarity_maps'.*clip='tiny'"):
        ExplicitExtractor(described)


@pytest.mark.parametrize(("algorithm", "policy"), [(SamMaskablePPO, "ExplicitMaskablePolicy"), (SamPPO, "ExplicitPolicy")])
def test_training_moves_the_policy_and_nothing_frozen(algorithm, policy, make_env, tmp_path):
    clip, sam = load_clip("tiny", "cpu"), load_segmenter("tiny", "cpu")
    scenes = ToyScenes("semantic", "train", 16)
    venv = make_vec_env(lambda: SamSegEnv(dataset=scenes, segmenter=sam, clip=clip), 2, vec_env_cls=SamSegVecEnv)
    frozen = {**dict(sam.sam.named_parameters()), **dict(clip.clip.named_parameters())}
    before = {key: value.clone() for key, value in frozen.items()}
    model = algorithm(policy, venv, n_steps=6, batch_size=4, n_epochs=1, seed=0, device="cpu")
    started = {key: value.clone() for key, value in model.policy.state_dict().items()}
    assert not any("visual" in key or "mask_decoder" in key for key in started)
    model.learn(24)
    assert any(not th.equal(started[key], value) for key, value in model.policy.state_dict().items())
    model.save(tmp_path / "policy.zip")
    algorithm.load(tmp_path / "policy.zip", env=venv)
    assert all(th.equal(before[key], value) for key, value in frozen.items())
    assert all(value.grad is None and not value.requires_grad for value in frozen.values())


def test_every_weight_learns(make_env):
    """No stream is cut off: after some updates each weight of the extractor has had a gradient."""
    venv = make_vec_env(lambda: make_env(clip="tiny"), 2, vec_env_cls=SamSegVecEnv)
    model = SamMaskablePPO("ExplicitMaskablePolicy", venv, n_steps=6, batch_size=12, n_epochs=3, seed=0, device="cpu")
    model.learn(12)
    idle = [name for name, p in model.policy.features_extractor.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_the_belief_is_applied_to_few_channels_with_the_same_result():
    th.manual_seed(0)
    narrow, x, belief = th.nn.Conv2d(6, 3, 1), th.randn(2, 6, 8, 8), th.rand(2, 1, 8, 8)
    assert th.allclose(weighted_by(belief, x, narrow), narrow(x * (1 + belief)), atol=1e-5)
    assert th.equal(weighted_by(belief, x, th.nn.Identity()), x * (1 + belief))
