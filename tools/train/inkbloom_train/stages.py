"""Runs stages in order, each with what it needs from the ones before."""

import argparse

import diffusers
import torch
import transformers

from inkbloom_train import autoregress, distill, distributed, dit, evaluate, export, hybrid, latents, motion, pack, pictures, scorer, vae, vq
from inkbloom_train.data import build, dataset
from inkbloom_train.errors import TrainError
from inkbloom_train.presets import Preset
from inkbloom_train.workspace import Workspace, require_disk


def run(names: tuple[str, ...], preset: Preset, workspace: Workspace, options: argparse.Namespace) -> None:
    """Runs the named stages. Raises TrainError with what to do when one cannot be run."""
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()  # what they report about our own model folders is expected
        library.disable_progress_bar()
    worker = distributed.start(options.device, preset.call_minutes)
    try:
        for name in names:
            worker.log(f"== {name}")
            _STAGES[name](preset, workspace, worker, options)
            if worker.agree(float(worker.out_of_time())):
                worker.log("the time of this call is over: run the same command again to go on")
                return
    except torch.OutOfMemoryError as error:
        raise TrainError(f"the device ran out of memory in the stage `{name}`: lower its batch, for example --set dit.schedule.batch=128 ({error})") from error
    finally:
        distributed.stop(worker)


def _data(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    if not worker.leads:
        return
    if workspace.dataset.exists():
        worker.log(f"already built: {workspace.dataset}")
        return
    built = build.build(workspace.packages, options.folder, preset.workers)
    dataset.save(built, workspace.dataset)
    worker.log(build.describe(built))
    worker.log(f"packed into {workspace.dataset.stat().st_size / 1e6:.1f} MB")


def _drawn(preset: Preset, workspace: Workspace, worker: distributed.Worker, size: int) -> dataset.DataSet:
    """The data set, with its pictures drawn at ``size`` px."""
    data = dataset.load(workspace.dataset)
    needed = len(data.rows) * size**2 * 4
    if not workspace.pictures(size).exists():
        require_disk(workspace.run, needed)
    if worker.leads:
        pictures.rasterise(data, size, workspace.pictures(size), preset.workers, worker.log)
    worker.barrier()
    return data


def _vae(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    vae.train(preset, _drawn(preset, workspace, worker, preset.size), workspace, worker, options.warm_start)


def _latents(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    latents.encode(preset, dataset.load(workspace.dataset), workspace, worker)


def _dit(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    dit.train(preset, dataset.load(workspace.dataset), workspace, worker, options.warm_start)


def _distill(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    distill.train(preset, dataset.load(workspace.dataset), workspace, worker)


def _vq(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    vq.run(preset, dataset.load(workspace.dataset), workspace, worker)


def _autoregress(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    autoregress.train(preset, dataset.load(workspace.dataset), workspace, worker, options.warm_start)


def _hybrid(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    data = dataset.load(workspace.dataset)
    hybrid.train(preset, data, workspace, worker, options.warm_start)
    if not worker.agree(float(worker.out_of_time())):
        distill.train_hybrid(preset, data, workspace, worker)


def _motion(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    motion.train(preset, dataset.load(workspace.dataset), workspace, worker, options.warm_start)


def _scorer(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    data = _drawn(preset, workspace, worker, scorer.side(preset))
    for which in (scorer.SHIPPED, scorer.JUDGE):
        scorer.train(preset, data, workspace, worker, which, options.warm_start)


def _evaluate(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    evaluate.run(preset, _drawn(preset, workspace, worker, preset.size), workspace, worker)


def _export(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    export.run(preset, dataset.load(workspace.dataset), workspace, worker)


def _pack(preset: Preset, workspace: Workspace, worker: distributed.Worker, options: argparse.Namespace) -> None:
    pack.run(preset, dataset.load(workspace.dataset), workspace, worker)


_STAGES = {
    "data": _data,
    "vae": _vae,
    "latents": _latents,
    "dit": _dit,
    "distill": _distill,
    "vq": _vq,
    "autoregress": _autoregress,
    "hybrid": _hybrid,
    "motion": _motion,
    "scorer": _scorer,
    "evaluate": _evaluate,
    "export": _export,
    "pack": _pack,
}
