"""Denoising over time: UNetMotionModel, MotionAdapter beside a U-Net, LatteTransformer3DModel, and whole runs of their pipelines."""

import json
from functools import partial
from pathlib import Path

import diffusers
import tokenizer
import torch
from diffusers import LatteTransformer3DModel, MotionAdapter, UNet2DConditionModel, UNetMotionModel
from transformers import T5Config, T5EncoderModel

from common import clean, generator, randn, randomise, save_case, save_json, save_tensors
from diffusers_runs import LATENT_CHANNELS, MAX_TEXT_TOKENS, STABLE_DIFFUSION, clip_text, kl, record, unet

N, TOKENS = 2, 6
TWO_LEVELS = dict(block_out_channels=(4, 8), norm_num_groups=4, cross_attention_dim=16)
MOTION_BLOCKS = dict(
    down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
    up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
)
# `size` is the latent's frames, height and width; everything else is the class's own config.
UNET_MOTION = {
    "motion_unet": dict(
        size=(3, 8, 6), layers_per_block=1, num_attention_heads=2, motion_num_attention_heads=4,
        motion_max_seq_length=5, temporal_transformer_layers_per_block=2,
    ),
    "motion_unet_lists": dict(
        size=(4, 7, 10), layers_per_block=(1, 2), num_attention_heads=(1, 2), motion_num_attention_heads=(2, 1),
        motion_max_seq_length=4, temporal_transformer_layers_per_block=(2, 1), use_motion_mid_block=False,
        use_linear_projection=True, time_cond_proj_dim=6,
    ),
}
# As the published adapters of three generations are made: without a module in the middle, with one, and without again.
ADAPTERS = {
    "motion_adapter_v1": dict(size=(5, 8, 4), motion_max_seq_length=6, use_motion_mid_block=False),
    "motion_adapter_v2": dict(size=(2, 6, 6), motion_max_seq_length=8),
    "motion_adapter_v3": dict(size=(8, 4, 4), motion_max_seq_length=8, use_motion_mid_block=False),
}
LATTE = dict(
    in_channels=4, out_channels=8, num_layers=2, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
    caption_channels=12, sample_size=8, patch_size=2, activation_fn="gelu-approximate", attention_bias=True,
    norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6, video_length=5,
)


def frames_first(video: torch.Tensor) -> torch.Tensor:
    """[N, C, F, H, W] -> [N * F, C, H, W]."""
    return video.transpose(1, 2).flatten(0, 1)


def randomise_motion(model, gen, tables: bool = True):
    """With `tables`, those of positions get any values; else they stay what the formula gives."""
    randomise(model, gen)
    for name, table in model.named_buffers():
        if tables and name.endswith(".pe"):
            table.copy_(0.5 * randn(gen, *table.shape))
    return model


def unet_tensors(model, gen, size) -> dict:
    frames, *sides = size
    video = randn(gen, N, model.config.in_channels, frames, *sides)
    timestep = torch.tensor([981.0, 34.5])
    text = randn(gen, N, TOKENS, TWO_LEVELS["cross_attention_dim"])
    condition = model.config.time_cond_proj_dim
    condition = dict(timestep_cond=randn(gen, N, condition)) if condition else {}
    # The class has the text once a frame, and time once an animation.
    output = model(video, timestep, text.repeat_interleave(frames, 0), **condition).sample
    repeated = {name: value.repeat_interleave(frames, 0) for name, value in (condition | dict(timestep=timestep)).items()}
    return dict(sample=frames_first(video), encoder_hidden_states=text, output=frames_first(output)) | repeated


def unet_motion(folder: Path, size: tuple, **config) -> None:
    gen = generator(folder.name)
    model = randomise_motion(UNetMotionModel(**TWO_LEVELS | MOTION_BLOCKS | config), gen)
    save_case(clean(folder), model, unet_tensors(model, gen, size))


def adapter(**config) -> MotionAdapter:
    shared = dict(block_out_channels=(8, 16), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=4)
    return MotionAdapter(**shared | config)


def unet_and_adapter(folder: Path, size: tuple, **config) -> None:
    gen = generator(folder.name)
    still, motion = randomise(unet(), gen), randomise_motion(adapter(**config), gen, tables="v3" not in folder.name)
    tensors = unet_tensors(UNetMotionModel.from_unet2d(still, motion), gen, size)
    clean(folder)
    still.save_pretrained(folder / "unet")
    motion.save_pretrained(folder / "motion_adapter")
    save_tensors(folder / "reference.safetensors", tensors)


def latte(folder: Path) -> None:
    gen = generator(folder.name)
    model = randomise(LatteTransformer3DModel(**LATTE), gen)
    text = randn(gen, N, TOKENS, LATTE["caption_channels"])
    tensors = dict(encoder_hidden_states=text, timestep=torch.tensor([321.5]))
    for frames in (5, 1):
        video = randn(gen, N, LATTE["in_channels"], frames, 6, 8)
        output = model(
            video, tensors["timestep"].expand(N), encoder_hidden_states=text, enable_temporal_attentions=frames > 1
        ).sample
        tensors |= {f"sample.{frames}": frames_first(video), f"output.{frames}": frames_first(output)}
    save_case(clean(folder), model, tensors)


def animate_diff(scheduler):
    widths = (4, 8)
    parts = dict(
        vae=kl(), text_encoder=clip_text(), tokenizer=tokenizer.clip("<|endoftext|>", MAX_TEXT_TOKENS),
        scheduler=scheduler,
    )
    return parts, unet(block_out_channels=widths), adapter(block_out_channels=widths, motion_max_seq_length=6)


RUNS = {
    "animatediff_ddim": dict(
        build=lambda: animate_diff(
            diffusers.DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False,
                timestep_spacing="linspace", steps_offset=1,
            )
        ),
        request=dict(
            prompt="a cute red apple with a face", negative_prompt="dark", steps=4, guidance=7.5, width=24, height=32, frames=5,
        ),
    ),
    "animatediff_euler": dict(
        build=lambda: animate_diff(diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION | dict(beta_schedule="linear"))),
        beside=True,
        request=dict(prompt="a rocket over the moon", negative_prompt="", steps=4, guidance=5.0, width=32, height=16, frames=3),
    ),
    # AnimateLCM: few steps, each with fresh noise.
    "animatediff_lcm": dict(
        build=lambda: animate_diff(diffusers.LCMScheduler(**STABLE_DIFFUSION | dict(beta_schedule="linear"))),
        request=dict(prompt="a happy frog", negative_prompt=None, steps=3, guidance=1.0, width=16, height=24, frames=4),
    ),
}


def animate_diff_run(folder: Path, build, request: dict, beside: bool = False) -> None:
    """`beside` keeps U-Net and adapter apart, as somebody has them who puts an adapter beside a Stable Diffusion folder."""
    gen = generator(folder.name)
    parts, still, motion = build()
    for model in (parts["vae"], parts["text_encoder"], still):
        randomise(model, gen)
    randomise_motion(motion, gen)
    clean(folder)
    pipe = diffusers.AnimateDiffPipeline(**parts, unet=still, motion_adapter=motion)
    if beside:
        diffusers.StableDiffusionPipeline(
            **parts, unet=still, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        ).save_pretrained(folder)
        motion.save_pretrained(folder / "motion_adapter")
        index = json.loads((folder / "model_index.json").read_text())
        save_json(folder / "model_index.json", index | dict(motion_adapter=["diffusers", "MotionAdapter"]), indent=2)
    else:
        pipe.save_pretrained(folder)
    arguments = {key: request[key] for key in ("prompt", "negative_prompt", "width", "height")}
    arguments |= dict(num_inference_steps=request["steps"], guidance_scale=request["guidance"], num_frames=request["frames"])
    ids = pipe.tokenizer(
        request["prompt"], padding="max_length", truncation=True, max_length=MAX_TEXT_TOKENS, return_tensors="pt"
    ).input_ids
    embedding, _ = pipe.encode_prompt(request["prompt"], "cpu", 1, do_classifier_free_guidance=False)
    finish(folder, pipe, request, arguments, gen, dict(input_ids=ids, text_embedding=embedding))


def latte_run(folder: Path) -> None:
    gen = generator(folder.name)
    words, text_width = tokenizer.t5(MAX_TEXT_TOKENS), 16
    text = T5Config(
        vocab_size=len(words), d_model=text_width, d_kv=8, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
    )  # fmt: skip
    pipe = diffusers.LattePipeline(
        tokenizer=words, text_encoder=T5EncoderModel(text), vae=kl(),
        transformer=LatteTransformer3DModel(**LATTE | dict(caption_channels=text_width)),
        scheduler=diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False),
    )  # fmt: skip
    for model in (pipe.text_encoder, pipe.vae, pipe.transformer):
        randomise(model, gen)
    clean(folder)
    pipe.save_pretrained(folder)
    request = dict(
        prompt=" A Red Apple on the SEA ", negative_prompt="fog", steps=3, guidance=4.5, width=32, height=24, frames=5
    )
    arguments = {key: request[key] for key in ("prompt", "negative_prompt", "width", "height")}
    arguments |= dict(num_inference_steps=request["steps"], guidance_scale=request["guidance"], video_length=request["frames"])
    ids = words(
        request["prompt"].lower().strip(), padding="max_length", truncation=True, max_length=MAX_TEXT_TOKENS,
        return_tensors="pt",
    ).input_ids  # fmt: skip
    embedding, _ = pipe.encode_prompt(request["prompt"], do_classifier_free_guidance=False, mask_feature=False)
    finish(folder, pipe, request, arguments, gen, dict(input_ids=ids, text_embedding=embedding[:, :MAX_TEXT_TOKENS]))


def finish(folder: Path, pipe, request: dict, arguments: dict, gen, tensors: dict) -> None:
    """Runs the pipeline and writes what it gave; every latent as [frames, C, h, w]."""
    pipe.set_progress_bar_config(disable=True)
    sides = [request[side] // pipe.vae_scale_factor for side in ("height", "width")]
    noise = randn(gen, 1, LATENT_CHANNELS, request["frames"], *sides)
    run = record(pipe, arguments, noise, gen, encode_noise=False, preview=None, unpack=frames_first)
    run.pop("model_input.0")
    run = {name: frames_first(value) if value.dim() == 5 else value for name, value in run.items()}
    save_json(folder / "request.json", request | dict(max_text_tokens=MAX_TEXT_TOKENS), indent=2)
    save_tensors(folder / "reference.safetensors", tensors | run)


def cases() -> dict:
    denoise = {name: partial(unet_motion, **config) for name, config in UNET_MOTION.items()}
    denoise |= {name: partial(unet_and_adapter, **config) for name, config in ADAPTERS.items()} | dict(motion_latte=latte)
    runs = {name: partial(animate_diff_run, **case) for name, case in RUNS.items()} | dict(latte_ddim=latte_run)
    return {f"denoise/{name}": case for name, case in denoise.items()} | {
        f"pipeline/{name}": case for name, case in runs.items()
    }
