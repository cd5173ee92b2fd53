"""Command ``pack``: what a machine without a network needs to train, in one folder of at most 50 MB.

The folder holds the data set, and the text encoder in f16 with the embeddings of words that no caption
contains set to 0, so that they take no room once compressed.
"""

import lzma
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from transformers import AutoTokenizer

from inkbloom_train import dit, evaluate, text
from inkbloom_train.data import captions, clips, colours
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.presets import Preset
from inkbloom_train.workspace import Workspace

_EMBEDDINGS = "embeddings.word_embeddings.weight"


def run(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> None:
    """Writes ``export/NAME-input/`` and says how to use it."""
    if not worker.leads:
        return
    source = text.model_folder()
    folder = workspace.export.with_name(f"{workspace.name}-input")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "text_encoder").mkdir(parents=True)
    shutil.copyfile(workspace.dataset, folder / workspace.dataset.name)
    for name in ("config.json", *text.TOKENIZER_FILES):
        shutil.copyfile(source / name, folder / "text_encoder" / name)
    weights = {name: value.half() for name, value in load_file(source / text.WEIGHTS).items() if value.is_floating_point() and "pooler" not in name}
    used = used_tokens(data, source)
    kept = torch.zeros_like(weights[_EMBEDDINGS])
    kept[used] = weights[_EMBEDDINGS][used]
    weights[_EMBEDDINGS] = kept
    (folder / "text_encoder" / f"{text.WEIGHTS}.xz").write_bytes(lzma.compress(save(weights), preset=1))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    worker.log(f"{len(used)} of {len(kept)} words kept; {size / 1e6:.1f} MB in {folder}")
    worker.log(f"there: {text.OVERRIDE}=FOLDER/text_encoder python -m inkbloom_train run --cache FOLDER --preset {preset.name}")


def used_tokens(data: DataSet, folder: Path) -> list[int]:
    """Every token that a caption or an evaluation prompt can contain."""
    parts = {"", captions.TEMPLATE_WORDS, *clips.MOTIONS, *colours.NAMES, *evaluate.GRID, *dit.SHEET}
    parts.update(phrase for info in data.styles.values() for phrase in info.phrases)
    for row in data.rows:
        parts.update([row.concept, *row.names, *map(captions.plural, row.names), *row.keywords])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return sorted({token for tokens in tokenizer(sorted(parts))["input_ids"] for token in tokens} | {tokenizer.pad_token_id, tokenizer.unk_token_id})
