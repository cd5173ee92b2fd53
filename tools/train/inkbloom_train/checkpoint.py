"""Checkpoints: safetensors pieces of bounded size, written so that a kill at any moment loses nothing.

A checkpoint is a folder with ``meta.json`` and ``state-NNN.safetensors`` pieces. A new one is written
beside the old one, which is removed only after the new one has its final name.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from inkbloom_train.errors import TrainError

PIECE_BYTES = 15 * 2**20


def save(folder: Path, tensors: dict[str, torch.Tensor], meta: dict, piece_bytes: int = PIECE_BYTES) -> None:
    """Writes named tensors and a JSON-able ``meta`` to ``folder``, replacing what was there."""
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    piece, size, count = {}, 0, 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if piece and size + tensor.nbytes > piece_bytes:
            save_file(piece, fresh / f"state-{count:03d}.safetensors")
            piece, size, count = {}, 0, count + 1
        piece[name] = tensor
        size += tensor.nbytes
    save_file(piece, fresh / f"state-{count:03d}.safetensors")
    (fresh / "meta.json").write_text(json.dumps({**meta, "pieces": count + 1}, indent=1))
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def exists(folder: Path) -> bool:
    return _whole(folder) is not None


def load_meta(folder: Path) -> dict:
    """The checkpoint's ``meta``. Raises TrainError if there is none."""
    found = _whole(folder)
    if found is None:
        raise TrainError(f"there is no checkpoint at {folder}: run the stage `{folder.parent.name}` first")
    return json.loads((found / "meta.json").read_text())


def load(folder: Path, expected: dict | None = None) -> tuple[dict[str, torch.Tensor], dict]:
    """The tensors and ``meta`` of a checkpoint.

    ``expected`` are the settings that must be the same as when it was written (``meta["config"]``).
    Raises TrainError if it is missing, damaged, or of another configuration.
    """
    meta = load_meta(folder)
    for key, value in (expected or {}).items():
        written = meta["config"].get(key)
        if written != json.loads(json.dumps(value)):
            raise TrainError(
                f"the checkpoint at {folder} is of another configuration: {key} is {written} there and {value} here; "
                f"use the settings it was made with, or another --name"
            )
    tensors: dict[str, torch.Tensor] = {}
    try:
        for number in range(meta["pieces"]):
            tensors.update(load_file(_whole(folder) / f"state-{number:03d}.safetensors"))
    except Exception as error:  # safetensors raises its own class for a cut file
        raise TrainError(f"the checkpoint at {folder} is damaged ({error}): delete it and run the stage again") from error
    return tensors, meta


def _whole(folder: Path) -> Path | None:
    """The folder, or its predecessor when a kill fell between the two renames of ``save``."""
    for candidate in (folder, folder.with_name(folder.name + ".old")):
        if (candidate / "meta.json").exists():
            return candidate
    return None


def select(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + ".")}
