"""Policies that carry their extractor, so that a tuner which replaces ``policy_kwargs`` does not lose it."""

from typing import Any

import torch as th
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import MultiInputActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from alignsam_sb3.policies.cells import CellExtractor, pass_cells_through
from alignsam_sb3.policies.explicit import ExplicitExtractor
from alignsam_sb3.policies.implicit import ImplicitExtractor
from alignsam_sb3.recalibration import Recalibration

_EMBEDDING = "sam_image_embeddings"


class _CarriesExtractor:
    """Makes an extractor of ours with linear heads the default of an actor-critic policy.

    Where the environment wants a foreground map, the policy also holds the recalibration module that draws it, so that both
    are saved together. No gradient of PPO reaches it: ``RecalibrationCallback`` teaches it.
    """

    default_extractor: type[BaseFeaturesExtractor]
    branch = "implicit"
    srm: Recalibration | None

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        net_arch: list[int] | dict[str, list[int]] | None = None,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        arch = [] if net_arch is None else net_arch
        extractor = features_extractor_class or self.default_extractor
        super().__init__(  # type: ignore[call-arg]
            observation_space, action_space, lr_schedule, arch, features_extractor_class=extractor, **kwargs
        )

    @property
    def needs(self) -> frozenset[str] | None:
        """The observations that the extractor looks at, None for all."""
        extractor = self.features_extractor  # type: ignore[attr-defined]
        return frozenset(extractor.needs) if isinstance(extractor, CellExtractor) else None

    def looked_at(self, obs: PyTorchObs) -> PyTorchObs:
        """Observations (B, ...) without those that the extractor does not need: pictures would be made floats for nobody."""
        needs = self.needs
        return {key: obs[key] for key in needs} if isinstance(obs, dict) and needs is not None else obs

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor | None = None) -> Any:  # noqa: ANN401
        """As the stock policy does, but that an embedding in half precision reaches an extractor of ours as it is."""
        embedding = obs.get(_EMBEDDING) if isinstance(obs, dict) else None
        extractor = features_extractor or self.features_extractor  # type: ignore[attr-defined]
        takes_halves = isinstance(extractor, CellExtractor) and self.share_features_extractor  # type: ignore[attr-defined]
        if embedding is None or embedding.dtype != th.float16 or not takes_halves:
            return super().extract_features(obs, features_extractor)  # type: ignore[misc]
        others = {key: value for key, value in obs.items() if key != _EMBEDDING}  # type: ignore[union-attr]
        rest = preprocess_obs(others, self.observation_space, self.normalize_images)  # type: ignore[attr-defined]
        return extractor({**rest, _EMBEDDING: embedding})  # type: ignore[dict-item]

    def forward(self, obs: PyTorchObs, *args: Any, **kwargs: Any) -> tuple[th.Tensor, th.Tensor, th.Tensor]:  # noqa: ANN401
        out: tuple[th.Tensor, th.Tensor, th.Tensor] = super().forward(self.looked_at(obs), *args, **kwargs)  # type: ignore[misc]
        return out

    def evaluate_actions(
        self,
        obs: PyTorchObs,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        out: tuple[th.Tensor, th.Tensor, th.Tensor | None]
        out = super().evaluate_actions(self.looked_at(obs), *args, **kwargs)  # type: ignore[misc]
        return out

    def get_distribution(self, obs: PyTorchObs, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        return super().get_distribution(self.looked_at(obs), *args, **kwargs)  # type: ignore[misc]

    def predict_values(self, obs: PyTorchObs) -> th.Tensor:
        values: th.Tensor = super().predict_values(self.looked_at(obs))  # type: ignore[misc]
        return values

    def obs_to_tensor(self, observation: Any) -> tuple[PyTorchObs, bool]:  # noqa: ANN401
        """Tensors stay tensors, on any device; arrays become some, as in the stock policy."""
        if isinstance(observation, dict) and any(isinstance(value, th.Tensor) for value in observation.values()):
            device = self.device  # type: ignore[attr-defined]
            return {key: th.as_tensor(value).to(device) for key, value in observation.items()}, True
        tensors: tuple[PyTorchObs, bool] = super().obs_to_tensor(observation)  # type: ignore[misc]
        return tensors

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)  # type: ignore[misc]
        pass_cells_through(self.features_extractor, self.action_net)  # type: ignore[attr-defined]
        space = self.observation_space  # type: ignore[attr-defined]
        self.srm = Recalibration(space, self.branch) if "foreground_map" in space.spaces else None


class _MaskedPolicy(_CarriesExtractor, MultiInputActorCriticPolicy):
    """For stock PPO: the mask is taken from the observation, and forbidden actions get no probability."""

    _allowed: th.Tensor | None = None

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        self._note_mask(obs)
        return super().forward(obs, deterministic)

    def evaluate_actions(self, obs: PyTorchObs, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        self._note_mask(obs)
        return super().evaluate_actions(obs, actions)

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        self._note_mask(obs)
        distribution: Distribution = super().get_distribution(obs)
        return distribution

    def _note_mask(self, obs: PyTorchObs) -> None:
        if not isinstance(obs, dict):
            raise TypeError(f"expected a Dict observation with 'action_mask', got {type(obs).__name__}")
        self._allowed = obs["action_mask"]

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        allowed, self._allowed = self._allowed, None  # used once: a stale mask becomes an error
        if allowed is None:
            raise RuntimeError("the action distribution was asked for without an observation to take the mask from")
        logits: th.Tensor = self.action_net(latent_pi)
        masked = logits.masked_fill(~allowed.reshape(logits.shape).bool(), -1e8)
        return self.action_dist.proba_distribution(action_logits=masked)


class ImplicitMaskablePolicy(_CarriesExtractor, MaskableMultiInputActorCriticPolicy):
    """The implicit agent for MaskablePPO: ImplicitExtractor with linear heads."""

    default_extractor = ImplicitExtractor


class ImplicitPolicy(_MaskedPolicy):
    """The implicit agent for stock PPO."""

    default_extractor = ImplicitExtractor


class ExplicitMaskablePolicy(_CarriesExtractor, MaskableMultiInputActorCriticPolicy):
    """The explicit agent for MaskablePPO: ExplicitExtractor with linear heads."""

    default_extractor, branch = ExplicitExtractor, "explicit"


class ExplicitPolicy(_MaskedPolicy):
    """The explicit agent for stock PPO."""

    default_extractor, branch = ExplicitExtractor, "explicit"
