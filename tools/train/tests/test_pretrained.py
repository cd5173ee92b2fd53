"""Weights to begin from, out of a bundle; diffusers folders are tried by the smoke run's warm start."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, MotionAdapter, PixArtTransformer2DModel

from inkbloom_train import autoregress, hybrid, presets, pretrained, transformer
from inkbloom_train.errors import TrainError

SHIPPED = Path(__file__).resolve().parents[3] / "www" / "models" / "sticker"


@pytest.fixture
def vae():
    torch.manual_seed(0)
    sizes = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    return AutoencoderTiny(in_channels=4, out_channels=4, latent_channels=4, **sizes)


def write(folder: Path, model: AutoencoderTiny, dtype: str) -> dict[str, torch.Tensor]:
    """A bundle of two shards, every other tensor in two parts; gives the values it stands for."""
    shards, tensors, meant = [bytearray(), bytearray()], [], {}
    for index, (name, value) in enumerate(model.state_dict().items()):
        matrix = value.reshape(len(value), -1).numpy()
        split = len(matrix) // 2 if index % 2 else len(matrix)
        parts, rows = [], []
        for shard, part in ((0, matrix[:split]), (1, matrix[split:])):
            if len(part):
                stored, read = encode(part, dtype)
                parts.append({"shard": shard, "offset": len(shards[shard]), "rows": len(part)})
                shards[shard] += stored
                rows.append(read)
        tensors.append({"name": f"vae/{name}", "shape": list(value.shape), "dtype": dtype, "parts": parts})
        meant[name] = torch.from_numpy(np.concatenate(rows).reshape(value.shape))
    listed = []
    for number, content in enumerate(shards):
        (folder / f"vae-{number:03d}.bin").write_bytes(content)
        listed.append({"file": f"vae-{number:03d}.bin", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
    manifest = {"format": "inkbloom-bundle", "version": 1, "configs": {"vae": dict(model.config)}, "shards": listed, "tensors": tensors}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return meant


def encode(matrix: np.ndarray, dtype: str) -> tuple[bytes, np.ndarray]:
    if dtype == "q8":
        scales = (np.abs(matrix).max(1, keepdims=True) / 127).astype("<f2")
        steps = np.round(matrix / np.maximum(scales.astype("f4"), 1e-12)).clip(-127, 127).astype("i1")
        return scales.tobytes() + steps.tobytes(), scales.astype("f4") * steps
    if dtype == "q4":
        blocks, columns = -(-matrix.shape[1] // 32), matrix.shape[1]
        padded = np.pad(matrix, [(0, 0), (0, 32 * blocks - columns)]).reshape(len(matrix), blocks, 32)
        scales = (np.abs(padded).max(2, keepdims=True) / 7).astype("<f2")
        steps = np.round(padded / np.maximum(scales.astype("f4"), 1e-12)).clip(-7, 7)
        nibbles = (steps + 8).astype("u1").reshape(len(matrix), -1)[:, : columns + columns % 2]
        read = (scales.astype("f4") * steps).reshape(len(matrix), -1)[:, :columns]
        return scales.tobytes() + (nibbles[:, ::2] | nibbles[:, 1::2] << 4).tobytes(), read
    stored = matrix.astype({"f32": "<f4", "f16": "<f2"}[dtype])
    return stored.tobytes(), stored.astype("f4")


@pytest.mark.parametrize("dtype", ["f32", "f16", "q8", "q4"])
def test_every_stored_format_is_read(vae, tmp_path, dtype):
    meant = write(tmp_path, vae, dtype)
    found = pretrained.load(AutoencoderTiny, tmp_path, "vae", coarse=dtype == "q4").state_dict()
    assert found.keys() == meant.keys()
    for name, value in meant.items():
        assert torch.equal(found[name], value), name
        assert torch.allclose(value, vae.state_dict()[name], atol=0.05 if dtype == "q4" else 0.01), name


def test_a_damaged_shard_is_refused(vae, tmp_path):
    write(tmp_path, vae, "f32")
    content = bytearray((tmp_path / "vae-001.bin").read_bytes())
    content[5] ^= 1
    (tmp_path / "vae-001.bin").write_bytes(content)
    with pytest.raises(TrainError, match="vae-001.bin is damaged"):
        pretrained.load(AutoencoderTiny, tmp_path, "vae")


def test_four_bits_and_other_versions_are_refused(vae, tmp_path):
    write(tmp_path, vae, "f32")
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tensors"][0]["dtype"] = "q4"
    path.write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match="stored as q4 are too coarse"):
        pretrained.load(AutoencoderTiny, tmp_path, "vae")
    path.write_text(json.dumps({**manifest, "version": 3}))
    with pytest.raises(TrainError, match="version 1 or 2"):
        pretrained.load(AutoencoderTiny, tmp_path, "vae")


def test_the_shipped_model_can_be_trained_on():
    preset = presets.load("cpu", [])
    found = transformer.load_weights(SHIPPED, transformer.make(preset))
    assert isinstance(found, PixArtTransformer2DModel) and found.config.num_layers == preset.dit.layers
    assert all(torch.isfinite(value).all() for value in found.state_dict().values())


def test_the_token_models_of_the_shipped_bundle_fit_the_cpu_preset():
    preset = presets.load("cpu", [])
    writer = autoregress.make(preset)
    before = writer.state_dict()["model.layers.0.mlp.up_proj.weight"].clone()
    autoregress.load_weights(SHIPPED, writer)
    assert not torch.equal(writer.state_dict()["model.layers.0.mlp.up_proj.weight"], before)
    assert writer.lm_head.weight is writer.model.embed_tokens.weight
    assert transformer.load_weights(SHIPPED, hybrid.make(preset), hybrid.COMPONENT).config.in_channels == 2 * preset.vae.latent_channels


def test_the_motion_adapter_of_the_shipped_bundle_is_read():
    # Its table of positions [1, 16, 256] is stored as 16 rows.
    table = pretrained.load(MotionAdapter, SHIPPED, "motion_adapter").state_dict()["mid_block.motion_modules.0.transformer_blocks.0.pos_embed.pe"]
    assert table.shape == (1, 16, 256) and table.abs().max() > 0.5
