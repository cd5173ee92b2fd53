"""The Diffusion Transformer: diffusers' PixArtTransformer2DModel."""

from pathlib import Path

import torch
from diffusers import PixArtTransformer2DModel
from torch import nn

from inkbloom_train import flow, pretrained, training
from inkbloom_train.errors import TrainError
from inkbloom_train.presets import Preset
from inkbloom_train.text import WIDTH as TEXT_WIDTH


def make(preset: Preset, in_channels: int | None = None) -> PixArtTransformer2DModel:
    """A fresh transformer for latents [N, C, latent, latent], or with input channels more than that."""
    settings = preset.dit
    model = PixArtTransformer2DModel(
        num_attention_heads=settings.heads,
        attention_head_dim=settings.head_dim,
        in_channels=in_channels or preset.vae.latent_channels,
        out_channels=preset.vae.latent_channels,
        num_layers=settings.layers,
        cross_attention_dim=settings.width,
        sample_size=preset.latent,
        patch_size=settings.patch,
        caption_channels=TEXT_WIDTH,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        attention_bias=True,
        use_additional_conditions=False,
        interpolation_scale=1,
    )
    nn.init.zeros_(model.proj_out.weight)  # the first prediction is 0, as in DiT
    nn.init.zeros_(model.proj_out.bias)
    return model


def config(preset: Preset) -> dict:
    """What must not change between two calls of the stage."""
    settings = preset.dit
    return {
        "latent": preset.latent,
        "latent_channels": preset.vae.latent_channels,
        "heads": settings.heads,
        "head_dim": settings.head_dim,
        "layers": settings.layers,
        "patch": settings.patch,
    }


class Velocity(nn.Module):
    """The transformer with t in 0 to 1: (x_t [N, C, h, w], t [N], text [N, T, D], mask [N, T]) to velocity [N, C, h, w]."""

    def __init__(self, transformer: PixArtTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.transformer(x_t, encoder_hidden_states=text, timestep=t * 1000, encoder_attention_mask=mask, return_dict=False)[0].float()


class FlowObjective(nn.Module):
    """Mean squared error of the velocity."""

    def __init__(self, velocity: Velocity) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x_0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        predicted = self.velocity(flow.mix(x_0, noise, t), t, text, mask)
        return {"loss": (predicted - (noise - x_0)).square().mean()}


def load(preset: Preset, folder: Path) -> Velocity:
    """The averaged weights of a stage's checkpoint, for inference."""
    weights, _ = training.averaged(folder, config(preset))
    velocity = training.use_average(Velocity(make(preset)), weights, "velocity")
    return velocity.eval().requires_grad_(False)


def load_weights(folder: Path, like: PixArtTransformer2DModel, component: str = "transformer") -> PixArtTransformer2DModel:
    """The transformer of a diffusers folder or a bundle, or another ``component`` of its class, deepened to the layers of ``like`` if it has fewer.

    Raises TrainError if it is missing or of other sizes than ``like``.
    """
    found = pretrained.load(PixArtTransformer2DModel, folder, component)
    if found.config.num_layers < like.config.num_layers:
        found = deepened(found, like.config.num_layers)
    for key in ("num_layers", "num_attention_heads", "attention_head_dim", "in_channels", "sample_size", "patch_size", "caption_channels"):
        if found.config[key] != like.config[key]:
            raise TrainError(f"{folder} has {key} {found.config[key]} and this run {like.config[key]}: choose a preset or --set values that fit")
    return found


def deepened(shallow: PixArtTransformer2DModel, layers: int) -> PixArtTransformer2DModel:
    """The same function with more blocks: copies, spread evenly behind those that they copy, whose last projections are 0.

    A block's gates are not the place for the zeros: the embedded time, which all blocks share, is added to them.
    """
    deep = PixArtTransformer2DModel.from_config({**shallow.config, "num_layers": layers})
    deep.load_state_dict(shallow.state_dict(), strict=False)
    given = len(shallow.transformer_blocks)
    source = [place * given // layers for place in range(layers)]
    for place, block in enumerate(deep.transformer_blocks):
        block.load_state_dict(shallow.transformer_blocks[source[place]].state_dict())
        if place and source[place] == source[place - 1]:
            for last in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
    return deep
