"""One process or many: the few facts the stages need from torch.distributed.

Started plainly, a stage runs in one process. Started under ``torchrun`` it is data parallel: NCCL
where there are GPUs, gloo on CPUs.
"""

import math
import os
import time
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inkbloom_train import precision


@dataclass(frozen=True)
class Worker:
    """This process among its equals."""

    rank: int
    count: int
    device: torch.device
    deadline: float = math.inf
    """When, on the clock of ``time.monotonic``, this call should end its training."""

    def out_of_time(self) -> bool:
        return time.monotonic() >= self.deadline

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def log(self, text: str) -> None:
        if self.leads:
            print(text, flush=True)

    def barrier(self) -> None:
        if self.count > 1:
            dist.barrier()

    def agree(self, value: float) -> float:
        """The leader's value, on every process: clocks differ, decisions may not."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return shared.item()

    def wrap(self, objective: nn.Module) -> nn.Module:
        """The module with gradients averaged over all processes."""
        if self.count == 1:
            return objective
        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(objective, device_ids=devices, broadcast_buffers=False)

    def autocast(self) -> torch.autocast:
        """bf16 arithmetic over f32 weights, where the device is quick in it."""
        return precision.autocast(self.device)


def start(device: str | None = None, minutes: float | None = None) -> Worker:
    """Joins the group that ``torchrun`` describes, or works alone.

    ``device`` is "cpu", "cuda" or None for the best there is; ``minutes`` is how long this call may train.
    """
    rank, count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    else:
        place = torch.device("cpu")
        torch.set_flush_denormal(True)
        # PyTorch's fused attention is slow on CPUs at these few tokens: without it a compiled step takes 0.75 of the time.
        torch.backends.cuda.enable_flash_sdp(False)
        if count > 1:
            torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", 1))))
    if count > 1 and not dist.is_initialized():
        # Building the data set and drawing the pictures happen on one process while the others wait.
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=timedelta(hours=2))
    deadline = math.inf if minutes is None else time.monotonic() + minutes * 60
    return Worker(rank, count, place, deadline)


def stop(worker: Worker) -> None:
    if worker.count > 1:
        dist.destroy_process_group()
