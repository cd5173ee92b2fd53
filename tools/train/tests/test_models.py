"""Flow matching, distillation targets, the scorer's split and the measures, on numbers that can be checked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler

from inkbloom_train import evaluate, flow, pictures, scorer, transformer, vae
from inkbloom_train.data.dataset import HELD_PAIR, TRAIN, DataSet, Row
from inkbloom_train.distill import chords
from inkbloom_train.evaluate import GRID
from inkbloom_train.presets import NAMES, load
from inkbloom_train.scorer_model import InkbloomScorer
from inkbloom_train.vae import Crops


def test_the_sigmas_are_those_of_the_contract():
    assert flow.sigmas(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    for shift in (1.0, 1.5):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(sigmas=flow.sigmas(8)[:-1])
        assert scheduler.sigmas.tolist() == pytest.approx(flow.sigmas(8, shift))


def test_a_straight_flow_arrives_in_any_number_of_steps():
    x_0, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for steps in (1, 4, 25):
        found = flow.sample(lambda x, t: noise - x_0, noise, steps)
        assert torch.allclose(found, x_0, atol=1e-5)
    assert torch.allclose(flow.mix(x_0, noise, torch.tensor([0.0, 1.0])), torch.stack([x_0[0], noise[1]]))


def test_guidance_goes_from_the_empty_prompt_past_the_asked_one():
    def velocity(x, t, hidden, mask):
        return hidden.sum((1, 2)).view(-1, 1, 1, 1).expand_as(x)

    text, empty = (torch.full((2, 3, 1), 1.0), torch.ones(2, 3)), (torch.full((1, 2, 1), 0.5), torch.ones(1, 2))
    x, t = torch.zeros(2, 1, 1, 1), torch.ones(2)
    assert flow.guided(velocity, text, empty, 1.0)(x, t).flatten().tolist() == [3.0, 3.0]
    assert flow.guided(velocity, text, empty, 3.5)(x, t).flatten().tolist() == [1 + 3.5 * 2] * 2


def test_the_chords_of_a_straight_teacher_are_the_teacher():
    x_0, noise = torch.randn(2, 2, 2, 2), torch.randn(2, 2, 2, 2)
    settings = load("smoke", []).distill
    slow = lambda x, t: 0.5 * (noise - x_0)  # noqa: E731
    x_t, t, velocity = chords(lambda x, t: noise - x_0, slow, noise, torch.tensor([False, True]), settings, 1.5)
    assert torch.allclose(t, torch.tensor([1.0, 9 / 11, 0.6, 1 / 3]).repeat_interleave(2))
    assert torch.allclose(velocity, (noise - x_0).repeat(4, 1, 1, 1), atol=1e-5)
    x_t, times = x_t.unflatten(0, (4, 2)), t.unflatten(0, (4, 2))
    assert torch.allclose(x_t[:, 0], torch.stack([flow.mix(x_0[:1], noise[:1], t)[0] for t in times[:, :1]]), atol=1e-5)
    assert torch.allclose(x_t[:, 1], torch.stack([flow.mix(x_0[1:], noise[1:], (1 + t) / 2)[0] for t in times[:, 1:]]), atol=1e-5), "the student's own way"


def disc(alpha_inside: float) -> np.ndarray:
    """A disc with an antialiased rim, and an inside of a given alpha."""
    y, x = np.indices((64, 64)) - 31.5
    alpha = np.clip(20.5 - np.hypot(x, y), 0, 1)
    alpha[alpha == 1] = alpha_inside
    return np.repeat((alpha * 255).astype(np.uint8)[None, :, :, None], 4, -1)


def test_soft_rims_are_clean_and_soft_insides_are_not():
    assert evaluate._unclean_alpha(disc(1.0)) == 0
    assert evaluate._unclean_alpha(disc(0.7)) == pytest.approx(100 * np.pi * 18**2 / 64**2, rel=0.1)


def rows(count: int) -> list[Row]:
    return [
        Row(id=f"{style}/{n}", style=style, concept=f"c{n}", names=[f"c{n}"], keywords=[], licence="MIT", source="s", key=f"c{n}")
        for n in range(count)
        for style in ("a", "b")
    ]


def test_each_scorer_keeps_another_tenth_for_its_ceiling_and_knows_every_concept():
    data = DataSet(rows(500), [], {}, {})
    tenths = [scorer.held_rows(data, tenth) for tenth in range(10)]
    for held in tenths:
        assert 70 < len(held) < 130
        learned = {data.rows[index].concept for index in set(range(1000)) - set(held)}
        assert len(learned) == 500
    assert sum(map(len, tenths)) == len(set().union(*tenths))


def test_the_shipped_scorer_and_the_judge_share_nothing_that_lets_one_flatter_the_other():
    for name in NAMES:
        preset = load(name, [])
        for key in ("width", "tenth", "seed"):
            assert getattr(preset.scorer, key) != getattr(preset.judge, key), (name, key)


def test_the_scorer_averages_whole_squares_and_ignores_masked_tokens():
    model = InkbloomScorer(sample_size=16, block_out_channels=(8, 16), norm_num_groups=4, text_embed_dim=6, projection_dim=5).eval()
    small, text = torch.randn(2, 4, 16, 16), torch.randn(3, 5, 6)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    expected = model(small, text, mask)
    assert expected.shape == (2, 3) and expected.abs().max() <= 1
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(model(large, text, mask), expected, atol=1e-5)
    assert torch.allclose(model(small, text + 9 * (1 - mask[..., None]), mask), expected, atol=1e-6)
    for shape in ((8, 8), (40, 40), (32, 33)):
        with pytest.raises(ValueError, match="cannot be reduced"):
            model.features(torch.zeros(1, 4, *shape))


def test_the_best_candidate_is_kept_for_each_prompt():
    candidates = np.arange(6, dtype=np.uint8).reshape(3, 2, 1, 1, 1)
    chooser = SimpleNamespace(scores=lambda drawn, text: torch.tensor([abs(int(drawn[0].item()) - 2), -float(drawn[1].item())]) * -text)
    assert evaluate.choose(chooser, candidates, torch.tensor([1.0, 1.0])).flatten().tolist() == [2, 5]
    assert evaluate.choose(chooser, candidates, torch.tensor([1.0, -1.0])).flatten().tolist() == [2, 1]


@pytest.mark.parametrize("layers", [2, 3, 4, 5])
def test_a_deepened_transformer_is_the_same_function_and_can_learn(layers):
    preset = load("smoke", [])
    torch.manual_seed(0)
    shallow = transformer.make(preset)
    for value in shallow.parameters():
        torch.nn.init.normal_(value, std=0.1)
    deep = transformer.deepened(shallow, layers)
    assert len(deep.transformer_blocks) == layers
    side = preset.latent
    inputs = {
        "hidden_states": torch.randn(2, preset.vae.latent_channels, side, side),
        "encoder_hidden_states": torch.randn(2, 3, 384),
        "timestep": torch.tensor([100.0, 900.0]),
        "encoder_attention_mask": torch.ones(2, 3),
    }
    with torch.no_grad():
        assert torch.allclose(deep(**inputs).sample, shallow(**inputs).sample, atol=1e-5)
    deep(**inputs).sample.square().mean().backward()
    assert all(block.ff.net[2].weight.grad.abs().max() > 0 for block in deep.transformer_blocks)


def autoencoder(blocks: tuple[int, ...]) -> AutoencoderTiny:
    """One of the smoke preset's width with that decoder."""
    settings = load("smoke", []).vae
    torch.manual_seed(0)
    return AutoencoderTiny(
        in_channels=4,
        out_channels=4,
        latent_channels=settings.latent_channels,
        encoder_block_out_channels=(settings.width,) * 4,
        decoder_block_out_channels=(settings.width,) * len(blocks),
        num_encoder_blocks=vae.ENCODER_BLOCKS,
        num_decoder_blocks=blocks,
    )


def test_a_grown_decoder_draws_what_it_drew_at_twice_the_size():
    before, like = autoencoder(vae.DECODER_BLOCKS[:4]), vae.make(load("smoke", []).vae)
    vae.grown(before, like)
    latent = torch.randn(1, before.config.latent_channels, 4, 4)
    with torch.no_grad():
        small, large = before.decoder(latent), like.decoder(latent)
        picture = torch.randn(1, 4, 64, 64)
        assert torch.equal(like.encoder(picture), before.encoder(picture))
    assert large.shape[2:] == (64, 64) and small.shape[2:] == (32, 32)
    # All but the last convolution is the same, so the two are correlated as a picture and its enlargement are.
    enlarged = torch.nn.functional.avg_pool2d(large, 2)
    assert torch.corrcoef(torch.stack([enlarged.flatten(), small.flatten()]))[0, 1] > 0.7


def test_a_decoder_with_more_blocks_begins_as_the_one_with_fewer_and_can_learn():
    before, like = autoencoder((1, 2, 1, 1, 0)), vae.make(load("smoke", []).vae)
    vae.grown(before, like)
    latent = torch.randn(1, before.config.latent_channels, 4, 4)
    with torch.no_grad():
        assert torch.allclose(like.decoder(latent), before.decoder(latent), atol=1e-6)
    like.decoder(latent).square().mean().backward()
    last = [layer.conv[-1] for layer in like.decoder.layers if hasattr(layer, "conv")]
    assert len(last) == sum(vae.DECODER_BLOCKS) and all(convolution.weight.grad.abs().max() > 0 for convolution in last)


def test_prompts_are_pictures_that_the_scorer_never_learned_from_one_of_each_concept():
    data = DataSet(rows(500), [], {}, {})
    for row in data.rows[:200]:
        row.split = HELD_PAIR
    judge = SimpleNamespace(held=scorer.held_rows(data, 0))
    asked = evaluate._ask(judge, data, 40)
    assert asked.keys() == {TRAIN, HELD_PAIR}
    assert len(asked[TRAIN]) == 40
    for split, found in asked.items():
        assert set(found) <= set(judge.held) and {data.rows[row].split for row in found} == {split}
        assert len({data.rows[row].concept for row in found}) == len(found)
    judge.held = []
    assert len(evaluate._ask(judge, data, 40)[TRAIN]) == 40


def test_a_copy_of_a_training_picture_is_found_near():
    data = DataSet(rows(2), [], {}, {})
    pixels = torch.randint(0, 255, (4, 32, 32, 4), dtype=torch.uint8)
    assert evaluate._nearest(pixels[:1].numpy(), pixels, data) == 0
    assert evaluate._nearest(255 - pixels[:1].numpy(), pixels, data) > 0.2


def test_values_and_bytes_are_inverse_and_colour_never_exceeds_alpha():
    alpha = torch.randint(0, 256, (2, 8, 8, 1), dtype=torch.uint8)
    pixels = torch.cat([alpha // 2, alpha, alpha // 3, alpha], -1)
    assert (pictures.to_bytes(pictures.to_model(pixels)) == pixels.numpy()).all()
    loud = torch.ones(1, 4, 2, 2)
    loud[:, 3] = 0
    assert (pictures.to_bytes(loud) <= 128).all()
    assert torch.allclose(pictures.over(torch.full((1, 4, 1, 1), -1.0), 0.25), torch.tensor(0.25))


def test_crops_show_something_and_are_premultiplied():
    pixels = torch.zeros(3, 64, 64, 4, dtype=torch.uint8)
    pixels[1, :32, :32] = 255  # almost every window of it shows something; no window of picture 0 does
    crops = Crops(pixels, [0, 1], 32)
    x = crops(np.random.default_rng(0), 256)
    assert x.shape == (256, 4, 32, 32)
    assert (x[:, 3].amax((1, 2)) > -1).float().mean() > 0.8  # drawn again up to four times
    assert (x[:, :3] <= x[:, 3:] + 1e-6).all()


def test_the_grid_has_48_prompts_that_differ():
    assert len(GRID) == len(set(GRID)) == 48
