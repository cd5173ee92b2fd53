"""Stage ``motion``: the adapter that draws the frames of a loop together, the still transformer left as it is.

Clips are drawn and encoded once, in pieces, the frames of each in the order of its loop, so that the places on
the circle of positions mean the same in all of them. The adapter first learns the teacher's velocities by flow
matching. Then it is given to the student, whose velocities at the times of its few steps lead to pictures that no
clip holds: there its frames shall have the mean that the student alone gives them, and around it the differences
of the clip's frames, which are straight lines through each window as PeRFlow's are.
"""

import json
import os
import random
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, MotionAdapter, PixArtTransformer2DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from inkbloom_train import flow, generate, latents, motion_model, pretrained, text, training, transformer
from inkbloom_train import vae as vae_stage
from inkbloom_train.data import clips, raster
from inkbloom_train.data.clips import Clip
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.distill import forget_other_teacher
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.motion_model import MotionVelocity
from inkbloom_train.pictures import to_bytes, to_model
from inkbloom_train.presets import Preset
from inkbloom_train.text import TextEncoder
from inkbloom_train.transformer import Velocity
from inkbloom_train.workspace import Workspace

TEACHING, DISTILLING, COMPONENT = "motion-teacher", "motion", "component"
_PIECE = 16
_TEXT_DROPOUT = 0.1
_CHECK_CLIPS = 8
CLOSES = 1.5
"""How many times its largest inner step the step from the last frame to the first may be."""
SHEET = 16
FRAME_MS = 150
"""How long a frame is shown; the clips' own are two to three times as long."""


@dataclass
class Still:
    """What the adapter is trained on."""

    teacher: Velocity
    student: Velocity
    vae: AutoencoderTiny
    mean: torch.Tensor
    std: torch.Tensor


def load_still(preset: Preset, workspace: Workspace, worker: Worker, served: Path | None) -> Still:
    """The run's own teacher, student and autoencoder; with ``motion.teacher`` that folder's teacher and the others of ``served``."""
    if preset.motion.teacher is None:
        vae = vae_stage.load(preset.vae, workspace)
        mean, std = latents.statistics(workspace, vae)
        teacher, student = (transformer.load(preset, workspace.stage(stage)) for stage in ("dit", "distill"))
    else:
        if served is None:
            raise TrainError("motion.teacher needs the student, too: name its diffusers folder or bundle with --warm-start")
        vae = pretrained.load(AutoencoderTiny, served, "vae").eval().requires_grad_(False)
        config = pretrained.config(served, "vae")
        mean, std = torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
        teacher, student = (
            Velocity(pretrained.load(PixArtTransformer2DModel, folder, "transformer")).eval().requires_grad_(False)
            for folder in (Path(preset.motion.teacher), served)
        )
    device = worker.device
    return Still(teacher.to(device), student.to(device), vae.to(device), mean, std)


def encode(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker, still: Still) -> None:
    """Draws and encodes the clips that are not there yet, as ``clips/NNN.safetensors`` (f16 [N, F, C, h, w]) with ``NNN.json``."""
    settings, folder = preset.motion, workspace.stage(DISTILLING) / "clips"
    counts: dict[str, int | None] = {"emoji": settings.emoji, "icons": settings.icons, "stills": settings.stills}
    if text.OVERRIDE in os.environ:
        counts |= {"emoji": 0, "icons": 0}
        worker.log("a pack has no animated pictures: learning from moved stills alone")
    key = {"encoder": latents.fingerprint(still.vae), "frames": settings.frames, **counts}
    if (folder / "key.json").exists() and json.loads((folder / "key.json").read_text()) != key:
        worker.log("the clips are of another encoder or choice: encoding them again")
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    (folder / "key.json").write_text(json.dumps(key))
    if (folder / "done").exists():
        return
    failures: Counter = Counter()
    found = clips.collect(workspace.packages, data, counts, failures)
    for number, start in enumerate(range(0, len(found), _PIECE)):
        path = folder / f"{number:03d}.safetensors"
        if path.exists():
            continue
        if worker.out_of_time():
            return
        kept, values = [], []
        for clip, draw in found[start : start + _PIECE]:
            try:
                pixels = torch.from_numpy(draw(settings.frames, preset.encoded)).to(worker.device)
            except raster.PictureError as error:
                failures[str(error)] += 1
                continue
            with torch.no_grad(), worker.autocast():
                values.append(still.vae.encoder(to_model(pixels)).half().cpu())
            kept.append(clip)
        partial = path.with_suffix(".partial")
        save_file({"latents": torch.stack(values).contiguous() if values else torch.empty(0)}, partial)
        path.with_suffix(".json").write_text(json.dumps([asdict(clip) for clip in kept]))
        partial.replace(path)
        worker.log(f"{min(start + _PIECE, len(found))} of {len(found)} clips encoded")
    (folder / "done").touch()
    worker.log(f"left out: {dict(failures)}")


@dataclass
class Clips:
    values: torch.Tensor
    """f16 [N, F, C, h, w], in the units of the transformer."""
    rows: list[Clip]

    def of(self, held: bool) -> list[int]:
        return [index for index, clip in enumerate(self.rows) if clip.held == held]


def component(workspace: Workspace) -> Path:
    """Where the finished adapter lies."""
    return workspace.stage(DISTILLING) / COMPONENT


def settings(preset: Preset) -> dict:
    """What ``model_index.json`` says of the adapter."""
    return {
        "motion_adapter": ["diffusers", "MotionAdapter"],
        "shared_noise": preset.motion.shared_noise,
        "default_frames": preset.motion.frames,
        "frame_ms": FRAME_MS,
    }


def learned(workspace: Workspace) -> list[Clip]:
    """The clips that are encoded."""
    return [Clip(**entry) for path in _pieces(workspace) for entry in json.loads(path.with_suffix(".json").read_text())]


def _pieces(workspace: Workspace) -> list[Path]:
    return sorted((workspace.stage(DISTILLING) / "clips").glob("*.safetensors"))


def load_clips(workspace: Workspace, still: Still, device: torch.device) -> Clips:
    """All clips that are encoded. Raises TrainError where there are none to learn from."""
    rows = learned(workspace)
    values = [piece.float() for piece in (load_file(path)["latents"] for path in _pieces(workspace)) if len(piece)]
    if not any(not clip.held for clip in rows):
        raise TrainError("no clip is encoded yet: run the stage `motion` with more --minutes, or with more of motion.emoji, icons and stills")
    shape = (1, 1, -1, 1, 1)
    return Clips(((torch.cat(values) - still.mean.view(shape)) / still.std.view(shape)).half().to(device), rows)


class MotionObjective(nn.Module):
    """Mean squared error of the velocities of clips [N F, C, h, w].

    On the teacher the target is noise - x_0. With ``mean`` (the student's own velocities) the target's mean over
    a clip's frames is theirs.
    """

    def __init__(self, velocity: MotionVelocity) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(
        self, x_0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor, mean: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        frames = len(x_0) // len(text)
        predicted = self.velocity(flow.mix(x_0, noise, t), t, text, mask).unflatten(0, (-1, frames))
        target = (noise - x_0).unflatten(0, (-1, frames))
        centre = target.mean(1, keepdim=True)
        apart = ((predicted - predicted.mean(1, keepdim=True)) - (target - centre)).square().mean()
        if mean is not None:
            centre = mean.unflatten(0, (-1, frames)).mean(1, keepdim=True)
        together = (predicted.mean(1, keepdim=True) - centre).square().mean()
        return {"loss": apart + together, "apart": apart.detach()}


def caption(clip: Clip, rng: random.Random) -> str:
    """A random caption; now and then none."""
    if rng.random() < _TEXT_DROPOUT:
        return ""
    return clip.caption if rng.random() < 0.7 else f"{clip.name}, {clip.motion}"


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker, served: Path | None = None) -> None:
    """Encodes the clips, trains the adapter on the teacher, then on the student, measures it and writes ``motion/component/``."""
    settings = preset.motion
    stages = ((TEACHING, settings.teaching), (DISTILLING, settings.distilling))
    if (workspace.stage(DISTILLING) / "report.json").exists() and all(training.finished(workspace.stage(name), schedule) for name, schedule in stages):
        worker.log("already done")
        return
    still = load_still(preset, workspace, worker, served)
    if worker.leads:
        encode(preset, data, workspace, worker, still)
    worker.barrier()
    found = load_clips(workspace, still, worker.device)
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    width = still.student.transformer.config.num_attention_heads * still.student.transformer.config.attention_head_dim
    config = {"width": width, "frames": settings.frames, "shared_noise": settings.shared_noise, "layers": still.student.transformer.config.num_layers}
    torch.manual_seed(preset.seed)
    adapter = motion_model.make(width, settings.frames)
    for (folder, schedule), velocity in zip(stages, (still.teacher, still.student), strict=True):
        distilling = folder == DISTILLING
        if distilling:
            forget_other_teacher(workspace.stage(folder), state.samples, worker)
        objective = MotionObjective(MotionVelocity(velocity, adapter.to(worker.device)))
        state = training.train(
            objective,
            _batches(preset, found, encoder, worker, velocity if distilling else None),
            schedule,
            {**config, "teacher_samples": state.samples if distilling else None},
            workspace.stage(folder),
            worker,
            evaluate=lambda weights, of=velocity, own=distilling: held_loss(preset, found, encoder, worker, of, _averaged(weights, adapter), own),
            seed=preset.seed + distilling,
        )
        if not state.done:
            return
        adapter = _averaged(training.averaged(workspace.stage(folder))[0], adapter)
    if worker.leads:
        save(adapter, workspace)
        report(preset, found, workspace, worker, still, encoder, adapter)


def _averaged(weights: dict[str, torch.Tensor], like: MotionAdapter) -> MotionAdapter:
    adapter = motion_model.for_frames(like, like.config.motion_max_seq_length)
    return training.use_average(adapter, weights, "velocity.adapter")


def _batches(preset: Preset, found: Clips, encoder: TextEncoder, worker: Worker, student: Velocity | None):
    """Makes batches of training clips: at any time for the teacher, at the times of its steps for a ``student``."""
    settings, indices = preset.motion, np.array(found.of(held=False))
    windows = torch.tensor(flow.sigmas(preset.distill.windows, preset.shift)[:-1], device=worker.device)

    def make_batch(rng: np.random.Generator, count: int) -> dict:
        chosen = rng.choice(indices, count)
        words = random.Random(int(rng.integers(2**62)))
        text, mask = encoder([caption(found.rows[index], words) for index in chosen])
        x_0 = found.values[torch.as_tensor(chosen, device=worker.device)].float().flatten(0, 1)
        noise = motion_model.noise_like(x_0, settings.frames, settings.shared_noise)
        if student is None:
            t = torch.randn(count, device=worker.device).sigmoid().repeat_interleave(settings.frames)
            return {"x_0": x_0, "noise": noise, "t": t, "text": text, "mask": mask}
        t = windows[torch.randint(len(windows), (count,), device=worker.device)].repeat_interleave(settings.frames)
        with torch.no_grad(), worker.autocast():
            repeated = (part.repeat_interleave(settings.frames, 0) for part in (text, mask))
            mean = student(flow.mix(x_0, noise, t), t, *repeated)
        return {"x_0": x_0, "noise": noise, "t": t, "text": text, "mask": mask, "mean": mean}

    return make_batch


@torch.no_grad()
def held_loss(
    preset: Preset, found: Clips, encoder: TextEncoder, worker: Worker, still: Velocity, adapter: MotionAdapter, steps: bool, count: int = _CHECK_CLIPS
) -> dict:
    """Flow-matching loss of held-out clips with the adapter and by the still transformer alone, from the same noise.

    ``apart`` is the part of it that is left of the differences between a clip's frames. ``steps`` asks at the times
    of the student's steps, else at times spread evenly.
    """
    frames, indices = preset.motion.frames, found.of(held=True)[:count]
    if not indices:
        return {}
    times = flow.sigmas(preset.distill.windows, preset.shift)[:-1] if steps else [(n + 0.5) / 8 for n in range(8)]

    def alone(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return still(x, t, text.repeat_interleave(frames, 0), mask.repeat_interleave(frames, 0))

    objectives = {"": MotionObjective(MotionVelocity(still, adapter)), "still_": MotionObjective(alone)}
    sums: Counter = Counter()
    for number, index in enumerate(indices):
        x_0 = found.values[index].float()
        noise = motion_model.noise_like(x_0.cpu(), frames, preset.motion.shared_noise, torch.Generator().manual_seed(number)).to(worker.device)
        t = torch.full((frames,), times[number % len(times)], device=worker.device)
        text, mask = encoder([found.rows[index].caption])
        for name, objective in objectives.items():
            with worker.autocast():
                terms = objective(x_0, noise, t, text, mask)
            for key, value in terms.items():
                sums[f"held_{name}{key}"] += value.item()
    return {name: round(total / len(indices), 5) for name, total in sums.items()}


def save(adapter: MotionAdapter, workspace: Workspace) -> None:
    """Writes the component in f16, its circle of positions twice as long as the clips that it learned from."""
    folder = component(workspace)
    shutil.rmtree(folder, ignore_errors=True)
    motion_model.for_frames(adapter, 2 * adapter.config.motion_max_seq_length).half().save_pretrained(folder)
    config = folder / "config.json"
    # Where fewer frames are drawn than the table holds, they take rows that are evenly spread.
    config.write_text(json.dumps({**json.loads(config.read_text()), "positions": "circle"}, indent=2) + "\n")


@torch.no_grad()
def draw(preset: Preset, worker: Worker, still: Still, velocity: Velocity | MotionVelocity, text: tuple, frames: int, seed: int, shared: float) -> np.ndarray:
    """A clip in the student's few steps, premultiplied RGBA bytes [F, side, side, 4]; the still transformer draws each frame by itself."""
    side = still.student.transformer.config.sample_size
    blank = torch.zeros(frames, len(still.mean), side, side)
    noise = motion_model.noise_like(blank, frames, shared, torch.Generator().manual_seed(seed)).to(worker.device)
    if isinstance(velocity, Velocity):
        text = tuple(part.repeat_interleave(frames, 0) for part in text)
    with worker.autocast():
        latent = flow.sample(lambda x, t: velocity(x, t, *text), noise, preset.distill.windows, preset.shift)
        return to_bytes(still.vae.decoder(latent * still.std.view(1, -1, 1, 1).to(latent) + still.mean.view(1, -1, 1, 1).to(latent)))


def steps(clip: np.ndarray) -> np.ndarray:
    """Root mean squares, in 0 to 1, of the steps from each frame [F, H, W, 4] to the next, the last one back to the first."""
    values = clip.astype(np.float32) / 255
    return np.sqrt(((np.roll(values, -1, 0) - values) ** 2).mean((1, 2, 3)))


def report(preset: Preset, found: Clips, workspace: Workspace, worker: Worker, still: Still, encoder: TextEncoder, adapter: MotionAdapter) -> dict:
    """Measures the adapter on held-out clips and their captions; writes ``report.json`` and ``sheet.png``."""
    settings, folder = preset.motion, workspace.stage(DISTILLING)
    held, seen = found.of(held=True), found.of(held=False)
    prompts = [found.rows[index].caption for index in (held + seen)[: settings.prompts]]
    moving = MotionVelocity(still.student, adapter)
    ways = {
        "adapter": (moving, settings.shared_noise),
        "still, as much shared noise": (still.student, settings.shared_noise),
        "still, no shared noise": (still.student, 0.0),
    }
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    base = []
    for seed, prompt in enumerate(prompts):
        text = encoder([prompt])
        for name, (velocity, shared) in ways.items():
            drawn[name].append(draw(preset, worker, still, velocity, text, settings.frames, seed, shared))
        if seed < SHEET:
            finished = draw(preset, worker, still, still.student, text, 1, seed, 1.0)[0]
            base.append(clips.moved(finished, _word(prompt), settings.frames))
    taught = _averaged(training.averaged(workspace.stage(TEACHING))[0], adapter)
    measured = {
        "clips": {"learned": len(seen), "held out": len(held)},
        "teacher": held_loss(preset, found, encoder, worker, still.teacher, taught, False, len(held)),
        "student": held_loss(preset, found, encoder, worker, still.student, adapter, True, len(held)),
        "drawn": {name: measure(some) for name, some in drawn.items()},
    }
    (folder / "report.json").write_text(json.dumps(measured, indent=1) + "\n")
    worker.log(json.dumps(measured))
    sheet(drawn["adapter"][:SHEET], prompts[:SHEET]).save(folder / "sheet.png")
    sheet(base, prompts[:SHEET]).save(folder / "sheet-moved.png")
    return measured


def _word(prompt: str) -> str:
    return next((word for word in clips.MOTIONS if word in prompt), "wobbling")


def measure(drawn: list[np.ndarray]) -> dict:
    """Over clips: the mean step, how far frames are from their mean, and how many close."""
    all_steps = np.stack([steps(clip) for clip in drawn])
    away = [np.sqrt(((clip - clip.mean(0, keepdims=True)) ** 2).mean()) for clip in (clip.astype(np.float32) / 255 for clip in drawn)]
    return {
        "clips": len(drawn),
        "step": round(float(all_steps.mean()), 5),
        "from the mean": round(float(np.mean(away)), 5),
        "close": int((all_steps[:, -1] <= CLOSES * all_steps[:, :-1].max(1)).sum()),
        "largest last to largest inner step": round(float((all_steps[:, -1] / all_steps[:, :-1].max(1).clip(1e-6)).max()), 3),
    }


def sheet(drawn: list[np.ndarray], prompts: list[str]) -> Image.Image:
    """The frames of clips, one clip a line."""
    frames = len(drawn[0])
    labels = [prompt if number == 0 else "" for prompt in prompts for number in range(frames)]
    return generate.grid(np.concatenate(drawn), labels, columns=frames)
