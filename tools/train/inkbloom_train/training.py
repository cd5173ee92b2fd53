"""The training loop that all learned stages share.

A step is a function of (seed, rank, step) alone, so a run that was interrupted and resumed makes the
same steps as one that was not.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from inkbloom_train import checkpoint, optimizer
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError

_AHEAD = 4
"""Processes that prepare what a stage on a GPU is given next."""
_AGREE_EVERY = {"cpu": 1, "cuda": 8}
"""Steps between two exchanges of clocks and wishes, which keep the processes together; they stall a GPU's queue."""


@dataclass
class Schedule:
    """How long and how fast a stage learns.

    The learning rate warms up, stays, and falls linearly over the last ``decay`` of the way. The way
    is measured in samples, or in minutes of training where ``minutes`` is given.
    """

    samples: int
    batch: int
    """Samples in a step, over all processes."""
    rate: float
    warmup: int = 100
    """Steps."""
    decay: float = 0.3
    floor: float = 0.02
    """Share of the rate that is left at the end."""
    minutes: float | None = None
    ema: float = 0.999
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    checkpoint_minutes: float = 4.0

    def rate_at(self, step: int, progress: float) -> float:
        falling = min(1.0, (1.0 - progress) / self.decay)
        return self.rate * min(1.0, (step + 1) / self.warmup) * max(self.floor, falling)


@dataclass
class State:
    """How far a stage has come."""

    step: int = 0
    samples: int = 0
    seconds: float = 0.0
    done: bool = False
    measures: dict = field(default_factory=dict)
    """The latest evaluation."""

    def progress(self, schedule: Schedule) -> float:
        """Share of the way, 0 to 1."""
        if schedule.minutes is not None:
            return min(1.0, self.seconds / (schedule.minutes * 60))
        return min(1.0, self.samples / schedule.samples) if schedule.samples else 1.0  # 0 keeps the weights that are given


def finished(folder: Path, schedule: Schedule) -> bool:
    """Whether the stage of ``folder`` has gone the whole way of ``schedule``."""
    if not checkpoint.exists(folder / "checkpoint"):
        return False
    state = State(**checkpoint.load_meta(folder / "checkpoint")["state"])
    return state.done and state.progress(schedule) >= 1


class Interrupt:
    """Notes SIGTERM and SIGINT, so that a stage can save before it ends."""

    def __enter__(self) -> "Interrupt":
        self.asked = False
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _note(self, *_: object) -> None:
        self.asked = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def train(
    objective: nn.Module,
    make_batch: Callable[..., dict],
    schedule: Schedule,
    config: dict,
    folder: Path,
    worker: Worker,
    *,
    prepare: Callable[[np.random.Generator, int], tuple[torch.Tensor, ...]] | None = None,
    evaluate: Callable[[dict[str, torch.Tensor]], dict] | None = None,
    compile_mode: str | None = None,
    seed: int = 0,
) -> State:
    """Trains ``objective`` until the schedule ends or the worker's deadline has passed.

    ``objective(**batch)`` gives a dict of scalar terms whose ``loss`` is minimised; its
    parameters are the model, those that require no gradient stay as they are. ``make_batch(rng, n)`` gives n samples, ``make_batch(rng, n, prepared)`` from what
    ``prepare(rng, n)`` gave, which beside a GPU other processes do ahead. ``config`` is what must not change between calls. Resumes from ``folder/checkpoint``; writes it every few minutes, at the end, and on
    SIGTERM; ``folder/log.jsonl`` gets a line for each report. ``evaluate`` gets the averaged weights
    and is called before each checkpoint on the leading process.
    """
    if schedule.batch % worker.count:
        raise TrainError(f"a batch of {schedule.batch} cannot be shared by {worker.count} processes: choose a multiple of {worker.count}")
    place = folder / "checkpoint"
    parameters = dict(objective.named_parameters())
    average = {name: value.detach().clone() for name, value in parameters.items()}
    moving = [name for name, value in parameters.items() if value.requires_grad]
    trained = [parameters[name] for name in moving]
    optimizers = optimizer.make(trained, schedule.rate, schedule.betas, schedule.weight_decay)
    state = State()
    if checkpoint.exists(place):
        state = _restore(place, config, parameters, average, optimizers)
        if not state.done:
            worker.log(f"resuming at step {state.step}, {state.samples} samples, {state.seconds / 60:.1f} minutes")
    if state.done and state.progress(schedule) >= 1:
        worker.log(f"already done: {state.samples} samples")
        return state
    state.done = False

    model = compiled(worker.wrap(objective), compile_mode, worker)
    share = schedule.batch // worker.count
    clock = _Clock(state)
    running: dict[str, float] = {}
    reported = saved = time.monotonic()
    first_step = state.step
    objective.train()
    prepared = _ahead(prepare, share, state.step, seed, worker) if prepare else None

    def save() -> None:
        nonlocal saved
        if worker.leads:
            if evaluate is not None and not interrupt.asked:  # who asked may not wait long
                objective.eval()
                with torch.no_grad():
                    state.measures = evaluate(average)
                objective.train()
                _report(folder, worker, {"step": state.step, "samples": state.samples, **state.measures})
            _store(place, config, parameters, average, optimizers, state)
        saved = time.monotonic()

    with Interrupt() as interrupt:
        while True:
            if state.step % _AGREE_EVERY[worker.device.type] == 0:
                if worker.agree(float(worker.out_of_time() or interrupt.asked)):
                    break
                state.seconds = worker.agree(clock.seconds())
                if worker.agree(float(time.monotonic() - saved > schedule.checkpoint_minutes * 60)):
                    save()
            progress = state.progress(schedule)
            if progress >= 1:
                break
            for one in optimizers:
                for group in one.param_groups:
                    group["lr"] = schedule.rate_at(state.step, progress)
            rng = np.random.default_rng([seed, state.step, worker.rank])
            torch.manual_seed(int(rng.integers(2**62)))
            batch = make_batch(rng, share, next(prepared)) if prepared else make_batch(rng, share)
            with worker.autocast():
                terms = model(**batch)
            terms["loss"].backward()
            norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
            _step_if_finite(optimizers, norm)
            objective.zero_grad(set_to_none=True)
            state.step += 1
            state.samples += schedule.batch
            decay = min(schedule.ema, (1 + state.step) / (10 + state.step))
            torch._foreach_lerp_([average[name] for name in moving], [value.detach() for value in trained], 1 - decay)
            if worker.leads and (state.step % 20 == 0 or state.step == first_step + 1):
                _accumulate(running, terms, norm)
            if worker.leads and running and time.monotonic() - reported > 60:
                rate = (state.step - first_step) * schedule.batch / clock.here()
                means = {name: round(total / running["count"], 4) for name, total in running.items() if name != "count"}
                _report(folder, worker, {"step": state.step, "samples": state.samples, **means, "per_second": round(rate, 1)})
                running.clear()
                reported = time.monotonic()
        state.seconds = clock.seconds()
        state.done = state.progress(schedule) >= 1
        save()
    worker.barrier()  # the others may read the checkpoint at once
    if interrupt.asked:
        raise KeyboardInterrupt
    return state


def _ahead(
    prepare: Callable[[np.random.Generator, int], tuple[torch.Tensor, ...]], count: int, first: int, seed: int, worker: Worker
) -> Iterator[tuple[torch.Tensor, ...]]:
    """What ``prepare`` gives for each step from ``first`` on. A GPU does not wait for it: some processes are ahead."""
    processes = {"num_workers": _AHEAD, "multiprocessing_context": "fork", "prefetch_factor": 4} if worker.device.type == "cuda" else {}
    return iter(DataLoader(_Steps(prepare, count, seed, worker.rank), batch_size=None, sampler=range(first, sys.maxsize), **processes))


@dataclass
class _Steps(Dataset):
    """What each step's samples are prepared to."""

    prepare: Callable[[np.random.Generator, int], tuple[torch.Tensor, ...]]
    count: int
    seed: int
    rank: int

    def __getitem__(self, step: int) -> tuple[torch.Tensor, ...]:
        return self.prepare(np.random.default_rng([self.seed, step, self.rank, 1]), self.count)


def compiled(model: nn.Module, mode: str | None, worker: Worker) -> nn.Module:
    """``model`` by torch.compile in that mode; as it is for None, and where a CPU lacks the C++ compiler that this takes.

    On a GPU each block of a transformer is compiled by itself: they are alike, so that one is compiled for all of them.
    """
    if mode is None:
        return model
    if worker.device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        worker.log("there is no C++ compiler (g++ or clang++), so training runs uncompiled and takes a third longer")
        return model
    # Few shapes, each compiled for itself: a general one would be slower.
    settings = {"mode": None if mode == "default" else mode, "dynamic": False}
    blocks = [part for part in model.modules() if isinstance(part, BasicTransformerBlock | LlamaDecoderLayer)]
    if worker.device.type == "cpu" or not blocks:
        return torch.compile(model, **settings)
    for block in blocks:
        block.compile(**settings)
    return model


def averaged(folder: Path, expected: dict | None = None) -> tuple[dict[str, torch.Tensor], dict]:
    """The averaged weights and the ``meta`` of a stage's checkpoint."""
    tensors, meta = checkpoint.load(folder / "checkpoint", expected)
    return checkpoint.select(tensors, "average"), meta


def use_average(module: nn.Module, average: dict[str, torch.Tensor], prefix: str) -> nn.Module:
    """Puts averaged weights into ``module``, which was trained as the part ``prefix`` of an objective; returns it."""
    own = dict(module.named_parameters())
    given = checkpoint.select(average, prefix)
    if own.keys() != given.keys():
        raise TrainError(f"the checkpoint lacks or has other weights than the model: {sorted(own.keys() ^ given.keys())[:3]}; use another --name")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(given[name])
    return module


class _Clock:
    """Seconds of training, this call and all calls."""

    def __init__(self, state: State) -> None:
        self._before, self._start = state.seconds, time.monotonic()

    def here(self) -> float:
        return time.monotonic() - self._start

    def seconds(self) -> float:
        return self._before + self.here()


def _step_if_finite(optimizers: list[torch.optim.Optimizer], norm: torch.Tensor) -> None:
    """Leaves out a step whose gradients overflowed. On a GPU asking would stall the queue, so there the
    gradients are replaced by zeros."""
    if norm.device.type == "cpu":
        if not torch.isfinite(norm):
            return
    else:
        finite = torch.isfinite(norm)
        for one in optimizers:
            for group in one.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.copy_(torch.where(finite, parameter.grad, 0.0))
    for one in optimizers:
        one.step()


def _accumulate(running: dict[str, float], terms: dict[str, torch.Tensor], norm: torch.Tensor) -> None:
    for name, value in {**terms, "gradient": norm}.items():
        running[name] = running.get(name, 0.0) + float(value.detach())
    running["count"] = running.get("count", 0) + 1


def _report(folder: Path, worker: Worker, entry: dict) -> None:
    worker.log("  ".join(f"{key} {value}" for key, value in entry.items()))
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **entry}) + "\n")


def _store(place: Path, config: dict, parameters: dict, average: dict, optimizers: list[torch.optim.Optimizer], state: State) -> None:
    tensors = {f"model.{name}": value for name, value in parameters.items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for name, value in parameters.items():
        for one in optimizers:
            tensors |= {f"{key}.{name}": moment for key, moment in one.state.get(value, {}).items()}
    checkpoint.save(place, tensors, {"config": config, "state": vars(state)})


_MOMENTS = ("momentum", "exp_avg", "exp_avg_sq", "step")


def _restore(place: Path, config: dict, parameters: dict, average: dict, optimizers: list[torch.optim.Optimizer]) -> State:
    tensors, meta = checkpoint.load(place, config)
    owner = {value: one for one in optimizers for group in one.param_groups for value in group["params"]}
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"model.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
            moments = {key: _laid_out_like(value, tensors[f"{key}.{name}"]) for key in _MOMENTS if f"{key}.{name}" in tensors}
            if moments and value in owner and isinstance(owner[value], optimizer.Muon) == ("momentum" in moments):
                owner[value].state[value] = moments
    return State(**meta["state"])


def _laid_out_like(value: torch.Tensor, moment: torch.Tensor) -> torch.Tensor:
    """A stored moment on the device and in the memory format of its parameter: a fused step on a GPU takes no other."""
    return torch.empty_like(value).copy_(moment) if moment.shape == value.shape else moment.to(value.device)


def available_memory() -> int:
    """Bytes of main memory that a new process can have."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(what: str, needed: int, remedy: str) -> None:
    """Raises TrainError if less than ``needed`` bytes of main memory are free."""
    free = available_memory()
    if free < needed:
        raise TrainError(f"{what} needs about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: {remedy}")
