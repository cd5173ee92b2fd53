"""Which arithmetic a device is quick in."""

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 pays: on every GPU, and on CPUs with instructions for it. One without them is five to nine times slower in bf16 than in f32."""
    return device.type != "cpu" or any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def autocast(device: torch.device) -> torch.autocast:
    """bf16 arithmetic over f32 weights where it pays; f32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device))
