"""Whole runs of pipelines whose weights a LoRA changes, in each way of writing one; the models are those of other cases."""

from functools import partial
from pathlib import Path

import diffusers
import torch
from diffusers_runs import MAX_TEXT_TOKENS, record
from mmdit import T5_TOKENS
from motion import frames_first

from common import FIXTURES, clean, generator, randn, save_json, save_tensors

RANK, ALPHA = 4, 3.0
WEIGHTS = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1")


def pairs(model, ends: tuple[str, ...], gen, within: str = "") -> dict:
    """The two factors for each layer of `model` whose name ends so: `name -> (down, up)`."""
    found = {}
    for name, module in model.named_modules():
        if within in name and name.endswith(ends) and hasattr(module, "weight") and module.weight.dim() > 1:
            out, *rest = module.weight.shape
            down = randn(gen, RANK, *rest) / module.weight[0].numel() ** 0.5
            up = randn(gen, out, RANK, *([1] * (len(rest) - 1))) / RANK
            found[name] = (down, up)
    if not found:
        raise ValueError(f"nothing ends with {ends}")
    return found


def motion(pipe, gen) -> dict:
    """As AnimateDiff's camera movements are published: names of attention processors."""
    state = {}
    for name, (down, up) in pairs(pipe.unet, ATTENTION, gen, within="motion_modules").items():
        module, _, layer = name.removesuffix(".0").rpartition(".")
        for factor, value in (("down", down), ("up", up)):
            state[f"unet.{module}.processor.{layer}_lora.{factor}.weight"] = value
    return state


def peft(pipe, gen) -> dict:
    """As diffusers saves one today, convolutions and the text encoder too."""
    state = {}
    layers = dict(unet=(*ATTENTION, "proj_in", "ff.net.0.proj", "conv1", "conv_shortcut"), text_encoder=TEXT)
    for component, ends in layers.items():
        for name, (down, up) in pairs(getattr(pipe, component), ends, gen).items():
            state |= {f"{component}.{name}.lora_A.weight": down, f"{component}.{name}.lora_B.weight": up}
    return state


def joint(pipe, gen) -> dict:
    """Of a transformer that has text and picture side by side, and both text encoders."""
    state = {}
    ends = (*ATTENTION, "add_q_proj", "to_add_out", "ff.net.0.proj", "norm1.linear", "context_embedder", "pos_embed.proj")
    for component, ends in dict(transformer=ends, text_encoder=TEXT, text_encoder_2=TEXT).items():
        for name, (down, up) in pairs(getattr(pipe, component), ends, gen).items():
            state |= {f"{component}.{name}.lora_A.weight": down, f"{component}.{name}.lora_B.weight": up}
    return state


def kohya(pipe, gen) -> dict:
    state = {}
    for prefix, component, ends in (("lora_unet", "unet", (*ATTENTION, "ff.net.2")), ("lora_te", "text_encoder", TEXT)):
        for name, (down, up) in pairs(getattr(pipe, component), ends, gen).items():
            # Published files have CLIP's text model below this name.
            name = name if component == "unet" or name.startswith("text_model.") else f"text_model.{name}"
            key = f"{prefix}_{name.replace('.', '_')}"
            state |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(ALPHA)}
    return state


RUNS = {
    "motion": dict(pipeline="AnimateDiffPipeline", model="animatediff_ddim", write=motion, scale=0.8),
    "peft": dict(pipeline="StableDiffusionPipeline", model="sd15_text", write=peft, scale=1.0),
    "joint": dict(pipeline="StableDiffusion3Pipeline", model="sd3_without_t5", write=joint, scale=0.5),
    "kohya": dict(pipeline="StableDiffusionPipeline", model="sd15_text", write=kohya, scale=0.6),
}
REQUEST = dict(prompt="a red apple", negative_prompt="dark", steps=3, guidance=5.0, width=24, height=16)


def run(folder: Path, pipeline: str, model: str, write, scale: float) -> None:
    gen = generator(f"lora_{folder.name}")
    # SD3's pipeline wants to be told what its folder is without.
    third = "3" in pipeline
    absent = dict.fromkeys(("text_encoder_3", "tokenizer_3", "image_encoder", "feature_extractor")) if third else {}
    pipe = getattr(diffusers, pipeline).from_pretrained(FIXTURES / "pipeline" / model, **absent)
    pipe.set_progress_bar_config(disable=True)
    save_tensors(clean(folder) / WEIGHTS, write(pipe, gen))
    pipe.load_lora_weights(folder, weight_name=WEIGHTS, adapter_name="lora")
    pipe.set_adapters(["lora"], [scale])
    request = REQUEST | (dict(frames=4) if pipeline == "AnimateDiffPipeline" else {})
    arguments = {key: request[key] for key in ("prompt", "negative_prompt", "width", "height")}
    arguments |= dict(num_inference_steps=request["steps"], guidance_scale=request["guidance"])
    sides = [request[side] // pipe.vae_scale_factor for side in ("height", "width")]
    frames = [request["frames"]] if "frames" in request else []
    arguments |= dict(num_frames=frames[0]) if frames else {}
    arguments |= dict(max_sequence_length=T5_TOKENS) if third else {}
    unpack = frames_first if frames else None
    recorded = record(pipe, arguments, randn(gen, 1, pipe.vae.config.latent_channels, *frames, *sides), gen, encode_noise=False, preview=None, unpack=unpack)
    kept = {
        name: frames_first(value) if value.dim() == 5 else value
        for name, value in recorded.items()
        if name in ("noise", "image") or name.startswith("latent.")
    }
    save_json(folder / "request.json", request | dict(model=model, scale=scale, max_text_tokens=MAX_TEXT_TOKENS), indent=2)
    save_tensors(folder / "reference.safetensors", kept)


def cases() -> dict:
    return {f"lora/{name}": partial(run, **case) for name, case in RUNS.items()}
