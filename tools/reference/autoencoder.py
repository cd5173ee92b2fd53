"""Autoencoders: Latent <-> pixel tensor."""

from functools import partial
from pathlib import Path

from diffusers import AutoencoderKL, AutoencoderTiny

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
}


def tiny(folder: Path, size: tuple[int, int], **config) -> None:
    gen = generator(folder.name)
    model = randomise(AutoencoderTiny(**config), gen)
    image = randn(gen, 2, model.config.in_channels, *size).clamp(-1, 1)
    latent = model.encode(image).latents
    z = 2 * randn(gen, *latent.shape)
    decoded = model.decode(z).sample
    save_case(clean(folder), model, dict(image=image, latent=latent, z=z, decoded=decoded))


def kl(folder: Path, size: tuple[int, int], **config) -> None:
    gen = generator(folder.name)
    depth = len(config["block_out_channels"])
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth, up_block_types=("UpDecoderBlock2D",) * depth, **config
    )
    randomise(model, gen)
    image = randn(gen, 2, model.config.in_channels, *size).clamp(-1, 1)
    distribution = model.encode(image).latent_dist
    z = randn(gen, *distribution.mean.shape)
    tensors = dict(
        image=image, moments=distribution.parameters, latent=distribution.mean, z=z, decoded=model.decode(z).sample
    )
    save_case(clean(folder), model, tensors)


def cases() -> dict:
    return {f"autoencoder/{name}": partial(tiny, **config) for name, config in TINY.items()} | {
        f"autoencoder/{name}": partial(kl, **config) for name, config in KL.items()
    }
