"""Flow matching, distillation targets, the scorer's split and the measures, on numbers that can be checked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from inkbloom_train import evaluate, flow, pictures, scorer
from inkbloom_train.data.dataset import HELD_PAIR, TRAIN, DataSet, Row
from inkbloom_train.distill import chords
from inkbloom_train.evaluate import GRID
from inkbloom_train.presets import load
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


def test_the_scorer_keeps_a_tenth_for_its_ceiling_and_knows_every_concept():
    data = DataSet(rows(500), [], {}, {})
    held = scorer.held_rows(data)
    assert 70 < len(held) < 130
    learned = {data.rows[index].concept for index in set(range(1000)) - set(held)}
    assert len(learned) == 500


def test_prompts_are_pictures_that_the_scorer_never_learned_from_one_of_each_concept():
    data = DataSet(rows(500), [], {}, {})
    for row in data.rows[:200]:
        row.split = HELD_PAIR
    judge = SimpleNamespace(held=scorer.held_rows(data))
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
