"""Stage ``dit``: the Diffusion Transformer, trained by flow matching."""

import random
from pathlib import Path

import numpy as np
import torch

from inkbloom_train import generate, training
from inkbloom_train import latents as latents_stage
from inkbloom_train.data.captions import canonical
from inkbloom_train.data.dataset import HELD_CONCEPT, HELD_PAIR, TRAIN, DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.latents import Latents
from inkbloom_train.presets import Preset
from inkbloom_train.samples import Asked, Samples
from inkbloom_train.text import TextEncoder
from inkbloom_train.transformer import FlowObjective, Velocity, config, load_weights, make
from inkbloom_train.workspace import Workspace

CHECK_PICTURES = 96
SHEET = (
    "flat emoji of cat", "3d emoji of red apple", "a blue car", "shaded emoji of dog face", "glossy emoji of rocket", "outlined sticker of pizza",
    "thick outline icon of umbrella", "a red key outline icon", "two cats", "3d emoji of grinning face", "yellow butterfly, flat emoji",
    "shaded emoji of house", "bold flat emoji of owl", "flat emoji of fish", "a dog next to a tree", "cartoon emoji of sunflower",
)  # fmt: skip


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker, warm_start: Path | None = None) -> training.State:
    """Trains the transformer on the encoded views; ``warm_start`` is a diffusers folder or a bundle to begin from."""
    settings = preset.dit
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    latents = latents_stage.load(workspace, worker.device)
    samples = Samples(data, latents, encoder, settings.text_dropout, preset.together)
    torch.manual_seed(preset.seed)
    transformer = make(preset)
    if warm_start is not None:
        transformer.load_state_dict(load_weights(warm_start, transformer).state_dict())
    velocity = Velocity(transformer).to(worker.device)
    averaged = Velocity(make(preset)).to(worker.device).eval()
    check = {name: _check_batch(data, latents, encoder, splits) for name, splits in (("seen", (TRAIN,)), ("held", (HELD_PAIR, HELD_CONCEPT)))}

    def make_batch(rng: np.random.Generator, count: int, asked: Asked) -> dict:
        x_0 = samples.pictures(asked)
        text, mask = samples.text(asked)
        return {
            "x_0": x_0,
            "noise": torch.randn_like(x_0),
            "t": torch.randn(count, device=worker.device).sigmoid(),  # logit-normal, as in Stable Diffusion 3
            "text": text,
            "mask": mask,
        }

    def evaluate(weights: dict[str, torch.Tensor]) -> dict:
        training.use_average(averaged, weights, "velocity")
        losses = {}
        for name, batch in check.items():
            if batch is not None:
                with worker.autocast():
                    losses[f"{name}_loss"] = round(FlowObjective(averaged)(**batch)["loss"].item(), 4)
        _sheet(averaged, workspace, encoder, worker, preset)
        return losses

    return training.train(
        FlowObjective(velocity),
        make_batch,
        settings.schedule,
        config(preset),
        workspace.stage("dit"),
        worker,
        prepare=samples.ask,
        evaluate=evaluate,
        compile_mode=preset.compile,
        seed=preset.seed,
    )


def _sheet(velocity: Velocity, workspace: Workspace, encoder: TextEncoder, worker: Worker, preset: Preset) -> None:
    """Writes ``samples.png``, a few prompts with the weights as they are now."""
    model = generate.assemble(preset, workspace, worker, velocity, encoder, steps=preset.evaluate.teacher_steps, guidance=preset.evaluate.guidance)
    generate.grid(model(list(SHEET)), list(SHEET)).save(workspace.stage("dit") / "samples.png")


def _check_batch(data: DataSet, latents: Latents, encoder: TextEncoder, splits: tuple[str, ...]) -> dict | None:
    """A fixed batch of plain pictures with full captions, evenly spread times and fixed noise."""
    rows = [row for row in data.of_split(*splits) if row in latents.plain]
    if not rows:
        return None
    rows = random.Random(7).sample(rows, min(CHECK_PICTURES, len(rows)))
    device = latents.values.device
    x_0 = latents.values[torch.as_tensor([latents.plain[row] for row in rows], device=device)].float()
    text, mask = encoder([canonical(data.rows[row], data.styles) for row in rows])
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1)).to(device)
    t = (torch.arange(len(rows), device=device) + 0.5) / len(rows)
    return {"x_0": x_0, "noise": noise, "t": t, "text": text, "mask": mask}
