"""Stage ``export``: a diffusers folder in f16 with its model card.

A diffusers or transformers user loads the parts with their own classes; ``model_index.json`` names
them, and holds the few values that sampling needs beside them.
"""

import json
import os
import platform
import shutil
import time
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import BertModel

from inkbloom_train import autoregress, checkpoint, evaluate, generate, hybrid, motion, scorer, text, vq
from inkbloom_train.data.attribution import attribution
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.presets import Preset
from inkbloom_train.workspace import Workspace


def run(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> Path:
    """Writes the student, or the teacher where there is no student, to the export folder and returns it."""
    if not worker.leads:
        return workspace.export
    which = generate.STUDENT if generate.has_student(workspace) else generate.TEACHER
    report = evaluate.load_report(workspace)
    model = generate.load(preset, workspace, worker, which)
    folder = workspace.export
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    model.velocity.transformer.half().save_pretrained(folder / "transformer", max_shard_size=preset.export_shard)
    model.vae.half().to(memory_format=torch.contiguous_format).save_pretrained(folder / "vae")
    shutil.copytree(workspace.stage(scorer.SHIPPED) / scorer.COMPONENT, folder / "scorer", ignore=shutil.ignore_patterns(scorer.STYLE_HEAD))
    own_ways = _token_models(preset, workspace, folder)
    # AutoencoderTiny has no such setting, but diffusers uses these names for other autoencoders.
    _amend(folder / "vae" / "config.json", {"latents_mean": model.mean.tolist(), "latents_std": model.std.tolist(), "scaling_factor": 1.0, "shift_factor": 0.0})
    FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=model.shift).save_pretrained(folder / "scheduler")
    if text.OVERRIDE in os.environ:
        worker.log("the text encoder of a pack knows the words of the data set only: copy text_encoder/ and tokenizer/ from an export made without it")
    else:
        BertModel.from_pretrained(text.model_folder(), add_pooling_layer=False).half().save_pretrained(folder / "text_encoder")
        (folder / "tokenizer").mkdir()
        for name in text.TOKENIZER_FILES:
            shutil.copyfile(text.model_folder() / name, folder / "tokenizer" / name)
    index = {
        "_class_name": "InkbloomPipeline",
        "text_encoder": ["transformers", "BertModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "transformer": ["diffusers", "PixArtTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderTiny"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "scorer": ["inkbloom", "InkbloomScorer"],
        **own_ways,
        "max_text_tokens": preset.max_text_tokens,
        "alpha": "premultiplied",
        "default_steps": model.steps,
        "default_guidance": model.guidance,
        "sizes": [[preset.size, preset.size]],
        "styles": [info.phrases[0] for info in data.styles.values() if info.listed],
    }
    if which == generate.STUDENT and motion.component(workspace).exists():
        shutil.copytree(motion.component(workspace), folder / "motion_adapter")
        index |= motion.settings(preset)
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    for name in ("grid", "failures"):
        shutil.copyfile(workspace.stage("evaluate") / f"{name}-{which}.png", folder / f"{name}.png")
    (folder / "ATTRIBUTION.md").write_text(attribution(data, motion.learned(workspace)))
    (folder / "README.md").write_text(card(preset, data, workspace, report, which, model))
    worker.log(f"exported the {which} to {folder}")
    return folder


def _token_models(preset: Preset, workspace: Workspace, folder: Path) -> dict:
    """Writes the components of the ways `tokens` and `hybrid`, where the run has them, and returns what the index says of them."""
    if not generate.has(workspace, "autoregress"):
        return {}
    vq.load(workspace.stage("vq"), vq.COMPONENT, preset).half().save_pretrained(folder / "codebook")
    autoregress.save(autoregress.load(preset, workspace), folder / autoregress.COMPONENT, thumbnails_only=not preset.autoregress.fine_share)
    index = {"codebook": ["inkbloom", "InkbloomCodebook"], autoregress.COMPONENT: ["inkbloom", "InkbloomAutoregressive"]}
    if generate.has(workspace, hybrid.STUDENT):
        hybrid.load(preset, workspace, hybrid.STUDENT).transformer.half().save_pretrained(folder / hybrid.COMPONENT, max_shard_size=preset.export_shard)
        index[hybrid.COMPONENT] = ["diffusers", "PixArtTransformer2DModel"]
        index |= {"hybrid_steps": preset.hybrid.distilling.windows, "hybrid_guidance": 1.0}
    return index


def _amend(path: Path, values: dict) -> None:
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, **values}, indent=2) + "\n")


def card(preset: Preset, data: DataSet, workspace: Workspace, report: dict, which: str, model: generate.Generator) -> str:
    """The model card: what it is, from what, how good, and where it fails."""
    parameters = {name: sum(value.numel() for value in part.parameters()) / 1e6 for name, part in (("transformer", model.velocity), ("VAE", model.vae))}
    licences = ", ".join(sorted({row.licence for row in data.rows}))
    styles = "\n".join(f"- {info.phrases[0]}" for info in data.styles.values() if info.listed)
    dropped = [info.phrases[0] for info in data.styles.values() if not info.listed]
    left_out = f"\nIn training too, but drawn too badly to be listed: {', '.join(dropped)}.\n" if dropped else ""
    guidance = "no guidance (it is baked in)" if model.guidance == 1 else f"guidance {model.guidance} against the encoded empty prompt"
    return f"""# {workspace.name}: text to sticker, {preset.size} px, with an alpha channel

{parameters['transformer']:.1f} M parameters in the transformer, {parameters['VAE']:.2f} M in the VAE, f16, in diffusers layout. Made by `tools/train` of this repository with the preset `{preset.name}`{_overrides(preset)}.

- `transformer/`: PixArtTransformer2DModel, velocity flow matching; {"the 4-step student, distilled after PeRFlow" if which == generate.STUDENT else "the teacher"}, averaged weights.
- `vae/`: AutoencoderTiny, RGBA in and out. Its encoder sees pictures of {preset.encoded} px, each pixel the mean of a square of four, and makes latents eight times smaller on each side; its decoder has one stage more and draws {preset.size} px. Values are 2x - 1 of premultiplied RGBA. Latents are multiplied by `latents_std` and `latents_mean` is added before decoding.
- `scorer/`: InkbloomScorer, which chooses among candidates: a score for a picture and a prompt; what it computes is in `tools/train/inkbloom_train/scorer_model.py`.
{_token_parts(workspace, preset)}- `text_encoder/`, `tokenizer/`: all-MiniLM-L6-v2 (Apache-2.0), last hidden state, at most {preset.max_text_tokens} tokens, padding masked.
- Sampling: {model.steps} Euler steps, evenly spaced from 1 and shifted by {model.shift}, {guidance}.

Prompts: "STYLE of THING" works best; other phrasings, colours and "two THINGS", "A next to B" were in training too. Styles:

{styles}
{left_out}
![fixed grid of 48 prompts, the last 16 free phrasings](grid.png)

## Figures

{evaluate.table(report)}
Measured {time.strftime('%Y-%m-%d', time.gmtime())} on {machine()} with `python -m inkbloom_train evaluate --preset {preset.name}`.

| stage | samples | hours of training |
| --- | --- | --- |
{_stages(workspace)}

## Limits and failures

The judge is trained on pictures of this data set, so its figures compare models here and nothing else. Counts, text, left and right, and scenes are unreliable. These are the worst of the seen prompts by the judge:

![failures](failures.png)

## Data and licences

{len(data.rows)} pictures of {len({row.concept for row in data.rows})} concepts under {licences}; see [ATTRIBUTION.md](ATTRIBUTION.md). No logos, flags, letters or skin-tone repeats. 5 % of the concepts and 5 % of the (concept, style) pairs were held out.
"""


def _token_parts(workspace: Workspace, preset: Preset) -> str:
    if not generate.has(workspace, "autoregress"):
        return ""
    grids = "a thumbnail" if not preset.autoregress.fine_share else "a thumbnail and then the picture"
    lines = [f"- `codebook/`, `autoregressive/`: the way `tokens`, which writes {grids} code by code; what they compute is in `tools/train/inkbloom_train/tokens_model.py`."]
    if generate.has(workspace, hybrid.STUDENT):
        lines.append(f"- `hybrid/`: PixArtTransformer2DModel with the thumbnail's latent as further input channels; distilled to {preset.hybrid.distilling.windows} steps, no guidance.")
    return "".join(f"{line}\n" for line in lines)


def _overrides(preset: Preset) -> str:
    return "".join(f", `--set {key}={value}`" for key, value in preset.overridden.items())


def _stages(workspace: Workspace) -> str:
    lines = []
    for stage in ("vae", "dit", "distill", motion.TEACHING, motion.DISTILLING, "autoregress", hybrid.TEACHER, hybrid.STUDENT, "scorer", "judge"):
        place = workspace.stage(stage) / "checkpoint"
        if checkpoint.exists(place):
            state = checkpoint.load_meta(place)["state"]
            lines.append(f"| {stage} | {state['samples']:,} | {state['seconds'] / 3600:.2f} |")
    return "\n".join(lines)


def machine() -> str:
    """The machine in words: the GPU, or the processor and its cores."""
    if torch.cuda.is_available():
        return f"one {torch.cuda.get_device_name()}"
    try:
        name = next(line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {name}"
