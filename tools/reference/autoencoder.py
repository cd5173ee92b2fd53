"""Autoencoders: Latent <-> pixel tensor."""

from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, VQModel
from safetensors.torch import load_file, save_file

from common import clean, generator, randn, randomise, save_case

# `size` is the picture's height and width; everything else is the class's own config.
TINY = {
    "tiny_sticker": dict(
        size=(32, 32), in_channels=4, out_channels=4, latent_channels=8,
        encoder_block_out_channels=(12,) * 4, decoder_block_out_channels=(12,) * 4,
        num_encoder_blocks=(1, 2, 2, 2), num_decoder_blocks=(2, 2, 2, 1),
    ),
    "tiny_rgb": dict(
        size=(24, 40), in_channels=3, out_channels=3, latent_channels=4,
        encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(10,) * 4,
        num_encoder_blocks=(1, 3, 3, 3), num_decoder_blocks=(3, 3, 3, 1),
    ),
    "tiny_gelu_two_stages": dict(
        size=(12, 8), in_channels=4, out_channels=4, latent_channels=6,
        encoder_block_out_channels=(14, 14), decoder_block_out_channels=(9, 9),
        num_encoder_blocks=(2, 1), num_decoder_blocks=(1, 2), act_fn="gelu", scaling_factor=1.3,
    ),
    "tiny_silu_bilinear": dict(
        size=(16, 24), in_channels=3, out_channels=3, latent_channels=16,
        encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 2), num_decoder_blocks=(2, 1, 1), act_fn="silu", upsample_fn="bilinear",
        latent_magnitude=2, latent_shift=0.25, shift_factor=0.1,
    ),
    "tiny_f16": dict(
        size=(8, 16), in_channels=4, out_channels=4, latent_channels=8, encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1), stored=torch.float16,
    ),
}

KL = {
    "kl_rgb": dict(
        size=(16, 24), block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4, latent_channels=4,
    ),
    "kl_rgba": dict(
        size=(24, 16), in_channels=4, out_channels=4, block_out_channels=(6, 12, 12), layers_per_block=1,
        norm_num_groups=3, latent_channels=8, scaling_factor=0.6, shift_factor=0.1,
    ),
    "kl_no_attention": dict(
        size=(16, 32), in_channels=4, out_channels=4, block_out_channels=(8, 8, 16, 16), layers_per_block=1,
        norm_num_groups=8, latent_channels=4, mid_block_add_attention=False,
    ),
    "kl_no_quant_convs": dict(
        size=(16, 8), block_out_channels=(8, 16, 24), layers_per_block=1, norm_num_groups=2, latent_channels=16,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159,
    ),
    "kl_one_level": dict(
        size=(6, 10), block_out_channels=(12,), layers_per_block=2, norm_num_groups=4, latent_channels=4,
        use_quant_conv=False, act_fn="gelu",
    ),
    "kl_attention_blocks": dict(
        size=(12, 16), block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=4, latent_channels=4,
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D"),
    ),
    "kl_published_names": dict(
        size=(8, 16), block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        published_names=True,
    ),
    # diffusion_pytorch_model.fp16.safetensors, as a download of the half-size files has it.
    "kl_fp16_variant": dict(
        size=(8, 8), block_out_channels=(8, 12), layers_per_block=1, norm_num_groups=4, latent_channels=4,
        stored=torch.float16, save=dict(variant="fp16"),
    ),
}

SANA_BLOCKS = ("ResBlock", "ResBlock", "EfficientViTBlock", "EfficientViTBlock")

DC = {
    # Sana's and Nitro-E's: interpolating upsamplers, RMS norms.
    "dc_sana": dict(
        size=(16, 24), latent_channels=4, attention_head_dim=4, encoder_block_types=SANA_BLOCKS,
        decoder_block_types=SANA_BLOCKS, encoder_block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16), encoder_layers_per_block=(1, 1, 2, 1),
        decoder_layers_per_block=(1, 2, 1, 1), encoder_qkv_multiscales=((), (), (5,), (5,)),
        decoder_qkv_multiscales=((), (), (5,), (5,)), upsample_block_type="interpolate",
        downsample_block_type="Conv", scaling_factor=0.41407,
    ),
    # The ImageNet ones: no layers at full size, pixel (un)shuffle, batch norms.
    "dc_imagenet": dict(
        size=(24, 16), latent_channels=4, attention_head_dim=8, encoder_block_types=SANA_BLOCKS,
        decoder_block_types=SANA_BLOCKS, encoder_block_out_channels=(8, 8, 16, 16),
        decoder_block_out_channels=(8, 8, 16, 16), encoder_layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(0, 1, 1, 2), encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        decoder_norm_types=("batch_norm", "batch_norm", "rms_norm", "rms_norm"),
        decoder_act_fns=("relu", "relu", "silu", "silu"),
    ),
    "dc_no_shortcuts": dict(
        size=(8, 12), in_channels=4, latent_channels=6, attention_head_dim=6,
        encoder_block_types=("ResBlock", "EfficientViTBlock"), decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(6, 12), decoder_block_out_channels=(6, 12), encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 2), encoder_qkv_multiscales=((), (3, 5)), decoder_qkv_multiscales=((), (3, 5)),
        encoder_out_shortcut=False, decoder_in_shortcut=False, decoder_conv_act_fn="silu",
    ),
}


def tiny(folder: Path, size: tuple[int, int], stored=torch.float32, **config) -> None:
    gen = generator(folder.name)
    model = randomise(AutoencoderTiny(**config), gen, stored)
    image = randn(gen, 2, model.config.in_channels, *size).clamp(-1, 1)
    latent = model.encode(image).latents
    z = 2 * randn(gen, *latent.shape)
    decoded = model.decode(z).sample
    save_case(clean(folder), model, dict(image=image, latent=latent, z=z, decoded=decoded), stored)


def to_published_names(path: Path) -> None:
    """What the first Stable Diffusion checkpoints call the attention's parts."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for new_part, old_part in old.items():
            name = name.replace(f".{new_part}.", f".{old_part}.")
        tensors[name] = tensor
    save_file(tensors, path, metadata=dict(format="pt"))


def kl(
    folder: Path,
    size: tuple[int, int],
    published_names: bool = False,
    stored=torch.float32,
    save: dict | None = None,
    **config,
) -> None:
    gen = generator(folder.name)
    depth = len(config["block_out_channels"])
    plain = dict(down_block_types=("DownEncoderBlock2D",) * depth, up_block_types=("UpDecoderBlock2D",) * depth)
    model = AutoencoderKL(**plain | config)
    randomise(model, gen, stored)
    image = randn(gen, 2, model.config.in_channels, *size).clamp(-1, 1)
    distribution = model.encode(image).latent_dist
    z = randn(gen, *distribution.mean.shape)
    tensors = dict(
        image=image, moments=distribution.parameters, latent=distribution.mean, z=z, decoded=model.decode(z).sample
    )
    save_case(clean(folder), model, tensors, stored, **save or {})
    if published_names:
        to_published_names(folder / "diffusion_pytorch_model.safetensors")


def dc(folder: Path, size: tuple[int, int], **config) -> None:
    gen = generator(folder.name)
    model = randomise(AutoencoderDC(**config), gen)
    image = randn(gen, 2, model.config.in_channels, *size).clamp(-1, 1)
    latent = model.encode(image).latent
    z = randn(gen, *latent.shape)
    save_case(clean(folder), model, dict(image=image, latent=latent, z=z, decoded=model.decode(z).sample))


# Looked up by id, as aMUSEd's is.
VQ = {
    "vq_rgb": dict(
        size=(16, 24), block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, layers_per_block=2, norm_num_groups=4, latent_channels=6, num_vq_embeddings=40,
        mid_block_add_attention=False,
    ),
    "vq_rgba": dict(
        size=(24, 16), in_channels=4, out_channels=4, block_out_channels=(6, 12, 12), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, norm_num_groups=3, latent_channels=8, num_vq_embeddings=24,
        vq_embed_dim=5,
    ),
}  # fmt: skip


def vq(folder: Path, size: tuple[int, int], **config) -> None:
    gen = generator(folder.name)
    model = randomise(VQModel(lookup_from_codebook=True, **config), gen)
    # Codes as far apart as what is encoded, so that more than a few are nearest to something.
    image = randn(gen, 2, config.get("in_channels", 3), *size).clamp(-1, 1)
    latents = model.encode(image).latents
    count, width = model.quantize.embedding.weight.shape
    near = latents.permute(0, 2, 3, 1).reshape(-1, width)[torch.randperm(latents[:, 0].numel(), generator=gen)[:count]]
    model.quantize.embedding.weight[: len(near)] = near + 0.1 * randn(gen, *near.shape)
    codes = model.quantize(latents)[2][2].reshape(2, -1)
    if codes.unique().numel() < 10:
        raise ValueError(f"{folder}: the codes are all alike")
    shape = (2, *latents.shape[2:], width)
    decoded = model.decode(codes, force_not_quantize=True, shape=shape).sample
    tensors = dict(image=image, latents=latents, codes=codes, decoded=decoded, sample=model(image).sample)
    save_case(clean(folder), model, tensors)


def cases() -> dict:
    families = [(tiny, TINY), (kl, KL), (dc, DC), (vq, VQ)]
    return {f"autoencoder/{name}": partial(f, **config) for f, table in families for name, config in table.items()}
