"""What `inkbloom convert --format diffusers` writes, loaded by the libraries' own classes.

    INKBLOOM=target/debug/inkbloom python -m pytest tools/reference
"""

import importlib
import json
import os
import subprocess
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common import FIXTURES
from sampler import Sampler

INKBLOOM = os.environ["INKBLOOM"]
"""The command line; without it these tests fail."""
SHIPPED = FIXTURES.parents[1] / "www" / "models" / "sticker"

diffusers.utils.logging.set_verbosity_error()


def convert(source: Path, to: Path, *options: str) -> Path:
    subprocess.run([INKBLOOM, "convert", "--from", source, "--to", to, *options], check=True, capture_output=True)
    return to


def there_and_back(case: str, folder: Path) -> Path:
    bundle = convert(FIXTURES / "pipeline" / case, folder / "bundle", "--dtype", "f32")
    return convert(bundle, folder / "back", "--format", "diffusers")


@pytest.mark.parametrize("case", ["sticker_tiny", "sticker_enlarged", "sd15_preview", "sdxl_text", "pixart_sigma"])
def test_every_class_loads_every_tensor(case, tmp_path):
    source, back = FIXTURES / "pipeline" / case, there_and_back(case, tmp_path)
    index = json.loads((back / "model_index.json").read_text())
    assert index == json.loads((source / "model_index.json").read_text())
    networks = 0
    for component, entry in index.items():
        if component.startswith("tokenizer") or not (back / component).is_dir():
            continue
        kind = getattr(importlib.import_module(entry[0]), entry[1])
        if not issubclass(kind, torch.nn.Module):
            ours, theirs = (dict(kind.from_pretrained(folder / component).config) for folder in (back, source))
            # Which keys a file left to the class's defaults is a note of diffusers'.
            for config in ours, theirs:
                config.pop("_use_default_values", None)
            assert ours == theirs
            continue
        ours, told = kind.from_pretrained(back / component, output_loading_info=True)
        theirs = kind.from_pretrained(source / component).state_dict()
        # What Inkbloom does not compute, it does not store: BERT's pooler.
        assert not told["unexpected_keys"]
        assert all(key.startswith("pooler.") for key in told["missing_keys"])
        for key, value in ours.state_dict().items():
            assert key in told["missing_keys"] or torch.equal(value, theirs[key]), f"{component}/{key}"
        networks += 1
    assert networks >= 3


@pytest.mark.parametrize("case", ["sd15_text", "sdxl_text", "pixart_sigma"])
@torch.no_grad()
def test_a_pipeline_of_diffusers_draws_the_same(case, tmp_path):
    request = json.loads((FIXTURES / "pipeline" / case / "request.json").read_text())

    def draw(folder: Path) -> np.ndarray:
        pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        options = dict(width=request["width"], height=request["height"], num_inference_steps=2)
        if case.startswith("pixart"):
            options |= dict(use_resolution_binning=False, clean_caption=False)
        generator = torch.Generator().manual_seed(7)
        return pipe(request["prompt"], generator=generator, output_type="np", **options).images

    assert np.array_equal(draw(FIXTURES / "pipeline" / case), draw(there_and_back(case, tmp_path)))


def test_the_shipped_model_draws_in_python(tmp_path):
    case = FIXTURES / "default_model"
    request = json.loads((case / "request.json").read_text())
    reference = load_file(case / "reference.safetensors")
    back = convert(SHIPPED, tmp_path / "back", "--format", "diffusers")
    image = Sampler(back)(noise=reference["noise"], **request)["image"]
    # The same weights; pixels are -1 to 1.
    likeness = 10 * torch.log10(4 / (image - reference["image"]).square().mean())
    assert likeness >= 60, f"{likeness} dB"
