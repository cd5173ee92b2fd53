"""Whole runs of diffusers' own pipelines on tiny models, with every random draw recorded."""

import inspect
import json
import sys
from contextlib import ExitStack
from functools import partial, wraps
from pathlib import Path
from unittest.mock import patch

import diffusers
import tokenizer
import torch
from diffusers.models.autoencoders import vae as vae_module
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from common import clean, generator, mask_picture, picture, randn, randomise, save_json, save_tensors

MAX_TEXT_TOKENS = 16
CLIP_VOCABULARY = len(tokenizer.clip_vocabulary()[0])
STABLE_DIFFUSION = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
LATENT_CHANNELS = 4
PIXART = (diffusers.PixArtAlphaPipeline, diffusers.PixArtSigmaPipeline)
PREVIEW = "preview_vae"
"""Inkbloom's name for an optional component that diffusers has no name for."""


def clip_text(model=CLIPTextModel, **config):
    defaults = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, eos_token_id=2)
    return model(
        CLIPTextConfig(
            vocab_size=CLIP_VOCABULARY,
            max_position_embeddings=MAX_TEXT_TOKENS,
            bos_token_id=CLIP_VOCABULARY - 2,
            **defaults | config,
        )
    )


def unet(**config):
    defaults = dict(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=4,
        sample_size=8,
    )
    return diffusers.UNet2DConditionModel(**defaults | config)


def kl(**config):
    depth = 3
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=(8, 8, 12),
        norm_num_groups=4,
        **dict(latent_channels=LATENT_CHANNELS) | config,
    )


def tiny(latent_channels: int = LATENT_CHANNELS):
    """A small decoder of the same latents, as TAESD is of Stable Diffusion's."""
    width, stages = 8, 3
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(width,) * stages, decoder_block_out_channels=(width,) * stages,
        num_encoder_blocks=(1,) * stages, num_decoder_blocks=(1,) * stages, latent_channels=latent_channels,
    )


def stable_diffusion(pipeline: str, scheduler, text=None, pad_token: str = "<|endoftext|>", **unet_config):
    return getattr(diffusers, pipeline)(
        vae=kl(),
        text_encoder=clip_text(**text or {}),
        tokenizer=tokenizer.clip(pad_token, MAX_TEXT_TOKENS),
        unet=unet(**unet_config),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(scheduler, pipeline: str = "StableDiffusionXLPipeline", **unet_config):
    projection, time = 12, 8
    return getattr(diffusers, pipeline)(
        vae=kl(scaling_factor=0.13025),
        text_encoder=clip_text(num_hidden_layers=3),
        text_encoder_2=clip_text(
            CLIPTextModelWithProjection, hidden_size=20, hidden_act="gelu", projection_dim=projection
        ),
        tokenizer=tokenizer.clip(max_text_tokens=MAX_TEXT_TOKENS),
        tokenizer_2=tokenizer.clip("!", MAX_TEXT_TOKENS),
        unet=unet(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            attention_head_dim=(1, 2),
            cross_attention_dim=16 + 20,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=time,
            projection_class_embeddings_input_dim=6 * time + projection,
            **unet_config,
        ),
        scheduler=scheduler,
        add_watermarker=False,
    )


def pixart(pipeline: str, scheduler, **transformer):
    text_width, heads, head = 16, 2, 12
    words = tokenizer.t5(MAX_TEXT_TOKENS)
    text = T5Config(
        vocab_size=len(words), d_model=text_width, d_kv=8, d_ff=24, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    defaults = dict(sample_size=16, interpolation_scale=2, use_additional_conditions=False)
    return getattr(diffusers, pipeline)(
        tokenizer=words,
        text_encoder=T5EncoderModel(text),
        vae=kl(scaling_factor=0.13025),
        transformer=diffusers.PixArtTransformer2DModel(
            num_attention_heads=heads, attention_head_dim=head, in_channels=4, out_channels=8, num_layers=2,
            cross_attention_dim=heads * head, caption_channels=text_width, **defaults | transformer,
        ),
        scheduler=scheduler,
    )


# How to build each, and the request. `preview` builds a decoder for what each step predicts. `encode_noise` lets the VAE's encoder draw, as diffusers does; elsewhere its
# draw is zero, so that the encoded picture is the distribution's mean.
CASES = {
    "sd15_text": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionPipeline",
            diffusers.PNDMScheduler(**STABLE_DIFFUSION, skip_prk_steps=True, set_alpha_to_one=False),
        ),
        request=dict(
            prompt="a cute red apple with a face", negative_prompt=None, steps=5, guidance=7.5, width=48, height=32
        ),
    ),
    "sd15_lcm": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionPipeline", diffusers.LCMScheduler(**STABLE_DIFFUSION), time_cond_proj_dim=12
        ),
        request=dict(prompt="pixel art of a dragon", negative_prompt=None, steps=4, guidance=8.0, width=32, height=32),
    ),
    "sd15_ancestral": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionPipeline",
            diffusers.EulerAncestralDiscreteScheduler(**STABLE_DIFFUSION),
            mid_block_type=None,
        ),
        request=dict(
            prompt="flat icon of a cat", negative_prompt="dark, sad", steps=4, guidance=5.0, width=32, height=40
        ),
    ),
    "sd21_v_prediction": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionPipeline",
            diffusers.DDIMScheduler(
                **STABLE_DIFFUSION, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
            ),
            text=dict(hidden_act="gelu"), pad_token="!", use_linear_projection=True, attention_head_dim=(1, 2),
            upcast_attention=True,
        ),
        request=dict(
            prompt="a rocket over the moon", negative_prompt="snow", steps=5, guidance=9.0, width=32, height=32, eta=0.6
        ),
    ),
    "sd_turbo": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionPipeline",
            diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="trailing"),
            text=dict(hidden_act="gelu"), pad_token="!", use_linear_projection=True, attention_head_dim=(1, 2),
        ),
        request=dict(prompt="a happy frog", negative_prompt=None, steps=1, guidance=0.0, width=32, height=32),
    ),
    "sd15_img2img": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionImg2ImgPipeline",
            diffusers.DPMSolverMultistepScheduler(**STABLE_DIFFUSION, use_karras_sigmas=True),
        ),
        request=dict(
            prompt="a golden crown", negative_prompt="", steps=8, guidance=6.0, width=48, height=32, init="init.png",
            strength=0.65,
        ),
        encode_noise=True,
    ),
    # Its strength says which steps of distillation the run is spread over, and none is left out.
    "lcm_img2img": dict(
        build=lambda: stable_diffusion(
            "LatentConsistencyModelImg2ImgPipeline",
            diffusers.LCMScheduler(**STABLE_DIFFUSION),
            block_out_channels=(4, 8), time_cond_proj_dim=6,
        ),
        request=dict(
            prompt="a red snail", negative_prompt=None, steps=3, guidance=8.5, width=40, height=32, init="init.png",
            strength=0.55,
        ),
        encode_noise=True,
    ),
    "sd15_preview": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionPipeline", diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION), block_out_channels=(4, 8),
        ),
        preview=tiny,
        request=dict(prompt="a blue fish", negative_prompt=None, steps=3, guidance=6.0, width=40, height=32),
    ),
    "sd15_inpaint_4": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionInpaintPipeline",
            diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION, timestep_spacing="leading"),
        ),
        request=dict(
            prompt="a green snake", negative_prompt="", steps=6, guidance=4.0, width=32, height=48, init="init.png",
            mask="mask.png", strength=0.75,
        ),
    ),
    "sd15_inpaint_9": dict(
        build=lambda: stable_diffusion(
            "StableDiffusionInpaintPipeline",
            diffusers.DDIMScheduler(**STABLE_DIFFUSION, clip_sample=False, set_alpha_to_one=False),
            in_channels=9,
        ),
        request=dict(
            prompt="a blue balloon", negative_prompt="", steps=4, guidance=7.5, width=40, height=32, init="init.png",
            mask="mask.png", strength=1.0,
        ),
    ),
    "sdxl_text": dict(
        build=lambda: stable_diffusion_xl(diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION)),
        # No negative prompt: zeros, as force_zeros_for_empty_prompt says.
        request=dict(
            prompt="glossy sticker of a unicorn", negative_prompt=None, steps=4, guidance=5.0, width=48, height=32
        ),
    ),
    "sdxl_negative": dict(
        build=lambda: stable_diffusion_xl(
            diffusers.DPMSolverMultistepScheduler(**STABLE_DIFFUSION, algorithm_type="sde-dpmsolver++")
        ),
        request=dict(
            prompt="a castle on an island", negative_prompt="rain and snow", steps=4, guidance=4.0, width=32, height=40
        ),
    ),
    "sdxl_img2img": dict(
        build=lambda: stable_diffusion_xl(
            diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION), "StableDiffusionXLImg2ImgPipeline"
        ),
        request=dict(
            prompt="a wooden boat", negative_prompt=None, steps=7, guidance=5.0, width=32, height=40, init="init.png",
            strength=0.6,
        ),
        encode_noise=True,
    ),
    "sdxl_inpaint_4": dict(
        build=lambda: stable_diffusion_xl(
            diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION), "StableDiffusionXLInpaintPipeline"
        ),
        request=dict(
            prompt="a silver spoon", negative_prompt=None, steps=5, guidance=7.5, width=48, height=32, init="init.png",
            mask="mask.png", strength=0.8,
        ),
    ),
    "sdxl_inpaint_9": dict(
        build=lambda: stable_diffusion_xl(
            diffusers.DPMSolverMultistepScheduler(**STABLE_DIFFUSION), "StableDiffusionXLInpaintPipeline", in_channels=9
        ),
        request=dict(
            prompt="an old lamp", negative_prompt="glass", steps=4, guidance=6.0, width=32, height=32, init="init.png",
            mask="mask.png", strength=1.0,
        ),
    ),
    # At this size of its grid the pipeline tells the transformer the picture's size and aspect ratio.
    "pixart_alpha": dict(
        build=lambda: pixart(
            "PixArtAlphaPipeline",
            diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02),
            sample_size=128, use_additional_conditions=True,
        ),
        request=dict(
            prompt="A Tall Lighthouse", negative_prompt="fog", steps=4, guidance=4.0, width=32, height=48
        ),
    ),
    "pixart_sigma": dict(
        build=lambda: pixart(
            "PixArtSigmaPipeline", diffusers.DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02)
        ),
        # The pipeline lowers the prompt's case.
        request=dict(
            prompt=" A Red Apple on the SEA ", negative_prompt="", steps=5, guidance=4.5, width=48, height=32
        ),
    ),
}


def text_tensors(pipe, request: dict) -> dict[str, torch.Tensor]:
    """The positive prompt's ids and embedding; two tokenizers and a pooled embedding in SDXL."""
    prompt = request["prompt"]
    arguments = dict(padding="max_length", truncation=True, max_length=MAX_TEXT_TOKENS, return_tensors="pt")
    if isinstance(pipe, PIXART):
        tokens = pipe.tokenizer(prompt.lower().strip(), **arguments)
        embedding, *_ = pipe.encode_prompt(
            prompt, do_classifier_free_guidance=False, max_sequence_length=MAX_TEXT_TOKENS
        )
        return dict(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, text_embedding=embedding)
    ids = pipe.tokenizer(prompt, **arguments).input_ids
    if hasattr(pipe, "text_encoder_2"):
        embedding, _, pooled, _ = pipe.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)
        ids_2 = pipe.tokenizer_2(prompt, **arguments).input_ids
        return dict(input_ids=ids, input_ids_2=ids_2, text_embedding=embedding, pooled_embedding=pooled)
    embedding, _ = pipe.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
    return dict(input_ids=ids, text_embedding=embedding)


def record(
    pipe, arguments: dict, noise: torch.Tensor, gen: torch.Generator, encode_noise: bool, preview, unpack=None
) -> dict:
    """Runs the pipeline on the given noise and keeps every draw, every x_t that a step starts from, and what the
    decoder `preview` makes of the x_0 that each step predicts. `model_input.0` is what the denoiser gets first:
    negative, then positive, where guidance needs both. `unpack` turns the latents of the loop into pictures' shapes."""
    tensors = dict(noise=noise)
    denoiser = pipe.components.get("unet") or pipe.transformer
    step = pipe.scheduler.step
    steps_done = 0
    unpack = unpack or (lambda latents: latents)

    @wraps(step)
    def recorded_step(model_output, timestep, sample, **kwargs):
        nonlocal steps_done
        tensors[f"latent.{steps_done}"] = unpack(sample)
        result = step(model_output, timestep, sample, **kwargs | dict(return_dict=True))
        if preview is not None:
            x_0 = result.get("pred_original_sample")
            if x_0 is None:
                # Flow matching's steps do not say it.
                x_0 = sample - pipe.scheduler.sigmas[steps_done] * model_output
        steps_done += 1
        if preview is not None:
            tensors[f"preview.{steps_done}"] = preview.decode(unpack(x_0) / preview.config.scaling_factor).sample
        return result if kwargs.get("return_dict", True) else result.to_tuple()

    def step_noise(shape, **_):
        return tensors.setdefault(f"step_noise.{steps_done}", randn(gen, *shape))

    def encoder_noise(shape, **_):
        if not encode_noise:
            return torch.zeros(shape)
        return tensors.setdefault("encode_noise", randn(gen, *shape))

    def first_input(_, inputs, named):
        tensors.setdefault("model_input.0", inputs[0] if inputs else named["hidden_states"])

    draws = {type(pipe).__module__: lambda shape, **_: noise, type(pipe.scheduler).__module__: step_noise}
    draws[vae_module.__name__] = encoder_noise
    with ExitStack() as stack:
        for module, draw in draws.items():
            stack.enter_context(patch.object(sys.modules[module], "randn_tensor", draw, create=True))
        stack.enter_context(patch.object(pipe.scheduler, "step", recorded_step))
        stack.enter_context(denoiser.register_forward_pre_hook(first_input, with_kwargs=True))
        latent = unpack(pipe(**arguments, output_type="latent")[0])
    tensors[f"latent.{steps_done}"] = latent
    config = pipe.vae.config
    decoded = pipe.vae.decode(latent / config.scaling_factor + (config.get("shift_factor") or 0)).sample
    return tensors | dict(image=decoded)


def recorded_run(folder: Path, build, request: dict, encode_noise: bool = False, preview=None) -> None:
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
        save_json(folder / "model_index.json", index | {PREVIEW: ["diffusers", type(decoder).__name__]}, indent=2)

    known = inspect.signature(pipe.__call__).parameters
    keys = ("prompt", "negative_prompt", "width", "height", "eta")
    arguments = {key: request[key] for key in keys if key in request and key in known}
    arguments |= dict(num_inference_steps=request["steps"], guidance_scale=request["guidance"])
    if isinstance(pipe, PIXART):
        extra = dict(max_sequence_length=MAX_TEXT_TOKENS, use_resolution_binning=False, clean_caption=False)
        arguments |= extra
    size = request["height"], request["width"]
    if "init" in request:
        arguments |= dict(image=picture(gen, "RGB", *size), strength=request["strength"])
        arguments["image"].save(folder / request["init"])
    if "mask" in request:
        arguments["mask_image"] = mask_picture(*size)
        arguments["mask_image"].save(folder / request["mask"])

    factor = pipe.vae_scale_factor
    noise = randn(gen, 1, LATENT_CHANNELS, request["height"] // factor, request["width"] // factor)
    tensors = text_tensors(pipe, request) | record(
        pipe, arguments, noise, gen, encode_noise, decoder
    )
    save_json(folder / "request.json", request | dict(max_text_tokens=MAX_TEXT_TOKENS), indent=2)
    save_tensors(folder / "reference.safetensors", tensors)


# The classes that Inkbloom knows beside its own.
CLASSES = (
    "StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline",
    "LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline",
    "StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline",
    "PixArtAlphaPipeline", "PixArtSigmaPipeline",
    "StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline",
    "FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxFillPipeline",
    "AnimateDiffPipeline", "LattePipeline", "GlmImagePipeline",
)  # fmt: skip


def defaults(path: Path) -> None:
    """What each class assumes where a call says nothing; what a class does not take is null."""
    names = ("num_inference_steps", "guidance_scale", "max_sequence_length", "num_frames")
    table = {}
    for name in CLASSES:
        parameters = inspect.signature(getattr(diffusers, name).__call__).parameters
        table[name] = {key: parameters[key].default if key in parameters else None for key in names}
        if "video_length" in parameters:
            table[name]["num_frames"] = parameters["video_length"].default
    save_json(path.with_suffix(".json"), table, indent=2)


def cases() -> dict:
    return {f"pipeline/{name}": partial(recorded_run, **case) for name, case in CASES.items()} | {
        "pipeline/defaults": defaults
    }
