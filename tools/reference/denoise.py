"""Denoisers: x_t, timestep and TextEmbedding -> the model's prediction."""

from functools import partial
from pathlib import Path

import torch
from diffusers import PixArtTransformer2DModel, UNet2DConditionModel

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
    # Published layouts of the weights: several files with an index, and bfloat16.
    "pixart_sharded": dict(
        size=(4, 4), in_channels=4, out_channels=4, num_layers=2, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, caption_channels=12, sample_size=4, interpolation_scale=1,
        save=dict(max_shard_size="40KB"),
    ),
    "pixart_bf16": dict(
        size=(4, 6), in_channels=4, out_channels=4, num_layers=1, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, caption_channels=12, sample_size=4, interpolation_scale=1, stored=torch.bfloat16,
    ),
}


def pixart(folder: Path, size: tuple[int, int], stored=torch.float32, save: dict | None = None, **config) -> None:
    gen = generator(folder.name)
    model = randomise(PixArtTransformer2DModel(**config), gen, stored)
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
    save_case(clean(folder), model, tensors | dict(output=output), stored, **save or {})


CROSS_DOWN, PLAIN_DOWN, CROSS_UP, PLAIN_UP = (
    "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D",
)
TWO_LEVELS = dict(down_block_types=(CROSS_DOWN, PLAIN_DOWN), up_block_types=(PLAIN_UP, CROSS_UP))

UNET = {
    # attention_head_dim is the number of heads in these classes, whatever its name says.
    "unet_sd15": dict(
        size=(8, 8), **TWO_LEVELS, block_out_channels=(16, 32), layers_per_block=2, attention_head_dim=2,
        cross_attention_dim=24, norm_num_groups=8,
    ),
    "unet_sd2": dict(
        size=(8, 12), down_block_types=(CROSS_DOWN, CROSS_DOWN, PLAIN_DOWN),
        up_block_types=(PLAIN_UP, CROSS_UP, CROSS_UP), block_out_channels=(8, 12, 16), layers_per_block=2,
        attention_head_dim=(1, 3, 4), cross_attention_dim=20, norm_num_groups=4, use_linear_projection=True,
        upcast_attention=True,
    ),
    "unet_sdxl": dict(
        size=(12, 8), down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP), block_out_channels=(8, 16, 16), layers_per_block=2,
        attention_head_dim=(1, 2, 4), cross_attention_dim=20, norm_num_groups=4, use_linear_projection=True,
        transformer_layers_per_block=(1, 2, 3), addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 10,
    ),
    "unet_lcm": dict(
        size=(8, 8), **TWO_LEVELS, block_out_channels=(8, 16), layers_per_block=1, attention_head_dim=2,
        cross_attention_dim=16, norm_num_groups=4, time_cond_proj_dim=12,
    ),
    "unet_bk_sdm_small": dict(
        size=(8, 8), **TWO_LEVELS, block_out_channels=(16, 24), layers_per_block=1, attention_head_dim=2,
        cross_attention_dim=16, norm_num_groups=8, mid_block_type=None,
    ),
    "unet_bk_sdm_tiny": dict(
        size=(16, 8), down_block_types=(CROSS_DOWN,) * 3, up_block_types=(CROSS_UP,) * 3,
        block_out_channels=(8, 12, 16), layers_per_block=1, attention_head_dim=2, cross_attention_dim=16,
        norm_num_groups=4, mid_block_type=None,
    ),
    "unet_inpaint": dict(
        size=(8, 8), **TWO_LEVELS, in_channels=9, block_out_channels=(8, 16), layers_per_block=1,
        attention_head_dim=2, cross_attention_dim=16, norm_num_groups=4,
    ),
    "unet_only_cross_attention": dict(
        size=(8, 6), **TWO_LEVELS, block_out_channels=(12, 12), layers_per_block=1, attention_head_dim=3,
        cross_attention_dim=16, norm_num_groups=3, only_cross_attention=(True, False),
        mid_block_only_cross_attention=True,
    ),
    "unet_scale_shift": dict(
        size=(6, 8), **TWO_LEVELS, block_out_channels=(12, 18), layers_per_block=2, attention_head_dim=3,
        cross_attention_dim=14, norm_num_groups=6, norm_eps=1e-6, resnet_time_scale_shift="scale_shift",
        mid_block_scale_factor=1.5, act_fn="gelu",
    ),
    # Sizes that halving does not divide: each up block goes back to its skip's size.
    "unet_odd_size": dict(
        size=(7, 13), down_block_types=(CROSS_DOWN, CROSS_DOWN, PLAIN_DOWN),
        up_block_types=(PLAIN_UP, CROSS_UP, CROSS_UP), block_out_channels=(8, 8, 16), layers_per_block=1,
        attention_head_dim=(2, 1, 4), cross_attention_dim=16, norm_num_groups=4, text_mask=True,
    ),
    "unet_lists": dict(
        size=(8, 8), **TWO_LEVELS, block_out_channels=(8, 16), layers_per_block=(1, 2),
        transformer_layers_per_block=(2, 1), attention_head_dim=(2, 4), cross_attention_dim=(16, 16),
        norm_num_groups=4, flip_sin_to_cos=False, freq_shift=1, center_input_sample=True, downsample_padding=0,
        out_channels=8, conv_in_kernel=5, conv_out_kernel=5,
    ),
    "unet_plain_mid": dict(
        size=(8, 8), **TWO_LEVELS, block_out_channels=(8, 16), layers_per_block=1, attention_head_dim=2,
        cross_attention_dim=16, norm_num_groups=4, mid_block_type="UNetMidBlock2D",
    ),
}


def unet(folder: Path, size: tuple[int, int], text_mask: bool = False, **config) -> None:
    gen = generator(folder.name)
    model = randomise(UNet2DConditionModel(**config), gen)
    tokens, text_width = 6, config["cross_attention_dim"]
    tensors = dict(
        sample=randn(gen, 2, model.config.in_channels, *size),
        timestep=torch.tensor([981.0, 34.5]),
        encoder_hidden_states=randn(gen, 2, tokens, text_width if isinstance(text_width, int) else text_width[0]),
    )
    added = None
    if model.config.addition_embed_type == "text_time":
        times = 6 * model.config.addition_time_embed_dim
        added = dict(
            text_embeds=randn(gen, 2, model.config.projection_class_embeddings_input_dim - times),
            time_ids=torch.tensor([[96.0, 64.0, 0.0, 0.0, 96.0, 64.0], [768.0, 1024.0, 16.0, 8.0, 512.0, 640.0]]),
        )
        tensors |= added
    if model.config.time_cond_proj_dim:
        tensors["timestep_cond"] = randn(gen, 2, model.config.time_cond_proj_dim)
    if text_mask:
        tensors["encoder_attention_mask"] = padding_mask([4, 6], tokens)
    output = model(
        tensors["sample"],
        tensors["timestep"],
        tensors["encoder_hidden_states"],
        timestep_cond=tensors.get("timestep_cond"),
        added_cond_kwargs=added,
        encoder_attention_mask=tensors.get("encoder_attention_mask"),
    ).sample
    save_case(clean(folder), model, tensors | dict(output=output))


def cases() -> dict:
    return {f"denoise/{name}": partial(pixart, **config) for name, config in PIXART.items()} | {
        f"denoise/{name}": partial(unet, **config) for name, config in UNET.items()
    }
