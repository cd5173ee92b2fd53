"""Denoisers: x_t, timestep and TextEmbedding -> the model's prediction."""

from functools import partial
from pathlib import Path

import torch
from diffusers import PixArtTransformer2DModel

from common import clean, generator, padding_mask, randn, randomise, save_case

# `size` is the latent's height and width; everything else is the class's own config.
PIXART = {
    "pixart_sticker": dict(
        size=(8, 8), in_channels=8, out_channels=8, num_layers=2, num_attention_heads=2, attention_head_dim=16,
        cross_attention_dim=32, caption_channels=20, sample_size=8, interpolation_scale=1,
        use_additional_conditions=False,
    ),
    "pixart_wide": dict(
        size=(6, 10), in_channels=4, out_channels=8, num_layers=3, num_attention_heads=3, attention_head_dim=8,
        cross_attention_dim=24, caption_channels=40, sample_size=8, interpolation_scale=2,
        use_additional_conditions=True,
    ),
    "pixart_tall_patch_1": dict(
        size=(7, 3), in_channels=4, out_channels=4, num_layers=1, num_attention_heads=1, attention_head_dim=20,
        cross_attention_dim=20, caption_channels=12, sample_size=5, patch_size=1, activation_fn="gelu",
        norm_elementwise_affine=True, norm_eps=1e-3, interpolation_scale=1,
    ),
    "pixart_patch_4": dict(
        size=(16, 8), in_channels=3, out_channels=3, num_layers=2, num_attention_heads=3, attention_head_dim=12,
        cross_attention_dim=36, caption_channels=16, sample_size=16, patch_size=4, activation_fn="geglu",
        attention_bias=False,
    ),
    # sample_size 128: additional conditions and interpolation_scale 2 follow from it.
    "pixart_sigma_defaults": dict(
        size=(8, 12), in_channels=4, out_channels=8, num_layers=1, num_attention_heads=3, attention_head_dim=8,
        cross_attention_dim=24, caption_channels=16, sample_size=128,
    ),
    # No caption projection: the text's width is cross_attention_dim; out_channels follows in_channels.
    "pixart_no_caption": dict(
        size=(4, 6), in_channels=5, out_channels=None, num_layers=2, num_attention_heads=1, attention_head_dim=24,
        cross_attention_dim=14, caption_channels=None, sample_size=4, norm_elementwise_affine=True,
        interpolation_scale=1,
    ),
    "pixart_swiglu": dict(
        size=(6, 4), in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=10,
        cross_attention_dim=20, caption_channels=24, sample_size=6, activation_fn="swiglu",
        use_additional_conditions=False,
    ),
}


def pixart(folder: Path, size: tuple[int, int], **config) -> None:
    gen = generator(folder.name)
    model = randomise(PixArtTransformer2DModel(**config), gen)
    tokens, lengths = 7, [7, 4]
    tensors = dict(
        sample=randn(gen, 2, model.config.in_channels, *size),
        timestep=torch.tensor([987.5, 41.25]),
        encoder_hidden_states=randn(gen, 2, tokens, config["caption_channels"] or config["cross_attention_dim"]),
        encoder_attention_mask=padding_mask(lengths, tokens),
    )
    added = None
    if model.use_additional_conditions:
        height, width = (8.0 * s for s in size)
        added = dict(
            resolution=torch.tensor([[height, width], [512.0, 640.0]]),
            aspect_ratio=torch.tensor([[height / width], [0.8]]),
        )
        tensors |= added
    output = model(
        tensors["sample"],
        encoder_hidden_states=tensors["encoder_hidden_states"],
        timestep=tensors["timestep"],
        added_cond_kwargs=added,
        encoder_attention_mask=tensors["encoder_attention_mask"],
    ).sample
    save_case(clean(folder), model, tensors | dict(output=output))


def cases() -> dict:
    return {f"denoise/{name}": partial(pixart, **config) for name, config in PIXART.items()}
