"""The scorer: how well a picture shows what a sentence asks for, as one number.

Two towers meet in one space, as in CLIP (Radford 2021), both small. On disk it is the component folder
``scorer/`` of a model, in diffusers layout: ``config.json`` and ``diffusion_pytorch_model.safetensors``.

    picture [N, 4, H, W] -> means over squares of H / sample_size px -> [N, 4, sample_size, W sample_size / H]
      conv_in                    3 x 3, stride 2, padding 1
      blocks.i                   x + conv2(act(norm2(conv1(act(norm1(x))))), 3 x 3, padding 1; then act(norm_out(x));
                                 then downsample (3 x 3, stride 2, padding 1, to the next width), but after the last block
      mean over height and width, visual_projection: [N, projection_dim], divided by its length
    text [M, T, text_embed_dim], mask [M, T] -> mean over the tokens whose mask is 1
      text_projection            linear_2(act(linear_1(x))): [M, projection_dim], divided by its length
    score [N, M] = their scalar products, -1 to 1

Norms are GroupNorm over ``norm_num_groups`` groups with ``norm_eps``; every convolution and linear layer has a bias.
"""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.activations import get_activation
from torch import nn


class InkbloomScorer(ModelMixin, ConfigMixin):
    """Scores premultiplied RGBA pictures (values -1 to 1) against the token states of the model's text encoder."""

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        sample_size: int = 64,
        block_out_channels: tuple[int, ...] = (24, 48, 96, 192),
        norm_num_groups: int = 8,
        norm_eps: float = 1e-5,
        act_fn: str = "silu",
        text_embed_dim: int = 384,
        projection_dim: int = 192,
    ) -> None:
        super().__init__()
        self.act = get_activation(act_fn)
        self.conv_in = nn.Conv2d(in_channels, block_out_channels[0], 3, 2, 1)
        following = (*block_out_channels[1:], None)
        self.blocks = nn.ModuleList(
            ScorerBlock(width, after, norm_num_groups, norm_eps, act_fn) for width, after in zip(block_out_channels, following, strict=True)
        )
        self.visual_projection = nn.Linear(block_out_channels[-1], projection_dim)
        self.text_projection = TextProjection(text_embed_dim, projection_dim, act_fn)

    def features(self, sample: torch.Tensor) -> torch.Tensor:
        """Pictures [N, 4, H, W] to what the tower sees in them, [N, block_out_channels[-1]].

        Raises ValueError unless H and W are multiples of H / sample_size, a whole number.
        """
        factor, rest = divmod(sample.shape[2], self.config.sample_size)
        if factor < 1 or rest or sample.shape[3] % factor:
            raise ValueError(f"a picture of {sample.shape[3]} x {sample.shape[2]} px cannot be reduced to a height of {self.config.sample_size} by whole squares")
        x = self.conv_in(F.avg_pool2d(sample, factor) if factor > 1 else sample)
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))

    def image_embeds(self, features: torch.Tensor) -> torch.Tensor:
        """Unit embeddings [N, projection_dim] of ``features``."""
        return F.normalize(self.visual_projection(features).float(), dim=-1)

    def text_embeds(self, pooled: torch.Tensor) -> torch.Tensor:
        """Unit embeddings [M, projection_dim] of mean token states [M, text_embed_dim]."""
        return F.normalize(self.text_projection(pooled).float(), dim=-1)

    def forward(self, sample: torch.Tensor, encoder_hidden_states: torch.Tensor, encoder_attention_mask: torch.Tensor) -> torch.Tensor:
        """Scores [N, M] of pictures [N, 4, H, W] for texts [M, T, text_embed_dim] with their masks [M, T]."""
        return self.image_embeds(self.features(sample)) @ self.text_embeds(pool(encoder_hidden_states, encoder_attention_mask)).T


class ScorerBlock(nn.Module):
    """A residual pair of convolutions, then a norm and half the size at the next width."""

    def __init__(self, width: int, after: int | None, groups: int, eps: float, act_fn: str) -> None:
        super().__init__()
        self.act = get_activation(act_fn)
        self.norm1, self.norm2, self.norm_out = (nn.GroupNorm(groups, width, eps) for _ in range(3))
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))
        self.downsample = None if after is None else nn.Conv2d(width, after, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.conv2(self.act(self.norm2(self.conv1(self.act(self.norm1(x))))))
        x = self.act(self.norm_out(x))
        return x if self.downsample is None else self.downsample(x)


class TextProjection(nn.Module):
    """Two linear layers: [M, D] to [M, E]."""

    def __init__(self, width: int, projection: int, act_fn: str) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(width, width), nn.Linear(width, projection)
        self.act = get_activation(act_fn)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.linear_2(self.act(self.linear_1(pooled)))


def pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of the token states [M, T, D] whose mask [M, T] is 1: [M, D]."""
    mask = mask.to(hidden.dtype)[..., None]
    return (hidden * mask).sum(1) / mask.sum(1)
