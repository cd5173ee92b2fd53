"""Codes, the transformer that writes them, and the transformer that draws over them."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import DynamicCache

from inkbloom_train import autoregress, checkpoint, distributed, generate, hybrid, latents, presets, pretrained, transformer, vq
from inkbloom_train.cli import main
from inkbloom_train.data import dataset
from inkbloom_train.errors import TrainError
from inkbloom_train.samples import Asked, Samples
from inkbloom_train.text import TextEncoder
from inkbloom_train.tokens_model import InkbloomAutoregressive, InkbloomAutoregressiveConfig, InkbloomCodebook, nearest


@pytest.fixture
def model():
    torch.manual_seed(0)
    settings = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes = {"codes": (12, 10), "grids": (2, 4), "text_embed_dim": 16, "max_text_tokens": 6}
    config = InkbloomAutoregressiveConfig(vocab_size=42, tie_word_embeddings=True, max_position_embeddings=26, **settings, **sizes)
    model = InkbloomAutoregressive(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.normal_(std=0.2)
    return model


@pytest.fixture
def asked():
    """Token states, their mask and codes."""
    gen = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, 16, generator=gen), torch.tensor([[1.0] * 5, [1, 1, 0, 0, 0]]), torch.randint(1, 10, (2, 20, 2), generator=gen)


def test_a_place_is_the_same_with_a_cache_and_without_and_however_the_prompt_is_padded(model, asked):
    text, mask, codes = asked
    whole = model.hidden(text, mask, codes, 0, 20)
    cache = DynamicCache(config=model.config)
    stepped = [model.hidden(None if place else text, mask, codes[:, :place], place, place + 1, cache) for place in range(20)]
    assert (torch.cat(stepped, 1) - whole).abs().max() < 1e-5
    assert (model.hidden(text[1:, :2], mask[1:, :2], codes[1:], 0, 20) - whole[1:]).abs().max() < 1e-5


def test_a_place_knows_what_is_before_it_and_nothing_after(model, asked):
    text, mask, codes = asked
    whole = model.hidden(text, mask, codes, 0, 20)
    other = codes.clone()
    other[:, 7, 1] = (other[:, 7, 1] + 1) % 10
    moved = (model.hidden(text, mask, other, 0, 20) - whole).abs().amax((0, 2))
    assert moved[:8].max() == 0 and moved[8:].min() > 1e-6


def test_a_fine_place_knows_the_coarse_one_above_it(model):
    assert model.above(torch.tensor([4, 5, 6, 9, 19])).tolist() == [0, 0, 1, 0, 3]


def test_codes_of_what_shows_nothing_are_0_and_of_nothing_else():
    torch.manual_seed(0)
    codebook = InkbloomCodebook((6, 5), 4, (2, 4)).requires_grad_(False)
    codebook.residual.weight[0] = 0
    latent, clear = torch.randn(3, 4, 4, 4), torch.rand(3, 4, 4) < 0.3
    codes = codebook.encode(latent, clear)
    assert torch.equal(codes[..., 0] == 0, clear.flatten(1)) and (codes[..., 1][clear.flatten(1)] == 0).all()
    decoded = codebook.decode(codes)
    assert torch.equal(codebook.encode(decoded, clear), codes) or (codebook.decode(codebook.encode(decoded, clear)) - decoded).abs().max() < 1
    assert (decoded - latent)[~clear[:, None].expand_as(latent)].square().mean() < latent.square().mean()


def test_a_codebooks_decoder_begins_by_changing_nothing_and_sees_a_whole_grid():
    torch.manual_seed(0)
    codebook, codes = InkbloomCodebook((6, 5), 4, (2, 4), decoder_channels=8, decoder_blocks=1), torch.randint(1, 5, (2, 16, 2))
    assert torch.equal(codebook.decode(codes), codebook.layout(codes))
    torch.nn.init.normal_(codebook.decoder[-1].weight)
    other = codes.clone()
    other[:, 5] = (other[:, 5] + 1) % 5
    moved = (codebook.decode(codes) - codebook.decode(other)).abs().amax((0, 1)) > 0
    alone = (codebook.layout(codes) - codebook.layout(other)).abs().amax((0, 1)) > 0
    assert moved.sum() > 8 and alone.sum() == 1


def test_means_find_the_groups_that_are_there():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0], [9.0, 9.0]])
    gen = torch.Generator().manual_seed(0)
    x = centres.repeat(50, 1) + 0.1 * torch.randn(200, 2, generator=gen)
    means = vq.kmeans(x, 8, 12, gen)
    assert torch.cdist(centres, means).amin(1).max() < 0.3
    assert torch.equal(nearest(centres, centres), torch.arange(4))


def test_the_floor_is_lower_where_neighbours_are_alike():
    alike = np.repeat(np.arange(1, 5), 16).reshape(4, 16)
    striped = np.stack([np.stack([alike, np.zeros_like(alike)], -1)] * 8).reshape(32, 16, 2)
    mixed = np.random.default_rng(0).permuted(striped.reshape(-1, 2), axis=0).reshape(32, 16, 2)
    assert autoregress._mixture(striped, striped, 4) < autoregress._mixture(mixed, mixed, 4)


def test_a_wider_transformer_draws_what_the_narrow_one_drew_whatever_the_layout():
    preset = presets.load("smoke", [])
    torch.manual_seed(0)
    narrow, wide = transformer.make(preset), hybrid.make(preset)
    torch.nn.init.normal_(narrow.proj_out.weight)
    wide.load_state_dict(hybrid.widened(narrow, wide))
    x, layout, text, mask = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4), torch.randn(2, 8, 384), torch.ones(2, 8)
    with torch.no_grad():
        plain = transformer.Velocity(narrow.eval())(x, torch.full((2,), 0.5), text, mask)
        laid_out = hybrid.LaidOut(transformer.Velocity(wide.eval()), layout)(x, torch.full((2,), 0.5), text, mask)
    assert plain.abs().max() > 0.1 and (plain - laid_out).abs().max() < 1e-5


def test_layouts_are_thumbnails_enlarged_of_which_the_writer_redraws_a_share(smoke):
    worker, found = distributed.start("cpu"), latents.load(smoke, torch.device("cpu"))
    assert found.thumbnails.shape[2] * 2 == found.values.shape[2] and found.thumbnails_clear.any() and not found.thumbnails_clear.all()
    text, mask = TextEncoder(worker.device, 32)(["flat sticker of heart"] * 8)
    asked = Asked(torch.arange(8), torch.zeros(0, 4, dtype=torch.long), found.quarters.shape[2], *[torch.empty(0)] * 2)
    drawn = {}
    for redrawn in (0.0, 1.0):
        preset = presets.load("smoke", [f"hybrid.redrawn={redrawn}"])
        drawn[redrawn] = hybrid.Layouts(preset, None, smoke, worker, found)(asked, text, mask)
    layout, codebook = drawn[0.0], vq.load(smoke.stage("vq"), vq.COMPONENT, presets.load("smoke", []))
    assert torch.equal(layout[:, :, ::2, ::2], layout[:, :, 1::2, 1::2]) and layout.shape == found.values[:8].shape
    assert torch.equal(layout[:, :, ::2, ::2], codebook.layout(codebook.encode(found.thumbnails[:8].float(), found.thumbnails_clear[:8])))
    assert (drawn[1.0] != layout).any()


def test_samples_are_put_together_from_views_of_half_the_size(smoke):
    preset, worker, found = presets.load("smoke", []), distributed.start("cpu"), latents.load(smoke, torch.device("cpu"))
    data = dataset.load(smoke.dataset)
    samples = Samples(data, found, TextEncoder(worker.device, 32), text_dropout=0.0, together=1.0)
    asked = samples.ask(np.random.default_rng(0), 64)
    codes = autoregress.Codes(vq.load(smoke.stage("vq"), vq.COMPONENT, preset), found, fine=True)
    pictures, coarse = samples.pictures(asked), codes(asked, fine=True)[:, :4].view(-1, 2, 2, 2)
    assert pictures.shape == (64, *found.values.shape[1:]) and codes(asked, fine=False).shape == (64, 4, 2)
    counts = torch.bincount(asked.parts[:, 0], minlength=64)
    assert set(counts.tolist()) >= {2, 3, 4}
    for sample, view, top, left in asked.parts.tolist():
        assert torch.equal(pictures[sample, :, 2 * top : 2 * top + 2, 2 * left : 2 * left + 2], found.thumbnails[view].float())
        assert torch.equal(coarse[sample, top, left], codes.quarters[view][0, 0].long())
        assert data.rows[found.views[view].rows[0]].style == data.rows[found.views[asked.views[sample]].rows[0]].style
    alone = counts.tolist().index(0) if 0 in counts else None  # what is a composite already stays as it is
    assert alone is None or torch.equal(pictures[alone], found.values[asked.views[alone]].float())
    pair = next(number for number in range(64) if counts[number] == 2)
    assert (coarse[pair].flatten(0, 1) == 0).all(1).sum() >= 2  # nothing beside them


def test_what_sampling_may_get_wrong_is_wrong_in_training(smoke):
    preset = presets.load("smoke", [])
    codebook = vq.load(smoke.stage("vq"), vq.COMPONENT, preset)
    codes = autoregress.Codes(codebook, latents.load(smoke, torch.device("cpu")), fine=True).views(list(range(24)))
    assert torch.equal(autoregress.disturbed(codes, codebook, 0.0), codes)
    torch.manual_seed(0)
    changed = (autoregress.disturbed(codes, codebook, 0.5) != codes).any(-1).float().mean()
    assert 0.05 < changed < 0.4


def test_token_stages_are_done_and_their_models_exported(smoke):
    for stage in ("autoregress", hybrid.TEACHER, hybrid.STUDENT):
        assert checkpoint.load_meta(smoke.stage(stage) / "checkpoint")["state"]["done"], stage
    assert "held_coarse_bits" in checkpoint.load_meta(smoke.stage("autoregress") / "checkpoint")["state"]["measures"]
    index = json.loads((smoke.export / "model_index.json").read_text())
    assert index["codebook"] == ["inkbloom", "InkbloomCodebook"] and index["hybrid"] == ["diffusers", "PixArtTransformer2DModel"]
    codebook = InkbloomCodebook.from_pretrained(smoke.export / "codebook", low_cpu_mem_usage=False)
    assert codebook.config.grids == [2, 4] and codebook.config.decoder_blocks == 1 and codebook.decoder[-1].weight.any()
    model = InkbloomAutoregressive.from_pretrained(smoke.export / "autoregressive")
    assert model.places == 20 and not (smoke.export / "autoregressive" / "generation_config.json").exists()
    assert load_file(smoke.export / "autoregressive" / "model.safetensors")["model.embed_tokens.weight"].dtype == torch.float16
    assert (index["hybrid_steps"], index["hybrid_guidance"]) == (4, 1.0)
    assert "| hybrid | 80 |" in (smoke.export / "README.md").read_text()


def test_what_draws_thumbnails_only_is_exported_without_the_fine_grid(smoke, tmp_path):
    model = autoregress.load(presets.load("smoke", []), smoke)
    autoregress.save(model, tmp_path, thumbnails_only=True)
    small = InkbloomAutoregressive.from_pretrained(tmp_path).float().eval()
    assert list(small.config.grids) == [2] and small.config.vocab_size == 24 + 16 + 4 and not hasattr(small, "coarse_projection")
    text, mask, codes = torch.randn(1, 4, 384), torch.ones(1, 4), torch.randint(0, 16, (1, 4, 2))
    with torch.no_grad():
        assert (small.hidden(text, mask, codes, 0, 4) - model.hidden(text, mask, codes, 0, 4)).abs().max() < 0.01


def test_pictures_by_tokens_and_by_the_hybrid_depend_on_prompt_and_seed(smoke):
    preset, worker = presets.load("smoke", []), distributed.start("cpu")
    for which in (generate.TOKENS, generate.HYBRID):
        writer = generate.load_writer(preset, smoke, worker, which)
        pictures = writer(["flat sticker of heart", "flat sticker of star"], seed=1)
        assert pictures.shape == (2, preset.size, preset.size, 4)
        assert np.array_equal(pictures, writer(["flat sticker of heart", "flat sticker of star"], seed=1))
        assert (pictures != writer(["flat sticker of heart", "flat sticker of star"], seed=2)).any()


def test_coarse_codes_that_are_given_are_gone_on_from(smoke):
    preset, worker = presets.load("smoke", []), distributed.start("cpu")
    model = autoregress.load(preset, smoke)
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    text, empty = encoder(["flat sticker of heart"]), encoder([""])
    coarse = autoregress.sample(model, text, empty, [5], fine=False)
    whole = autoregress.sample(model, text, empty, [6], fine=True, codes=coarse)
    assert coarse.shape == (1, 4, 2) and whole.shape == (1, 20, 2) and torch.equal(whole[:, :4], coarse)
    assert (whole[..., 1][whole[..., 0] == 0] == 0).all()


def test_a_codebook_of_other_sizes_is_refused(smoke, capsys):
    again = ["autoregress", "--preset", "smoke", "--cache", str(smoke.root), "--device", "cpu", "--set", "vq.first=30"]
    assert main(again) == 1
    assert "choose --set vq.first" in capsys.readouterr().err


@pytest.mark.parametrize("thumbnails_only", [True, False])
def test_saved_weights_are_begun_from(model, asked, tmp_path, thumbnails_only):
    text, mask, codes = asked
    autoregress.save(copy.deepcopy(model), tmp_path / autoregress.COMPONENT, thumbnails_only)
    other = InkbloomAutoregressive(model.config).eval()
    autoregress.load_weights(tmp_path, other)
    places = 4 if thumbnails_only else 20
    assert (other.hidden(text, mask, codes, 0, places) - model.hidden(text, mask, codes, 0, places)).abs().max() < 2e-2  # kept in f16
    narrow = InkbloomAutoregressive(type(model.config)(**{**model.config.to_dict(), "intermediate_size": 40}))
    with pytest.raises(TrainError, match="intermediate_size 48 and this run 40"):
        autoregress.load_weights(tmp_path, narrow)


def test_a_hybrid_begins_from_a_hybrid(tmp_path):
    preset = presets.load("smoke", [])
    given, own = hybrid.make(preset), hybrid.make(preset)
    given.half().save_pretrained(tmp_path / hybrid.COMPONENT)
    assert pretrained.has(tmp_path, hybrid.COMPONENT) and not pretrained.has(tmp_path, "transformer")
    found = transformer.load_weights(tmp_path, own, hybrid.COMPONENT).state_dict()
    assert all(torch.equal(value.float(), found[name]) for name, value in given.state_dict().items())
