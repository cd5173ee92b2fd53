"""The still transformer with a MotionAdapter between its blocks, which makes its pictures the frames of a loop.

The adapter is diffusers' MotionAdapter with one width: four modules, in the order of its down, middle and up
blocks. Module k of M works on what block L (k + 1) // M - 1 of L gives, its tokens seen as [N F, D, h, w], and
lets each place look at itself in all frames. The last layer of a module begins at zero, so the still transformer
is what it was. Frames are told apart by places on a circle: the frame behind the last is the first.
"""

import math
from functools import partial

import torch
from diffusers import MotionAdapter
from torch import nn

from inkbloom_train.transformer import Velocity

_FREQUENCIES = 4
"""Rounds of the fastest position wave: what eight frames can hold."""


def circle(frames: int, width: int) -> torch.Tensor:
    """Positions [1, frames, width]: sines and cosines of 1 to 4 rounds a loop, over and over."""
    angle = 2 * math.pi * torch.arange(frames)[:, None] * (1 + torch.arange(width // 2) % _FREQUENCIES) / frames
    return torch.stack([angle.sin(), angle.cos()], -1).reshape(1, frames, width)


def make(width: int, frames: int) -> MotionAdapter:
    """A fresh adapter for a transformer of that width, whose table of positions holds ``frames``."""
    adapter = MotionAdapter(
        block_out_channels=(width,),
        motion_layers_per_block=1,
        motion_num_attention_heads=max(1, width // 32),
        motion_norm_num_groups=min(32, width // 4),
        motion_max_seq_length=frames,
        use_motion_mid_block=True,
    )
    for module in modules(adapter):
        nn.init.zeros_(module.proj_out.weight)
        nn.init.zeros_(module.proj_out.bias)
    return _on_circle(adapter, frames)


def _on_circle(adapter: MotionAdapter, frames: int) -> MotionAdapter:
    for module in modules(adapter):
        positions = module.transformer_blocks[0].pos_embed.pe
        positions.copy_(circle(frames, positions.shape[2]))
    return adapter


def for_frames(adapter: MotionAdapter, frames: int) -> MotionAdapter:
    """The same weights with a circle of other length: its positions at n of m frames are those at 2 n of 2 m."""
    other = MotionAdapter.from_config({**adapter.config, "motion_max_seq_length": frames})
    other.load_state_dict({name: value for name, value in adapter.state_dict().items() if not name.endswith(".pe")}, strict=False)
    return _on_circle(other, frames).to(next(adapter.parameters()).device)


def modules(adapter: MotionAdapter) -> list[nn.Module]:
    """Its modules in the order in which they are placed."""
    blocks = [*adapter.down_blocks, adapter.mid_block, *adapter.up_blocks]
    return [module for block in blocks for module in block.motion_modules]


def places(layers: int, count: int) -> list[int]:
    """Behind which of ``layers`` blocks each of ``count`` modules works."""
    return [max(0, layers * (number + 1) // count - 1) for number in range(count)]


class MotionVelocity(nn.Module):
    """(x_t [N F, C, h, w] clip by clip, t [N F], text [N, T, D], mask [N, T]) to velocity [N F, C, h, w].

    The adapter is its only part that learns: the still transformer is used, not owned.
    """

    def __init__(self, still: Velocity, adapter: MotionAdapter) -> None:
        super().__init__()
        self.adapter = adapter
        self._still = (still,)  # in a tuple, so that its parameters are not taken for this module's
        self._running: tuple[int, tuple[int, int]] | None = None
        blocks, own = still.transformer.transformer_blocks, modules(adapter)
        for place, module in zip(places(len(blocks), len(own)), own, strict=True):
            blocks[place].register_forward_hook(partial(self._move, module))

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        still = self._still[0]
        frames, patch = len(x_t) // len(text), still.transformer.config.patch_size
        self._running = frames, (x_t.shape[2] // patch, x_t.shape[3] // patch)
        try:
            return still(x_t, t, text.repeat_interleave(frames, 0), mask.repeat_interleave(frames, 0))
        finally:
            self._running = None  # called by itself, the still transformer draws stills

    def _move(self, module: nn.Module, block: nn.Module, inputs: tuple, tokens: torch.Tensor) -> torch.Tensor | None:
        if self._running is None:
            return None
        frames, grid = self._running
        # Without a copy of its own, the backward pass through a frozen block's tokens in bf16 crashes PyTorch 2.11 on a CPU.
        pictures = tokens.transpose(1, 2).unflatten(2, grid).contiguous()
        return module(pictures, num_frames=frames).flatten(2).transpose(1, 2)


def noise_like(x_0: torch.Tensor, frames: int, shared: float, generator: torch.Generator | None = None) -> torch.Tensor:
    """Noise for clips [N F, C, h, w], of whose variance the share ``shared`` is the same in all frames of a clip."""
    clips = x_0.unflatten(0, (-1, frames))
    common = torch.randn(clips[:, :1].shape, generator=generator).to(x_0)
    own = torch.randn(clips.shape, generator=generator).to(x_0)
    return (shared**0.5 * common + (1 - shared) ** 0.5 * own).flatten(0, 1)
