"""The implicit branch: what SAM embeds, weighted by what it believes so far."""

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn import functional as F

_SMALLEST_MAP = 4


class ImplicitExtractor(BaseFeaturesExtractor):
    """``x = E * M + E`` for embedding E and mask belief M, four convolutions, one linear layer.

    Shapes come from the observation space: any embedding (C, h, w) and any belief resolution. Normalised by groups within
    one sample, never over the batch, so that rollout and update compute the same function. A convolution is padded only
    where the map would otherwise shrink below 4 x 4 cells, which never happens for a full-size SAM (64 x 64).

    :param observation_space: needs ``sam_image_embeddings``, ``sam_pred_mask_prob`` and ``num_steps``
    :param features_dim: width of the output
    """

    def __init__(self, observation_space: spaces.Dict, features_dim: int = 512) -> None:
        super().__init__(observation_space, features_dim)
        embedding, steps = observation_space["sam_image_embeddings"], observation_space["num_steps"]
        assert embedding.shape is not None
        assert isinstance(steps, spaces.Box)
        channels, side = embedding.shape[0], min(embedding.shape[1:])
        self.max_steps = float(steps.high.max())
        layers: list[nn.Module] = []
        for out, kernel, stride in ((64, 8, 2), (128, 5, 2), (256, 3, 2), (512, 3, 1)):
            padding = 0 if (side - kernel) // stride + 1 >= _SMALLEST_MAP else kernel // 2
            layers += [nn.Conv2d(channels, out, kernel, stride, padding), nn.GroupNorm(8, out), nn.ReLU()]
            channels, side = out, (side + 2 * padding - kernel) // stride + 1
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with th.no_grad():
            flat = self.convolutions(th.zeros(1, *embedding.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(flat + 1, features_dim), nn.ReLU())

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        """Features (B, features_dim) of observations with batch dimension B."""
        embedding = observations["sam_image_embeddings"]
        belief = F.adaptive_avg_pool2d(observations["sam_pred_mask_prob"][:, None], (embedding.shape[-2], embedding.shape[-1]))
        seen = self.convolutions(embedding * belief + embedding)
        steps = observations["num_steps"].reshape(len(seen), 1) / self.max_steps
        features: th.Tensor = self.linear(th.cat([seen, steps], dim=1))
        return features
