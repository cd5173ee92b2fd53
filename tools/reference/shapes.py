"""Names and shapes of every parameter of published models, from their configs, without allocating them."""

import json
from functools import partial
from pathlib import Path

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderTiny,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from common import save_json

CROSS_DOWN, PLAIN_DOWN, CROSS_UP, PLAIN_UP = (
    "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D",
)
SD15 = dict(sample_size=64, cross_attention_dim=768)
SD21 = dict(
    sample_size=64, cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
)
KL = dict(
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
)
CLIP_L = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768)
PIXART = dict(sample_size=128, caption_channels=4096, cross_attention_dim=1152)
SD3 = dict(
    num_layers=24, num_attention_heads=24, caption_projection_dim=1536, joint_attention_dim=4096,
    pooled_projection_dim=2048, pos_embed_max_size=192,
)
KL_16 = KL | dict(latent_channels=16, sample_size=1024, use_quant_conv=False, use_post_quant_conv=False)

# name: class, config, number of parameters as published (None where we do not know it)
MODELS = {
    "unet_sd15": (UNet2DConditionModel, SD15, 859_520_964),
    "unet_sd15_inpaint": (UNet2DConditionModel, SD15 | dict(in_channels=9), 859_535_364),
    "unet_lcm_sd15": (UNet2DConditionModel, SD15 | dict(time_cond_proj_dim=256), None),
    "unet_sd21": (UNet2DConditionModel, SD21, 865_910_724),
    "unet_bk_sdm_base": (UNet2DConditionModel, SD15 | dict(layers_per_block=1), 579_384_964),
    "unet_bk_sdm_small": (UNet2DConditionModel, SD15 | dict(layers_per_block=1, mid_block_type=None), 482_346_884),
    # segmind/tiny-sd has the same layout.
    "unet_bk_sdm_tiny": (
        UNet2DConditionModel,
        SD15
        | dict(
            layers_per_block=1, mid_block_type=None, block_out_channels=(320, 640, 1280),
            down_block_types=(CROSS_DOWN,) * 3, up_block_types=(CROSS_UP,) * 3,
        ),
        323_384_964,
    ),
    "unet_sdxs_512": (
        UNet2DConditionModel,
        SD21
        | dict(
            layers_per_block=1, mid_block_type=None, block_out_channels=(320, 640, 1280),
            attention_head_dim=(5, 10, 20),
            down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN), up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP),
        ),
        None,
    ),
    "unet_sdxl": (
        UNet2DConditionModel,
        dict(
            sample_size=128, block_out_channels=(320, 640, 1280), down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
            up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP), transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20), cross_attention_dim=2048, use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        ),
        2_567_463_684,
    ),
    "transformer_pixart_sigma": (
        PixArtTransformer2DModel, PIXART | dict(interpolation_scale=2, use_additional_conditions=False), 610_856_096,
    ),
    "transformer_pixart_alpha": (PixArtTransformer2DModel, PIXART, None),
    "transformer_sd3_medium": (SD3Transformer2DModel, SD3, None),
    "transformer_sd35_medium": (
        SD3Transformer2DModel,
        SD3 | dict(pos_embed_max_size=384, qk_norm="rms_norm", dual_attention_layers=tuple(range(13))),
        None,
    ),
    # -turbo has the same layout.
    "transformer_sd35_large": (
        SD3Transformer2DModel,
        SD3 | dict(num_layers=38, num_attention_heads=38, caption_projection_dim=2432, qk_norm="rms_norm"),
        None,
    ),
    "transformer_flux_schnell": (FluxTransformer2DModel, {}, 11_891_178_560),
    "transformer_flux_dev": (FluxTransformer2DModel, dict(guidance_embeds=True), 11_901_408_320),
    "transformer_flux_fill": (
        FluxTransformer2DModel, dict(guidance_embeds=True, in_channels=384, out_channels=64), None,
    ),
    "vae_sd3": (AutoencoderKL, KL_16 | dict(scaling_factor=1.5305, shift_factor=0.0609), None),
    "vae_flux": (AutoencoderKL, KL_16 | dict(scaling_factor=0.3611, shift_factor=0.1159), None),
    # Of Stable Diffusion 3 and of Flux: the same layout.
    "vae_taesd3_taef1": (AutoencoderTiny, dict(latent_channels=16), None),
    "vae_sd": (AutoencoderKL, KL, 83_653_863),
    "vae_sdxl": (AutoencoderKL, KL | dict(sample_size=1024, scaling_factor=0.13025), 83_653_863),
    "vae_taesd": (AutoencoderTiny, {}, 2_445_063),
    "vae_dc_f32c32_sana": (
        AutoencoderDC,
        dict(
            encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            downsample_block_type="Conv", upsample_block_type="interpolate", scaling_factor=0.41407,
        ),
        None,
    ),
    "text_clip_l": (CLIPTextModel, CLIP_L, 123_060_480),
    "text_clip_l_projection": (CLIPTextModelWithProjection, CLIP_L, None),
    "text_openclip_h": (
        CLIPTextModel,
        dict(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16, hidden_act="gelu",
            projection_dim=512,
        ),
        340_387_840,
    ),
    "text_openclip_bigg": (
        CLIPTextModelWithProjection,
        dict(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, hidden_act="gelu",
            projection_dim=1280,
        ),
        694_659_840,
    ),
    "text_t5_xxl": (
        T5EncoderModel,
        dict(d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"),
        4_762_310_656,
    ),
}


def shapes(path: Path, model_class, config: dict, published: int | None) -> None:
    with torch.device("meta"):
        if issubclass(model_class, T5EncoderModel):
            model = model_class(T5Config(**config))
        elif issubclass(model_class, (CLIPTextModel, CLIPTextModelWithProjection)):
            model = model_class(CLIPTextConfig(**config))
        else:
            model = model_class(**config)
    parameters = dict(model.named_parameters())
    count = sum(p.numel() for p in parameters.values())
    # Tables that files hold, too.
    stored = model.state_dict()
    parameters |= {name: buffer for name, buffer in model.named_buffers() if name in stored}
    if published not in (None, count):
        raise ValueError(f"{path.name}: {count} parameters, not {published}")
    # transformers 5 writes CLIPTextModel without the prefix that the published files have.
    prefix = "text_model." if model_class is CLIPTextModel else ""
    configured = model.config if hasattr(model.config, "to_json_string") else model
    value = {
        "class": model_class.__name__,
        "config": json.loads(configured.to_json_string()),
        "count": count,
        "parameters": {prefix + name: list(p.shape) for name, p in parameters.items()},
    }
    save_json(path.with_suffix(".json"), value, separators=(",", ":"))


def cases() -> dict:
    return {
        f"shapes/{name}": partial(shapes, model_class=c, config=config, published=count)
        for name, (c, config, count) in MODELS.items()
    }
