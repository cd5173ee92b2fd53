"""Stage ``distill``: a student that needs 4 steps and no second, unguided pass.

PeRFlow (Yan 2024): time is cut into windows; in each the guided teacher is followed in small steps, and
the student learns the straight line between the ends. Guidance is in the targets, so the student is
sampled with one Euler step a window and without guidance.
"""

import copy
import shutil
from pathlib import Path

import numpy as np
import torch
from torch import nn

from inkbloom_train import checkpoint, flow, training, transformer
from inkbloom_train import latents as latents_stage
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.dit import Samples
from inkbloom_train.presets import DistillSettings, Preset
from inkbloom_train.text import TextEncoder
from inkbloom_train.transformer import Velocity
from inkbloom_train.workspace import Workspace

_AT_START = 0.6
"""Share of the samples taken at the start of their window, the only place where the student is asked."""


class DistillObjective(nn.Module):
    """Mean squared error of the student's velocity on the teacher's chord."""

    def __init__(self, velocity: Velocity) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, chord: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.velocity(x_t, t, text, mask) - chord).square().mean()}


def chord(
    teacher: flow.Velocity, x_0: torch.Tensor, noise: torch.Tensor, window: torch.Tensor, along: torch.Tensor, settings: DistillSettings, shift: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A point on the straight line that replaces the teacher's path through a window.

    ``window`` [N] counts from 0 (pure noise); ``along`` [N] is how far into it, 0 to 1. Returns x_t, t and
    the line's velocity.
    """
    inner = settings.teacher_steps
    sigmas = torch.tensor(flow.sigmas(settings.windows * inner, shift), device=x_0.device)
    first = window.long() * inner  # [N], the teacher's step that opens the window
    start, end = sigmas[first], sigmas[first + inner]
    x = x_start = flow.mix(x_0, noise, start)
    for step in range(inner):
        now, after = sigmas[first + step], sigmas[first + step + 1]
        x = x + (after - now).view(-1, 1, 1, 1) * teacher(x, now)
    velocity = (x_start - x) / (start - end).view(-1, 1, 1, 1)
    t = start + along * (end - start)
    return x_start + (t - start).view(-1, 1, 1, 1) * velocity, t, velocity


def _forget_other_teacher(folder: Path, taught: int, worker: Worker) -> None:
    """Removes the checkpoint of a student whose teacher has learned more since."""
    place = folder / "checkpoint"
    if worker.leads and checkpoint.exists(place):
        before = checkpoint.load_meta(place)["config"]["teacher_samples"]
        if before != taught:
            worker.log(f"the teacher had seen {before} samples and has now seen {taught}: starting the student anew")
            shutil.rmtree(place)
    worker.barrier()


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> training.State:
    """Trains the student from the teacher's averaged weights."""
    settings = preset.distill
    folder = workspace.stage("distill")
    taught = checkpoint.load_meta(workspace.stage("dit") / "checkpoint")["state"]["samples"]
    _forget_other_teacher(folder, taught, worker)
    teacher = transformer.load(preset, workspace.stage("dit")).to(worker.device)
    student = copy.deepcopy(teacher).train().requires_grad_(True)
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    samples = Samples(data, latents_stage.load(workspace, worker.device), encoder, text_dropout=0.0)
    empty = encoder([""])
    fast_teacher = training.compiled(teacher, preset.compile, worker)

    def make_batch(rng: np.random.Generator, count: int) -> dict:
        x_0, captions = samples(rng, count)
        text = encoder(captions)
        window = torch.as_tensor(rng.integers(0, settings.windows, count), dtype=torch.float32, device=worker.device)
        along = torch.as_tensor(np.where(rng.random(count) < _AT_START, 0.0, rng.random(count)), dtype=torch.float32, device=worker.device)
        with torch.no_grad(), worker.autocast():
            guided = flow.guided(fast_teacher, text, empty, settings.guidance)
            x_t, t, velocity = chord(guided, x_0, torch.randn_like(x_0), window, along, settings, preset.shift)
        return {"x_t": x_t, "t": t, "chord": velocity, "text": text[0], "mask": text[1]}

    return training.train(
        DistillObjective(student),
        make_batch,
        settings.schedule,
        {**transformer.config(preset), "windows": settings.windows, "guidance": settings.guidance, "shift": preset.shift, "teacher_samples": taught},
        folder,
        worker,
        compile_mode=preset.compile,
        seed=preset.seed,
    )
