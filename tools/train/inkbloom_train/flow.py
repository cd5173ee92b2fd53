"""Flow matching: the straight path between noise and picture, and its sampler.

x_t = (1 - t) x_0 + t noise; the model predicts the velocity v = noise - x_0 and is given t x 1000 as
timestep (Lipman 2023, Esser 2024; the conventions of diffusers' FluxPipeline).
"""

from collections.abc import Callable
from itertools import pairwise

import torch

Velocity = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x_t [N, C, h, w], t [N]) to velocity [N, C, h, w]."""


def mix(x_0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """x_t for t [N]."""
    t = t.view(-1, 1, 1, 1)
    return (1 - t) * x_0 + t * noise


def sigmas(steps: int, shift: float = 1.0) -> list[float]:
    """``steps`` noise levels from 1, evenly spaced, then 0; a ``shift`` above 1 moves them towards noise (Esser 2024, 5.3.2)."""
    even = [1 - step / steps for step in range(steps)]
    return [shift * sigma / (1 + (shift - 1) * sigma) for sigma in even] + [0.0]


def guided(velocity: torch.nn.Module, text: tuple[torch.Tensor, torch.Tensor], empty: tuple[torch.Tensor, torch.Tensor], guidance: float) -> Velocity:
    """Classifier-free guidance, v_neg + g (v_pos - v_neg), in one pass of twice the batch; g = 1 needs no second half."""
    hidden, mask = text
    if guidance == 1:
        return lambda x, t: velocity(x, t, hidden, mask)
    both = stack(text, empty)

    def call(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        positive, negative = velocity(torch.cat([x, x]), torch.cat([t, t]), *both).chunk(2)
        return negative + guidance * (positive - negative)

    return call


def stack(text: tuple[torch.Tensor, torch.Tensor], empty: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts [N, T, D] above as many copies of the empty prompt [1, E, D], padded to one length."""
    (hidden, mask), (empty_hidden, empty_mask) = text, empty
    count, length = hidden.shape[0], max(hidden.shape[1], empty_hidden.shape[1])
    stacked = hidden.new_zeros(2 * count, length, hidden.shape[2])
    stacked_mask = mask.new_zeros(2 * count, length)
    stacked[:count, : hidden.shape[1]], stacked_mask[:count, : mask.shape[1]] = hidden, mask
    stacked[count:, : empty_hidden.shape[1]], stacked_mask[count:, : empty_mask.shape[1]] = empty_hidden, empty_mask
    return stacked, stacked_mask


@torch.no_grad()
def sample(velocity: Velocity, noise: torch.Tensor, steps: int, shift: float = 1.0) -> torch.Tensor:
    """Euler steps from noise [N, C, h, w] to a latent of the same shape."""
    x = noise
    for now, after in pairwise(sigmas(steps, shift)):
        x = x + (after - now) * velocity(x, torch.full((len(x),), now, device=x.device))
    return x
