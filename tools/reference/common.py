"""What every room's module shares: seeded values, random weights that matter, and the file layout."""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

FIXTURES = Path(__file__).resolve().parents[2] / "tests" / "fixtures"


def generator(name: str) -> torch.Generator:
    """A generator of its own for each name, so that adding a case never changes another."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def randn(gen: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=gen)


def randint(gen: torch.Generator, high: int, *shape: int, low: int = 0) -> torch.Tensor:
    return torch.randint(low, high, shape, generator=gen)


def picture(gen: torch.Generator, mode: str, height: int, width: int) -> Image.Image:
    """A smooth random picture; with alpha it is clear in places."""
    channels = len(mode)
    colours = randint(gen, 256, height // 4, width // 4, channels).numpy().astype(np.uint8)
    return Image.fromarray(colours, mode).resize((width, height), Image.BICUBIC)


def mask_picture(height: int, width: int) -> Image.Image:
    """White is drawn anew; greys lie on both sides of one half, where the pipelines cut."""
    levels = np.zeros((height, width), np.uint8)
    levels[height // 3 :, width // 4 : width // 2] = 255
    levels[: height // 3, width // 2 :] = 100
    levels[height // 2 :, width // 2 :] = 160
    return Image.fromarray(levels)


def padding_mask(lengths: list[int], width: int) -> torch.Tensor:
    """[B, width] i64: ones up to each length, then zeros."""
    return (torch.arange(width) < torch.tensor(lengths)[:, None]).long()


def clean(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@torch.no_grad()
def randomise(model: nn.Module, gen: torch.Generator, stored: torch.dtype = torch.float32) -> nn.Module:
    """Draws every parameter anew, so that no path is silent: the libraries start biases, some norms and
    some projections at zero or one, where a port that forgot them would still pass. The values are ones
    that `stored` holds exactly."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=gen)
        if id(parameter) in embeddings or parameter.dim() == 0:
            value = 0.7 * noise
        elif name.endswith("scale_shift_table"):
            value = 0.3 * noise
        elif parameter.dim() == 1:
            value = (1 if name.endswith("weight") else 0) + 0.2 * noise
        else:
            value = noise / parameter[0].numel() ** 0.5
        parameter.copy_(value.to(stored))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.2 * torch.randn(module.running_mean.shape, generator=gen))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=gen))
    return model.eval()


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"{path}: {name} is not finite")
    save_file({k: v.detach().clone().contiguous() for k, v in tensors.items()}, path)


def save_case(
    folder: Path, model, tensors: dict[str, torch.Tensor], stored: torch.dtype = torch.float32, **save
) -> None:
    """config.json and weights as the library writes them, and the reference tensors beside them."""
    model.to(stored).save_pretrained(folder, **save)
    save_tensors(folder / "reference.safetensors", tensors)


def save_json(path: Path, value, **kwargs) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, **kwargs) + "\n")
