"""Convolutions whose weights learn faster on a CPU.

oneDNN's gradient of the weights of a convolution of large pictures leaves the caches: 48 channels at 8 x 128 x 128 give 18 GFLOP a
second on a core that does 70 to 90 forward and for the gradient of the input (AVX2, 2026-11-26). As products over a few rows at a time it
gives 40.
"""

import torch
import torch.nn.functional as F
from torch import nn

_BLOCK = 1024
"""Places of a product: their neighbourhoods fit a core's cache."""
_LARGE = 64 * 64
"""Places of a picture above which rows are faster."""


class _ByRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias = bias is not None
        return F.conv2d(x, weight, bias, padding=1)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        wanted = [ctx.needs_input_grad[0], False, ctx.bias]
        own = torch.ops.aten.convolution_backward(gradient, x, weight, [len(weight)] if ctx.bias else None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted)
        return own[0], _of_weight(x, gradient), own[2]


def _of_weight(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Gradient of a 3 x 3 weight, [O, C, 3, 3], of x [N, C, H, W] and the gradient [N, O, H, W] of what the convolution gave."""
    count, channels, height, width = x.shape
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    gradient = gradient.permute(0, 2, 3, 1)
    total = torch.zeros(gradient.shape[3], 9 * channels)
    step = max(1, _BLOCK // width)
    for picture in range(count):
        for top in range(0, height, step):
            rows = min(step, height - top)
            part = padded[picture, top : top + rows + 2]
            line = (width + 2) * channels
            around = part.as_strided((rows, width, 3, 3 * channels), (line, channels, line, 1), part.storage_offset())
            total.addmm_(gradient[picture, top : top + rows].reshape(rows * width, -1).t(), around.reshape(rows * width, 9 * channels))
    return total.view(-1, 3, 3, channels).permute(0, 3, 1, 2)


class Conv2d(nn.Conv2d):
    """A 3 x 3 convolution, padded by 1; as nn.Conv2d elsewhere than in f32 on a CPU."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = x.shape[2] * x.shape[3] > _LARGE
        if large and x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
            return _ByRows.apply(x, self.weight, self.bias)
        return super().forward(x)


def quicken(model: nn.Module) -> nn.Module:
    """Makes the 3 x 3 convolutions of ``model`` such ones; its weights and their names stay."""
    for part in model.modules():
        if type(part) is nn.Conv2d and (part.kernel_size, part.stride, part.padding, part.dilation, part.groups) == ((3, 3), (1, 1), (1, 1), (1, 1), 1):
            part.__class__ = Conv2d
    return model
