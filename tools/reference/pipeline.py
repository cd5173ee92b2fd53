"""Whole pipelines: a tiny diffusers folder, a request, and every intermediate of the run."""

import json
from functools import partial
from pathlib import Path

import tokenizer
from diffusers import AutoencoderKL, AutoencoderTiny, FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from transformers import BertConfig, BertModel

from common import clean, generator, mask_picture, picture, randn, randomise, save_json, save_tensors
from sampler import Sampler

VOCABULARY = tokenizer.word_piece().get_vocab_size()

# `sizes` are [width, height].
STICKER = {
    "sticker_tiny": dict(
        text=dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48),
        transformer=dict(
            in_channels=8, out_channels=8, num_layers=2, num_attention_heads=2, attention_head_dim=16,
            cross_attention_dim=32, caption_channels=24, sample_size=4, interpolation_scale=1,
            use_additional_conditions=False,
        ),
        vae=AutoencoderTiny,
        vae_config=dict(
            in_channels=4, out_channels=4, latent_channels=8,
            encoder_block_out_channels=(10,) * 4, decoder_block_out_channels=(10,) * 4,
            num_encoder_blocks=(1, 2, 2, 2), num_decoder_blocks=(2, 2, 2, 1),
        ),
        # AutoencoderTiny has no such fields; first-128 writes them beside its own.
        vae_extra=dict(
            latents_mean=[-0.3, 0.0, -0.3, 0.25, 0.1, 0.9, 0.5, -0.4],
            latents_std=[1.6, 1.5, 0.8, 1.4, 1.2, 1.1, 0.9, 1.3],
        ),
        scheduler={},
        index=dict(
            max_text_tokens=16, alpha="premultiplied", default_steps=4, default_guidance=3.5, sizes=[[32, 32]],
            styles=["3d emoji", "flat emoji"],
        ),
        request=dict(
            prompt="3d emoji of a red apple", negative_prompt="", seed=None, steps=4, guidance=3.5, width=32, height=32
        ),
    ),
    "sticker_kl_wide": dict(
        text=dict(hidden_size=36, num_hidden_layers=1, num_attention_heads=3, intermediate_size=40),
        transformer=dict(
            in_channels=4, out_channels=8, num_layers=1, num_attention_heads=3, attention_head_dim=8,
            cross_attention_dim=24, caption_channels=36, sample_size=8, interpolation_scale=2,
            use_additional_conditions=True,
        ),
        vae=AutoencoderKL,
        vae_config=dict(
            down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 16), layers_per_block=1, norm_num_groups=4, latent_channels=4,
            scaling_factor=0.6, shift_factor=0.15,
        ),
        vae_extra={},
        scheduler=dict(shift=3.0),
        # What published tokenizers carry: both must yield to max_text_tokens.
        stale_tokenizer=True,
        index=dict(
            max_text_tokens=12, alpha="none", default_steps=3, default_guidance=1.0, sizes=[[40, 24]], styles=[]
        ),
        request=dict(
            prompt="a smiling cat, wearing a crown and glasses, riding a unicorn over the moon",
            negative_prompt="", seed=None, steps=3, guidance=1.0, width=40, height=24,
        ),
    ),
    "sticker_straight": dict(
        text=dict(
            hidden_size=20, num_hidden_layers=2, num_attention_heads=1, intermediate_size=32, hidden_act="gelu_new"
        ),
        transformer=dict(
            in_channels=6, out_channels=None, num_layers=2, num_attention_heads=1, attention_head_dim=24,
            cross_attention_dim=24, caption_channels=20, sample_size=8, patch_size=1, interpolation_scale=1,
            norm_elementwise_affine=True, use_additional_conditions=False,
        ),
        vae=AutoencoderTiny,
        vae_config=dict(
            in_channels=4, out_channels=4, latent_channels=6,
            encoder_block_out_channels=(12,) * 3, decoder_block_out_channels=(12,) * 3,
            num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), scaling_factor=0.8, shift_factor=0.2,
        ),
        vae_extra={},
        scheduler=dict(shift=1.5),
        index=dict(
            max_text_tokens=16, alpha="straight", default_steps=6, default_guidance=3.5, sizes=[[24, 32], [32, 32]],
            styles=["sticker"],
        ),
        request=dict(
            prompt="Sticker of two café robots", negative_prompt="dark, sad ghost", seed=None, steps=6, guidance=3.5,
            width=24, height=32,
        ),
    ),
}
# The same models drawn from other seeds, with a picture to start from; the last has a decoder of one more stage, which
# makes pictures twice as large as the encoder takes.
STICKER |= {
    "sticker_img2img": STICKER["sticker_tiny"]
    | dict(
        request=dict(
            prompt="flat emoji of a lemon", negative_prompt="", seed=None, steps=6, guidance=2.5, width=32, height=32,
            init="init.png", strength=0.6,
        ),
    ),
    "sticker_inpaint": STICKER["sticker_straight"]
    | dict(
        request=dict(
            prompt="sticker of a ghost", negative_prompt="", seed=None, steps=5, guidance=3.0, width=24, height=32,
            init="init.png", mask="mask.png", strength=0.7,
        ),
    ),
    "sticker_enlarged": STICKER["sticker_tiny"]
    | dict(
        vae_config=STICKER["sticker_tiny"]["vae_config"]
        | dict(
            encoder_block_out_channels=(8,) * 3, num_encoder_blocks=(1, 1, 1),
            decoder_block_out_channels=(8,) * 4, num_decoder_blocks=(1, 1, 1, 0),
        ),
        index=STICKER["sticker_tiny"]["index"] | dict(sizes=[[48, 32]]),
        request=dict(
            prompt="flat emoji of a snail", negative_prompt="", seed=None, steps=4, guidance=2.0, width=48, height=32,
            init="init.png", mask="mask.png", strength=0.75,
        ),
    ),
}


def sticker(
    folder: Path, text: dict, transformer: dict, vae, vae_config: dict, vae_extra: dict, scheduler: dict, index: dict,
    request: dict, stale_tokenizer: bool = False,
) -> None:
    gen = generator(folder.name)
    clean(folder)
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=index["max_text_tokens"], **text)
    components = dict(
        text_encoder=BertModel(config), transformer=PixArtTransformer2DModel(**transformer), vae=vae(**vae_config)
    )
    for name, model in components.items():
        randomise(model, gen).save_pretrained(folder / name)
    if vae_extra:
        path = folder / "vae" / "config.json"
        save_json(path, json.loads(path.read_text()) | vae_extra, indent=2)
    FlowMatchEulerDiscreteScheduler(**scheduler).save_pretrained(folder / "scheduler")

    words = tokenizer.word_piece()
    if stale_tokenizer:
        words.enable_truncation(128)
        words.enable_padding(length=128)
    (folder / "tokenizer").mkdir()
    words.save(str(folder / "tokenizer" / "tokenizer.json"))
    classes = dict(
        text_encoder=["transformers", "BertModel"],
        tokenizer=["transformers", "PreTrainedTokenizerFast"],
        transformer=["diffusers", "PixArtTransformer2DModel"],
        vae=["diffusers", vae.__name__],
        scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"],
    )
    save_json(folder / "model_index.json", dict(_class_name="InkbloomPipeline") | classes | index, indent=2)

    sampler = Sampler(folder)
    arguments = {k: v for k, v in request.items() if k != "seed"}
    size = request["height"], request["width"]
    if "init" in request:
        arguments["init"] = picture(gen, "RGB" if index["alpha"] == "none" else "RGBA", *size)
        arguments["init"].save(folder / request["init"])
    if "mask" in request:
        arguments["mask"] = mask_picture(*size)
        arguments["mask"].save(folder / request["mask"])
    noise = randn(gen, *sampler.latent_shape(*size))
    save_json(folder / "request.json", request, indent=2)
    save_tensors(folder / "reference.safetensors", sampler(noise=noise, **arguments))


def cases() -> dict:
    return {f"pipeline/{name}": partial(sticker, **case) for name, case in STICKER.items()}
