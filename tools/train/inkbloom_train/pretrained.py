"""Weights to begin from: those of a diffusers folder, or of a bundle as the page downloads it."""

import hashlib
import json
import math
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from diffusers import ModelMixin
from transformers import PreTrainedModel

from inkbloom_train.errors import TrainError

_MANIFEST = "manifest.json"
_VERSIONS = (1, 2)

Model = TypeVar("Model", ModelMixin, PreTrainedModel)


def load(kind: type[Model], folder: Path, component: str, coarse: bool = False) -> Model:
    """A component ("vae", "transformer") of class ``kind`` in f32; ``coarse`` takes 4-bit weights too, to run and not to train.
    Raises TrainError if it is missing or damaged."""
    try:
        if (folder / _MANIFEST).exists():
            return _from_bundle(kind, folder, component, coarse)
        return kind.from_pretrained(folder / component, low_cpu_mem_usage=False, torch_dtype=torch.float32)
    except (OSError, KeyError, RuntimeError) as error:
        raise TrainError(f"{folder} holds no {kind.__name__} to begin from: name a diffusers folder or a bundle ({error})") from error


def has(folder: Path, component: str) -> bool:
    """Whether a diffusers folder or a bundle has a component."""
    try:
        return bool(config(folder, component))
    except TrainError:
        return False


def config(folder: Path, component: str) -> dict:
    """The config of a component. Raises TrainError if it is missing."""
    try:
        if (folder / _MANIFEST).exists():
            return json.loads((folder / _MANIFEST).read_text())["configs"][component]
        return json.loads((folder / component / "config.json").read_text())
    except (OSError, KeyError, ValueError) as error:
        raise TrainError(f"{folder} has no config of a {component}: name a diffusers folder or a bundle ({error})") from error


def _from_bundle(kind: type[Model], folder: Path, component: str, coarse: bool) -> Model:
    manifest = json.loads((folder / _MANIFEST).read_text())
    if manifest.get("format") != "inkbloom-bundle" or manifest.get("version") not in _VERSIONS:
        raise OSError(f"{_MANIFEST} is not of an inkbloom-bundle of version {' or '.join(map(str, _VERSIONS))}")
    stored = {tensor["name"].removeprefix(f"{component}/"): tensor for tensor in manifest["tensors"] if tensor["name"].startswith(f"{component}/")}
    if not coarse and any(tensor["dtype"] == "q4" for tensor in stored.values()):
        raise OSError("weights stored as q4 are too coarse to train on: convert the model with --dtype f16 or q8")
    shards = {part["shard"] for tensor in stored.values() for part in tensor["parts"]}
    content = {shard: _verified(folder, manifest["shards"][shard]) for shard in shards}
    config = manifest["configs"][component]
    model = kind(kind.config_class.from_dict(config)) if issubclass(kind, PreTrainedModel) else kind.from_config(config)
    missing, unexpected = model.load_state_dict({name: _tensor(tensor, content) for name, tensor in stored.items()}, strict=False)
    lacking = {*missing, *unexpected} - set(getattr(model, "_tied_weights_keys", None) or ())  # a tied head is stored once
    if lacking:
        raise KeyError(f"{component} lacks or has too much: {sorted(lacking)[:3]}")
    return model


def _verified(folder: Path, shard: dict) -> bytes:
    content = (folder / shard["file"]).read_bytes()
    if hashlib.sha256(content).hexdigest() != shard["sha256"]:
        raise OSError(f"{shard['file']} is damaged: its SHA-256 is not the manifest's")
    return content


def _tensor(stored: dict, shards: dict[int, bytes]) -> torch.Tensor:
    # As src/weights/dtype.rs stores it: a matrix of rows, in parts of consecutive rows.
    shape = stored["shape"]
    columns = math.prod(shape) // sum(part["rows"] for part in stored["parts"])
    parts = [_decode(stored["dtype"], shards[part["shard"]], part["offset"], part["rows"], columns) for part in stored["parts"]]
    return torch.from_numpy(np.concatenate(parts).reshape(shape))


def _decode(dtype: str, content: bytes, offset: int, rows: int, columns: int) -> np.ndarray:
    match dtype:
        case "f32" | "f16":
            return np.frombuffer(content, f"<{dtype[0]}{int(dtype[1:]) // 8}", rows * columns, offset).reshape(rows, columns).astype(np.float32)
        case "q8":  # all rows' f16 scales, then all rows' bytes
            scales = np.frombuffer(content, "<f2", rows, offset).astype(np.float32)
            return scales[:, None] * np.frombuffer(content, "i1", rows * columns, offset + 2 * rows).reshape(rows, columns)
        case "q4":  # all f16 scales of blocks of 32 along the row, then all nibbles, two a byte, low first
            blocks, width = -(-columns // 32), -(-columns // 2)
            scales = np.frombuffer(content, "<f2", rows * blocks, offset).astype(np.float32).reshape(rows, blocks)
            pairs = np.frombuffer(content, "u1", rows * width, offset + 2 * rows * blocks).reshape(rows, width)
            nibbles = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(rows, -1)[:, :columns].astype(np.float32) - 8
            return nibbles * np.repeat(scales, 32, axis=1)[:, :columns]
    raise OSError(f"weights stored as {dtype} are not known to this version")
