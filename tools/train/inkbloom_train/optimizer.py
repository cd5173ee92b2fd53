"""Muon for matrices and convolutions, AdamW for everything else.

Muon (Jordan 2024) replaces the momentum of a matrix by the nearest orthogonal matrix, found by five
Newton-Schulz steps; the scale 0.2 sqrt(longer side) gives updates the size of AdamW's, so that one
learning rate serves both (Liu 2025, "Muon is scalable for LLM training").
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.distributed as dist

from inkbloom_train import precision

MUON_MIN_SIDE = 32
"""Matrices with a side shorter than this are left to AdamW."""
_MOMENTUM = 0.95
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def takes_muon(parameter: torch.Tensor) -> bool:
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= MUON_MIN_SIDE


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The orthogonal factor, approximately, of each matrix [B, rows, columns]; singular values come to about 1."""
    a, b, c = _COEFFICIENTS
    x = matrices.bfloat16() if precision.has_bf16(matrices.device) else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)  # a x + (b G + c G G) x
    return (x.mT if tall else x).contiguous()


def _shared(matrices: torch.Tensor) -> torch.Tensor:
    """``orthogonalise``, each process doing its share of the matrices, which are the same on all of them."""
    count = dist.get_world_size() if dist.is_initialized() else 1
    if count == 1:
        return orthogonalise(matrices)
    size = -(-len(matrices) // count)
    padded = torch.cat([matrices, matrices.new_zeros(size * count - len(matrices), *matrices.shape[1:])])
    own = orthogonalise(padded.chunk(count)[dist.get_rank()])
    parts = [torch.empty_like(own) for _ in range(count)]
    dist.all_gather(parts, own)
    return torch.cat(parts)[: len(matrices)]


class Muon(torch.optim.Optimizer):
    """Muon over parameters of two or more dimensions; a convolution counts as [out, in x height x width]."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape = defaultdict(list)  # matrices of one shape are made orthogonal together
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[(parameter.shape[0], parameter[0].numel())].append(parameter)
            for shape, parameters in by_shape.items():
                gradients = torch.stack([parameter.grad.reshape(shape) for parameter in parameters])
                momenta = [self.state[parameter].setdefault("momentum", torch.zeros_like(parameter)) for parameter in parameters]
                momentum = torch.stack([one.reshape(shape) for one in momenta]).lerp_(gradients, 1 - _MOMENTUM)
                update = _shared(gradients.lerp(momentum, _MOMENTUM))  # Nesterov
                scale = -group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, own, moved, change in zip(parameters, momenta, momentum, update, strict=True):
                    own.copy_(moved.view_as(own))
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(change.view_as(parameter), alpha=scale)


def make(parameters: list[torch.Tensor], lr: float, betas: tuple[float, float], weight_decay: float) -> list[torch.optim.Optimizer]:
    """The optimisers that together train all parameters; only matrices decay."""
    muon = [parameter for parameter in parameters if takes_muon(parameter)]
    rest = [parameter for parameter in parameters if not takes_muon(parameter)]
    found: list[torch.optim.Optimizer] = [Muon(muon, lr, weight_decay)] if muon else []
    return [*found, torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=0.0, fused=True)] if rest else found
