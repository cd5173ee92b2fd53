"""Stage ``distill``: a student that needs 4 steps and no second, unguided pass.

As in PeRFlow (Yan 2024) time is cut into windows; in each the guided teacher is followed in small steps,
and the student learns the straight line between the ends. Guidance is in the targets, so the student is
sampled with one Euler step a window and without guidance. PeRFlow opens its windows on noised training
pictures; here they open where sampling comes by, which guidance leads elsewhere: on the teacher's own
way from pure noise, and for a share of the pictures on the student's, so that it learns to mend its errors.

The hybrid has its student by the same means: it sees the layouts that its teacher sees.
"""

import copy
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from inkbloom_train import checkpoint, flow, hybrid, training, transformer
from inkbloom_train import latents as latents_stage
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.presets import DistillSettings, Preset
from inkbloom_train.samples import Asked, Samples
from inkbloom_train.text import TextEncoder
from inkbloom_train.transformer import Velocity
from inkbloom_train.workspace import Workspace

_OWN_WAY = 0.5
"""Share of the pictures that go from window to window by the student's steps."""


class DistillObjective(nn.Module):
    """Mean squared error of the student's velocity on the teacher's chord."""

    def __init__(self, velocity: Velocity) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, chord: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.velocity(x_t, t, text, mask) - chord).square().mean()}


def chords(
    teacher: flow.Velocity, student: flow.Velocity, noise: torch.Tensor, own_way: torch.Tensor, settings: DistillSettings, shift: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The starts of all windows on the way from ``noise`` [N, C, h, w], their times, and the velocity of the straight
    line from each start to where the teacher comes by the window's end: [W N, C, h, w], [W N], [W N, C, h, w].

    Pictures whose ``own_way`` [N] is set go on from where the student comes, the others from where the teacher does.
    """
    inner = settings.teacher_steps
    sigmas = flow.sigmas(settings.windows * inner, shift)
    own_way = own_way.view(-1, 1, 1, 1)
    full = noise.new_ones(len(noise))
    starts, times, velocities = [], [], []
    start = noise
    for first in range(0, len(sigmas) - 1, inner):
        window = sigmas[first : first + inner + 1]
        end = start
        for now, after in pairwise(window):
            end = end + (after - now) * teacher(end, now * full)
        length = window[-1] - window[0]
        starts.append(start)
        times.append(window[0] * full)
        velocities.append((end - start) / length)
        if len(starts) < settings.windows:
            start = torch.where(own_way, start + length * student(start, window[0] * full), end)
    return torch.cat(starts), torch.cat(times), torch.cat(velocities)


def forget_other_teacher(folder: Path, taught: int, worker: Worker) -> None:
    """Removes the checkpoint of a student whose teacher has learned more since."""
    place = folder / "checkpoint"
    if worker.leads and checkpoint.exists(place):
        before = checkpoint.load_meta(place)["config"]["teacher_samples"]
        if before != taught:
            worker.log(f"the teacher had seen {before} samples and has now seen {taught}: starting the student anew")
            shutil.rmtree(place)
    worker.barrier()


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> training.State:
    """Trains the student from the averaged weights of the teacher of stage ``dit``."""
    teacher = transformer.load(preset, workspace.stage("dit"))
    return _train(preset, preset.distill, data, workspace, worker, teacher, ("dit", "distill"), laid_out=False)


def train_hybrid(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> training.State:
    """Trains the hybrid's student from the averaged weights of stage ``hybrid``."""
    teacher = hybrid.load(preset, workspace)
    return _train(preset, preset.hybrid.distilling, data, workspace, worker, teacher, (hybrid.TEACHER, hybrid.STUDENT), laid_out=True)


def _train(
    preset: Preset, settings: DistillSettings, data: DataSet, workspace: Workspace, worker: Worker, teacher: Velocity, stages: tuple[str, str], laid_out: bool
) -> training.State:
    if settings.schedule.batch % (settings.windows * worker.count):
        raise TrainError(
            f"a batch of {settings.schedule.batch} cannot be {settings.windows} windows of as many pictures on each of {worker.count} processes: "
            f"choose a multiple of {settings.windows * worker.count}"
        )
    folder = workspace.stage(stages[1])
    taught = checkpoint.load_meta(workspace.stage(stages[0]) / "checkpoint")["state"]["samples"]
    forget_other_teacher(folder, taught, worker)
    teacher = teacher.to(worker.device)
    student = copy.deepcopy(teacher).train().requires_grad_(True)
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    latents = latents_stage.load(workspace, worker.device)
    samples = Samples(data, latents, encoder, 0.0, preset.together)
    layouts = hybrid.Layouts(preset, data, workspace, worker, latents) if laid_out else None
    empty = encoder([""])
    fast_teacher, fast_student = (training.compiled(model, preset.compile, worker) for model in (teacher, student))

    def make_batch(rng: np.random.Generator, count: int, asked: Asked) -> dict:
        text = samples.text(asked)
        noise = torch.randn(len(asked.views), *latents.values.shape[1:], device=worker.device)
        own_way = torch.rand(len(noise), device=worker.device) < _OWN_WAY
        with torch.no_grad(), worker.autocast():
            layout = layouts(asked, *text) if layouts else None
            both = [model if layout is None else hybrid.LaidOut(model, layout) for model in (fast_teacher, fast_student)]
            guided, own = flow.guided(both[0], text, empty, settings.guidance), flow.guided(both[1], text, empty, 1.0)
            x_t, t, chord = chords(guided, own, noise, own_way, settings, preset.shift)
            if layout is not None:
                x_t = torch.cat([x_t, layout.repeat(settings.windows, 1, 1, 1)], 1)
        hidden, mask = (part.repeat(settings.windows, *[1] * (part.ndim - 1)) for part in text)
        return {"x_t": x_t, "t": t, "chord": chord, "text": hidden, "mask": mask}

    return training.train(
        DistillObjective(student),
        make_batch,
        settings.schedule,
        {**transformer.config(preset), "windows": settings.windows, "guidance": settings.guidance, "shift": preset.shift, "teacher_samples": taught},
        folder,
        worker,
        prepare=lambda rng, count: samples.ask(rng, count // settings.windows),
        compile_mode=preset.compile,
        seed=preset.seed,
    )
