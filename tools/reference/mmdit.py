"""Stable Diffusion 3 and Flux: their transformers alone, and whole runs of diffusers' pipelines on tiny models."""

import json
from functools import partial
from pathlib import Path

import diffusers
import tokenizer
import torch
from diffusers import FluxTransformer2DModel, GlmImageTransformer2DModel, SD3Transformer2DModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from diffusers_runs import MAX_TEXT_TOKENS, PREVIEW, clip_text, kl, record, tiny
from common import clean, generator, mask_picture, picture, randint, randn, randomise, save_case, save_json, save_tensors

TEXT_TOKENS = 7

# `size` is the latent's height and width, `skip` lists layers that are left out; all else is the class's own config.
SD3 = {
    "sd3_plain": dict(
        size=(8, 8), sample_size=8, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=20, caption_projection_dim=16, pooled_projection_dim=14,
        pos_embed_max_size=8,
    ),
    # 3.5: heads that no power of two divides, two attentions in some layers, and a crop that is not in the middle of a
    # whole number of positions.
    "sd3_dual": dict(
        size=(6, 14), sample_size=8, in_channels=6, out_channels=None, num_layers=3, attention_head_dim=8,
        num_attention_heads=3, joint_attention_dim=20, caption_projection_dim=24, pooled_projection_dim=10,
        pos_embed_max_size=12, dual_attention_layers=(0, 2), qk_norm="rms_norm", skip=(1,),
    ),
    # A table that no formula gives, and an output of another width.
    "sd3_table": dict(
        size=(10, 4), sample_size=16, patch_size=1, in_channels=3, out_channels=5, num_layers=1, attention_head_dim=20,
        num_attention_heads=1, joint_attention_dim=12, caption_projection_dim=20, pooled_projection_dim=8,
        pos_embed_max_size=11, qk_norm="rms_norm", own_table=True,
    ),
}
FLUX = {
    "flux_plain": dict(
        size=(8, 8), in_channels=16, num_layers=2, num_single_layers=1, attention_head_dim=12, num_attention_heads=2,
        joint_attention_dim=20, pooled_projection_dim=14, axes_dims_rope=(4, 4, 4),
    ),
    "flux_guided": dict(
        size=(6, 14), in_channels=24, num_layers=1, num_single_layers=2, attention_head_dim=10, num_attention_heads=3,
        joint_attention_dim=18, pooled_projection_dim=10, axes_dims_rope=(2, 4, 4), guidance_embeds=True,
    ),
    # As the one that fills: more channels in than out.
    "flux_wide": dict(
        size=(4, 10), in_channels=40, out_channels=12, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=1, joint_attention_dim=12, pooled_projection_dim=8, axes_dims_rope=(2, 8, 6),
        guidance_embeds=True,
    ),
}


def sd3_model(gen: torch.Generator, own_table: bool = False, **config) -> SD3Transformer2DModel:
    model = randomise(SD3Transformer2DModel(**config), gen)
    if own_table:
        model.pos_embed.pos_embed.copy_(randn(gen, *model.pos_embed.pos_embed.shape))
    return model


def sd3(folder: Path, size: tuple[int, int], skip: tuple[int, ...] = (), **config) -> None:
    gen = generator(folder.name)
    model = sd3_model(gen, **config)
    tensors = dict(
        sample=randn(gen, 2, model.config.in_channels, *size),
        timestep=torch.tensor([987.5, 41.25]),
        encoder_hidden_states=randn(gen, 2, TEXT_TOKENS, model.config.joint_attention_dim),
        pooled_projections=randn(gen, 2, model.config.pooled_projection_dim),
    )

    def output(skip_layers):
        sample, timestep, text, pooled = tensors.values()
        return model(sample, text, pooled, timestep, skip_layers=skip_layers).sample

    outputs = dict(output=output(None))
    if skip:
        outputs |= dict(skip_layers=torch.tensor(skip), skipped_output=output(list(skip)))
    save_case(clean(folder), model, tensors | outputs)


def flux(folder: Path, size: tuple[int, int], **config) -> None:
    gen = generator(folder.name)
    model = randomise(FluxTransformer2DModel(**config), gen)
    pipe = diffusers.FluxPipeline
    height, width = size
    sample = randn(gen, 2, model.config.in_channels // 4, height, width)
    tensors = dict(
        sample=sample,
        timestep=torch.tensor([987.5, 41.25]),
        encoder_hidden_states=randn(gen, 2, TEXT_TOKENS, model.config.joint_attention_dim),
        pooled_projections=randn(gen, 2, model.config.pooled_projection_dim),
    )
    if model.config.guidance_embeds:
        tensors["guidance"] = torch.tensor([3.5, 3.5])
    output = model(
        pipe._pack_latents(sample, 2, sample.shape[1], height, width),
        encoder_hidden_states=tensors["encoder_hidden_states"],
        pooled_projections=tensors["pooled_projections"],
        timestep=tensors["timestep"] / 1000,
        img_ids=pipe._prepare_latent_image_ids(2, height // 2, width // 2, "cpu", torch.float32),
        txt_ids=torch.zeros(TEXT_TOKENS, 3),
        guidance=tensors.get("guidance"),
    ).sample
    tensors["output"] = pipe._unpack_latents(output, 8 * height, 8 * width, 8)
    save_case(clean(folder), model, tensors)


# `size` is the latent's height and width.
GLM_IMAGE = {
    "glm_image_plain": dict(
        size=(8, 8), in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2, text_embed_dim=10,
        time_embed_dim=12, condition_dim=6, prior_vq_quantizer_codebook_size=20,
    ),
    # Rows are not columns, heads that no power of two divides, other channels out, and no patches.
    "glm_image_wide": dict(
        size=(3, 5), patch_size=1, in_channels=3, out_channels=6, num_layers=3, attention_head_dim=12, num_attention_heads=3,
        text_embed_dim=7, time_embed_dim=8, condition_dim=10, prior_vq_quantizer_codebook_size=9,
    ),
}  # fmt: skip


def glm_image(folder: Path, size: tuple[int, int], **config) -> None:
    gen = generator(folder.name)
    model = randomise(GlmImageTransformer2DModel(**config), gen)
    height, width = size
    patches = height * width // model.config.patch_size**2
    tensors = dict(
        sample=randn(gen, 2, model.config.in_channels, height, width),
        timestep=torch.tensor([987.0, 41.0]),
        encoder_hidden_states=randn(gen, 2, TEXT_TOKENS, model.config.text_embed_dim),
        prior_token_id=randint(gen, model.config.prior_vq_quantizer_codebook_size, 2, patches),
        target_size=torch.tensor([[8.0 * height, 8.0 * width]]),
        crop_coords=torch.tensor([[3.0, 5.0]]),
    )
    sizes = {name: tensors[name].repeat(2, 1) for name in ("target_size", "crop_coords")}
    # The second is drawn as in the call without a layout.
    drop = torch.tensor([False, True])[:, None].expand(2, patches)
    tensors["output"] = model(
        hidden_states=tensors["sample"],
        prior_token_drop=drop,
        **{name: tensors[name] for name in ("encoder_hidden_states", "prior_token_id", "timestep")},
        **sizes,
    ).sample
    save_case(clean(folder), model, tensors)


# What the tiny encoders are wide; joined, both CLIPs fit into T5's.
CLIP_WIDTH, CLIP_2_WIDTH, T5_WIDTH = 8, 12, 24
T5_TOKENS = 12


def t5():
    words = tokenizer.t5(MAX_TEXT_TOKENS)
    config = T5Config(
        vocab_size=len(words), d_model=T5_WIDTH, d_kv=6, d_ff=20, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu",
    )  # fmt: skip
    return words, T5EncoderModel(config)


def vae(latent_channels: int, scaling_factor: float, shift_factor: float):
    return kl(
        latent_channels=latent_channels, scaling_factor=scaling_factor, shift_factor=shift_factor,
        use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip


def clip(model, width: int, **config):
    return clip_text(model, hidden_size=width, intermediate_size=2 * width, **config)


def stable_diffusion_3(pipeline: str = "StableDiffusion3Pipeline", scheduler=None, with_t5: bool = True, **transformer):
    # Inpainting knows 16 channels alone.
    channels, projections = 16, (6, 10)
    words, encoder = t5() if with_t5 else (None, None)
    defaults = dict(
        sample_size=16, in_channels=channels, out_channels=channels, num_layers=2, attention_head_dim=8,
        num_attention_heads=3, joint_attention_dim=T5_WIDTH, caption_projection_dim=24,
        pooled_projection_dim=sum(projections), pos_embed_max_size=24,
    )  # fmt: skip
    return getattr(diffusers, pipeline)(
        transformer=SD3Transformer2DModel(**defaults | transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler or dict(shift=3.0)),
        vae=vae(channels, 1.5305, 0.0609),
        text_encoder=clip(CLIPTextModelWithProjection, CLIP_WIDTH, projection_dim=projections[0]),
        tokenizer=tokenizer.clip(max_text_tokens=MAX_TEXT_TOKENS),
        text_encoder_2=clip(
            CLIPTextModelWithProjection, CLIP_2_WIDTH, projection_dim=projections[1], hidden_act="gelu"
        ),
        tokenizer_2=tokenizer.clip("!", MAX_TEXT_TOKENS),
        text_encoder_3=encoder,
        tokenizer_3=words,
    )


DYNAMIC = dict(
    shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, base_image_seq_len=16, max_image_seq_len=256
)


def flux_1(pipeline: str = "FluxPipeline", scheduler=None, channels: int = 4, extra: int = 0, **transformer):
    words, encoder = t5()
    defaults = dict(
        in_channels=4 * (channels + extra), out_channels=4 * channels, num_layers=1, num_single_layers=1,
        attention_head_dim=12, num_attention_heads=2, joint_attention_dim=T5_WIDTH, pooled_projection_dim=CLIP_WIDTH,
        axes_dims_rope=(2, 4, 6),
    )  # fmt: skip
    return getattr(diffusers, pipeline)(
        transformer=FluxTransformer2DModel(**defaults | transformer),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**scheduler or DYNAMIC),
        vae=vae(channels, 0.3611, 0.1159),
        text_encoder=clip(CLIPTextModel, CLIP_WIDTH),
        tokenizer=tokenizer.clip(max_text_tokens=MAX_TEXT_TOKENS),
        text_encoder_2=encoder,
        tokenizer_2=words,
    )


def request(prompt: str, negative_prompt: str | None = None, **more) -> dict:
    defaults = dict(steps=4, guidance=5.0, width=32, height=32)
    return dict(prompt=prompt, negative_prompt=negative_prompt) | defaults | more


FACTOR = 4
"""Pixels for each position of the tiny autoencoder's latents."""

INIT = dict(init="init.png")
MASK = INIT | dict(mask="mask.png")
CASES = {
    "sd3_text": dict(
        build=stable_diffusion_3,
        preview=partial(tiny, latent_channels=16),
        request=request("a cute red apple with a face", width=48),
    ),
    # No third encoder: zeros stand in its place. As 3.5-medium: both kinds of attention, and norms of queries and keys.
    "sd3_without_t5": dict(
        build=partial(
            stable_diffusion_3, with_t5=False, dual_attention_layers=(0,), qk_norm="rms_norm", scheduler=DYNAMIC
        ),
        request=request("flat icon of a cat", "dark, sad", height=40, guidance=4.0),
    ),
    "sd3_skip_layers": dict(
        build=partial(stable_diffusion_3, num_layers=3, dual_attention_layers=(0, 1), qk_norm="rms_norm"),
        request=request(
            "a rocket over the moon", steps=8,
            skip_layers=dict(layers=[1], scale=2.8, start=0.1, stop=0.6),
        ),
    ),
    # Without guidance, too.
    "sd3_img2img": dict(
        build=partial(stable_diffusion_3, "StableDiffusion3Img2ImgPipeline"),
        request=request("a golden crown", steps=7, guidance=1.0, strength=0.65, width=48, **INIT),
        encode_noise=True,
    ),
    "sd3_inpaint": dict(
        build=partial(stable_diffusion_3, "StableDiffusion3InpaintPipeline", scheduler=DYNAMIC),
        request=request("a green snake", "snow", steps=5, strength=0.75, height=48, **MASK),
        encode_noise=True,
    ),
    # Told the guidance, shifted by the picture's size: as dev.
    "flux_guided": dict(
        build=partial(flux_1, guidance_embeds=True),
        preview=tiny,
        request=request("glossy sticker of a unicorn", guidance=3.5, width=48),
    ),
    # As schnell: neither.
    "flux_plain": dict(
        build=partial(flux_1, scheduler=dict(shift=1.0)), request=request("a blue balloon", steps=3, height=48)
    ),
    "flux_true_guidance": dict(
        build=partial(flux_1, guidance_embeds=True, num_attention_heads=3, scheduler=dict(shift=2.0)),
        request=request("a castle on an island", "rain and snow", guidance=2.5, true_guidance=3.0),
    ),
    "flux_img2img": dict(
        build=partial(flux_1, "FluxImg2ImgPipeline", guidance_embeds=True),
        request=request("a wooden boat", steps=7, guidance=7.0, strength=0.6, height=48, **INIT),
        encode_noise=True,
    ),
    "flux_inpaint": dict(
        build=partial(flux_1, "FluxInpaintPipeline", guidance_embeds=True),
        request=request("a silver spoon", "glass", steps=5, true_guidance=2.0, strength=0.8, width=48, **MASK),
        encode_noise=True,
    ),
    "flux_fill": dict(
        build=partial(flux_1, "FluxFillPipeline", extra=4 + FACTOR**2, guidance_embeds=True),
        request=request("an old lamp", steps=4, guidance=30.0, strength=1.0, width=48, **MASK),
        encode_noise=True,
    ),
}


def text_tensors(pipe, prompt: str) -> dict[str, torch.Tensor]:
    """The positive prompt's ids by each tokenizer, and its embedding."""
    arguments = dict(padding="max_length", truncation=True, return_tensors="pt")
    tensors = {}
    for component, length in dict(tokenizer=MAX_TEXT_TOKENS, tokenizer_2=MAX_TEXT_TOKENS, tokenizer_3=T5_TOKENS).items():
        words = pipe.components.get(component)
        if words is not None:
            length = T5_TOKENS if "T5" in type(words).__name__ else length
            tensors[component.replace("tokenizer", "input_ids")] = words(prompt, max_length=length, **arguments).input_ids
    if hasattr(pipe, "text_encoder_3"):
        hidden, _, pooled, _ = pipe.encode_prompt(
            prompt, None, None, do_classifier_free_guidance=False, max_sequence_length=T5_TOKENS
        )
    else:
        hidden, pooled, _ = pipe.encode_prompt(prompt, max_sequence_length=T5_TOKENS)
    return tensors | dict(text_embedding=hidden, pooled_embedding=pooled)


def pipeline(folder: Path, build, request: dict, encode_noise: bool = False, preview=None) -> None:
    gen = generator(folder.name)
    clean(folder)
    pipe = build()
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            randomise(component, gen)
    pipe.save_pretrained(folder)
    decoder = preview and randomise(preview(), gen)
    if decoder:
        decoder.save_pretrained(folder / PREVIEW)
    index = json.loads((folder / "model_index.json").read_text())
    added = {PREVIEW: ["diffusers", type(decoder).__name__]} if decoder else {}
    save_json(folder / "model_index.json", index | added | dict(max_text_tokens=T5_TOKENS), indent=2)

    names = dict(steps="num_inference_steps", guidance="guidance_scale", true_guidance="true_cfg_scale")
    keys = ("prompt", "negative_prompt", "width", "height", "strength")
    arguments = {key: request[key] for key in keys if request.get(key) is not None}
    arguments |= {name: request[key] for key, name in names.items() if key in request}
    arguments["max_sequence_length"] = T5_TOKENS
    if skip := request.get("skip_layers"):
        arguments |= dict(
            skip_guidance_layers=skip["layers"], skip_layer_guidance_scale=skip["scale"],
            skip_layer_guidance_start=skip["start"], skip_layer_guidance_stop=skip["stop"],
        )  # fmt: skip
    size = request["height"], request["width"]
    if "init" in request:
        arguments["image"] = picture(gen, "RGB", *size)
        arguments["image"].save(folder / request["init"])
    if "mask" in request:
        arguments["mask_image"] = mask_picture(*size)
        arguments["mask_image"].save(folder / request["mask"])

    height, width = (side // FACTOR for side in size)
    noise = randn(gen, 1, pipe.vae.config.latent_channels, height, width)
    unpack = None
    if hasattr(pipe, "_unpack_latents"):
        unpack = partial(pipe._unpack_latents, height=size[0], width=size[1], vae_scale_factor=FACTOR)
    tensors = text_tensors(pipe, request["prompt"])
    tensors |= record(pipe, arguments, noise, gen, encode_noise, decoder, unpack)
    save_json(folder / "request.json", request, indent=2)
    save_tensors(folder / "reference.safetensors", tensors)


def cases() -> dict:
    return (
        {f"denoise/{name}": partial(sd3, **case) for name, case in SD3.items()}
        | {f"denoise/{name}": partial(flux, **case) for name, case in FLUX.items()}
        | {f"denoise/{name}": partial(glm_image, **case) for name, case in GLM_IMAGE.items()}
        | {f"pipeline/{name}": partial(pipeline, **case) for name, case in CASES.items()}
    )
