"""The moving stickers: clips, the adapter between the blocks, and the stage."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter, PixArtTransformer2DModel
from safetensors.torch import load_file

from inkbloom_train import checkpoint, motion, motion_model, presets, transformer, vae
from inkbloom_train.cli import main
from inkbloom_train.data import clips, dataset, smil
from inkbloom_train.data.attribution import attribution
from inkbloom_train.data.raster import PictureError
from inkbloom_train.motion_model import MotionVelocity
from inkbloom_train.transformer import Velocity
from inkbloom_train.workspace import Workspace

FIXTURE = Path(__file__).parents[3] / "tests" / "fixtures" / "denoise" / "motion_pixart"
SQUARE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><rect width="2" height="2" x="1" y="3">{}</rect></svg>'


def from_fixture() -> tuple[Velocity, MotionAdapter, dict[str, torch.Tensor]]:
    still = PixArtTransformer2DModel.from_pretrained(FIXTURE / "transformer", low_cpu_mem_usage=False)
    adapter = MotionAdapter.from_pretrained(FIXTURE / "motion_adapter", low_cpu_mem_usage=False)
    return Velocity(still).eval(), adapter.eval(), load_file(FIXTURE / "reference.safetensors")


@torch.no_grad()
def test_the_adapter_works_where_the_reference_has_it_and_leaves_stills_alone():
    still, adapter, reference = from_fixture()
    moving = MotionVelocity(still, adapter)
    text, mask, t = (reference[name] for name in ("encoder_hidden_states", "encoder_attention_mask", "timestep"))
    moved = moving(reference["sample.16"], t.repeat_interleave(16) / 1000, text, mask)
    assert (moved - reference["output.16"]).abs().max() < 2e-4
    untouched = from_fixture()[0]
    assert torch.equal(still(reference["still"], t / 1000, text, mask), untouched(reference["still"], t / 1000, text, mask))


@torch.no_grad()
def test_a_fresh_adapter_changes_no_bit_until_its_last_layers_do():
    still, _, reference = from_fixture()
    adapter = motion_model.make(16, 8)
    text, mask, t = (reference[name] for name in ("encoder_hidden_states", "encoder_attention_mask", "timestep"))
    alone = still(reference["sample.8"], t.repeat_interleave(8) / 1000, text.repeat_interleave(8, 0), mask.repeat_interleave(8, 0))
    moving = MotionVelocity(still, adapter)
    assert torch.equal(moving(reference["sample.8"], t.repeat_interleave(8) / 1000, text, mask), alone)
    torch.nn.init.normal_(motion_model.modules(adapter)[2].proj_out.weight)
    assert not torch.equal(moving(reference["sample.8"], t.repeat_interleave(8) / 1000, text, mask), alone)


def test_positions_close_and_halves_of_a_longer_circle_are_the_same():
    table = motion_model.circle(8, 16)[0]
    around = (torch.roll(table, -1, 0) - table).norm(dim=1)
    assert torch.allclose(around, around[0].expand(8), atol=1e-5)
    assert torch.allclose(motion_model.circle(16, 16)[0, ::2], table, atol=1e-6)
    longer = motion_model.for_frames(motion_model.make(16, 8), 16)
    assert motion_model.modules(longer)[0].transformer_blocks[0].pos_embed.pe.shape == (1, 16, 16)


def test_frames_share_their_part_of_the_noise():
    noise = motion_model.noise_like(torch.zeros(4 * 8, 4, 32, 32), 8, 0.8, torch.Generator().manual_seed(0)).unflatten(0, (4, 8))
    assert abs(noise.std() - 1) < 0.02
    assert abs((noise[:, 0] * noise[:, 5]).mean() - 0.8) < 0.05 and abs((noise[0, 0] * noise[1, 0]).mean()) < 0.05


@pytest.mark.parametrize(("animation", "time", "expected"), [
    ('<animate attributeName="x" values="0;4;0" dur="2s" repeatCount="indefinite"/>', 2.5, 'x="2.0000"'),
    ('<animate attributeName="x" from="0" to="4" dur="400ms" begin="1s" fill="freeze"/>', 9, 'x="4"'),
    ('<animate attributeName="x" from="0" to="4" dur="1s" begin="-0.5s" repeatCount="indefinite"/>', 0, 'x="2.0000"'),
    ('<animate attributeName="x" from="0" to="4" dur="1s" begin="5s"/>', 1, 'x="1"'),
    ('<animate attributeName="x" values="0;3" calcMode="discrete" dur="1s" repeatCount="indefinite"/>', 0.6, 'x="3"'),
    ('<animate attributeName="x" values="0;4" keyTimes="0;1" calcMode="spline" keySplines="0.42 0 1 1" dur="1s"/>', 0.5, 'x="1.2614"'),
    ('<animateTransform attributeName="transform" type="rotate" from="0 4 4" to="360 4 4" dur="1s"/>', 0.25, "rotate(90.0000 4.0000 4.0000)"),
])  # fmt: skip
def test_an_svg_stands_still_at_a_time(animation, time, expected):
    found = smil.at(SQUARE.format(animation), time)
    assert expected in found and "animate" not in found


@pytest.mark.parametrize("animation", ['<animate attributeName="x" to="2" dur="1s" begin="click"/>', '<animateMotion path="M0 0" dur="1s"/>'])
def test_what_cannot_be_played_is_refused(animation):
    with pytest.raises(PictureError):
        smil.at(SQUARE.format(animation), 0)


@pytest.mark.parametrize("word", clips.MOTIONS)
def test_a_moved_still_closes_and_moves(word):
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[8:20, 10:28] = (200, 40, 20, 255)
    drawn = clips.moved(pixels, word, 8)
    around = motion.steps(drawn)
    assert around.max() > 0.02 and around[-1] <= motion.CLOSES * around[:-1].max()
    assert drawn[..., :3].max() <= drawn[..., 3].max() and (drawn[..., :3] <= drawn[..., 3:]).all()


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Path:
    """A tiny model of random weights in a diffusers folder, as a teacher and its student."""
    folder = tmp_path_factory.mktemp("served")
    preset = presets.load("smoke", [])
    torch.manual_seed(0)
    pixart = transformer.make(preset)
    torch.nn.init.normal_(pixart.proj_out.weight, std=0.1)  # it begins at zero, where no gradient passes
    pixart.save_pretrained(folder / "transformer")
    vae.make(preset.vae).to(memory_format=torch.contiguous_format).save_pretrained(folder / "vae")
    config = folder / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "latents_mean": [0.0] * 4, "latents_std": [1.0] * 4}))
    return folder


def arguments(served: Path, cache: Path, *more: str) -> list[str]:
    return ["motion", "--preset", "smoke", "--cache", str(cache), "--device", "cpu", "--set", f"motion.teacher={served}", *more]


def test_the_stage_leaves_an_adapter_that_diffusers_loads(served, pictures, tmp_path, capsys):
    assert main(["data", "--preset", "smoke", "--cache", str(tmp_path), "--folder", str(pictures)]) == 0
    assert main(arguments(served, tmp_path)) == 1
    assert "--warm-start" in capsys.readouterr().err
    given = arguments(served, tmp_path, "--warm-start", str(served))
    assert main(given) == 0
    workspace = Workspace(tmp_path, "smoke")
    adapter = MotionAdapter.from_pretrained(motion.component(workspace), low_cpu_mem_usage=False)
    assert adapter.config.motion_max_seq_length == 16 and len(motion_model.modules(adapter)) == 4
    assert any(module.proj_out.weight.abs().max() > 0 for module in motion_model.modules(adapter))
    assert json.loads((motion.component(workspace) / "config.json").read_text())["positions"] == "circle"
    report = json.loads((workspace.stage("motion") / "report.json").read_text())
    assert report["drawn"]["adapter"]["clips"] == 3 and report["clips"]["learned"] > 0
    capsys.readouterr()
    assert main(given) == 0
    assert "already done" in capsys.readouterr().out
    assert main([*given, "--set", "motion.distilling.samples=12"]) == 0
    assert checkpoint.load_meta(workspace.stage("motion") / "checkpoint")["state"]["samples"] == 12
    assert main([*given, "--set", "motion.teaching.samples=20"]) == 0
    assert "starting the student anew" in capsys.readouterr().out
    table = attribution(dataset.load(workspace.dataset), motion.learned(workspace))
    assert "(moving)" in table and table.count("MIT") > 1
