"""The loop: schedule, checkpoints, resuming, optimisers."""

import json
import signal

import numpy as np
import pytest
import torch
from torch import nn

from inkbloom_train import checkpoint, distributed, optimizer, training, transformer
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.presets import load
from inkbloom_train.training import Schedule, State

ALONE = Worker(0, 1, torch.device("cpu"))


class Line(nn.Module):
    """Learns y = 2 x with a matrix for Muon and a bias for AdamW."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.layer(x) - 2 * x).square().mean()}


def batch(rng: np.random.Generator, count: int) -> dict:
    return {"x": torch.as_tensor(rng.standard_normal((count, 32)), dtype=torch.float32)}


def schedule(**changes) -> Schedule:
    return Schedule(**{"samples": 320, "batch": 8, "rate": 1e-2, "warmup": 5, "ema": 0.9, **changes})


def weights(folder) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder / "checkpoint")[0]


def test_training_learns_and_ends(tmp_path):
    state = training.train(Line(), batch, schedule(samples=2400, rate=2e-2), {}, tmp_path, ALONE)
    assert state.done and state.samples == 2400
    learned = checkpoint.select(training.averaged(tmp_path)[0], "layer")
    assert (learned["weight"] - 2 * torch.eye(32)).abs().max() < 0.2
    again = training.train(Line(), batch, schedule(samples=2400, rate=2e-2), {}, tmp_path, ALONE)
    assert again.step == state.step


def test_an_interrupted_run_resumes_to_the_same_weights(tmp_path):
    training.train(Line(), batch, schedule(), {}, tmp_path / "straight", ALONE)

    calls = 0

    def interrupted(rng: np.random.Generator, count: int) -> dict:
        nonlocal calls
        calls += 1
        if calls == 13:
            signal.raise_signal(signal.SIGTERM)
        return batch(rng, count)

    with pytest.raises(KeyboardInterrupt):
        training.train(Line(), interrupted, schedule(), {}, tmp_path / "resumed", ALONE)
    assert 13 <= checkpoint.load_meta(tmp_path / "resumed" / "checkpoint")["state"]["step"] < 40
    training.train(Line(), batch, schedule(), {}, tmp_path / "resumed", ALONE)
    straight, resumed = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert straight.keys() == resumed.keys()
    for name, value in straight.items():
        assert torch.equal(value, resumed[name]), name


def test_a_limit_ends_the_call_and_not_the_stage(tmp_path):
    state = training.train(Line(), batch, schedule(samples=10**9), {}, tmp_path, distributed.start("cpu", minutes=0.01))
    assert not state.done and state.step > 0
    more = training.train(Line(), batch, schedule(samples=10**9), {}, tmp_path, distributed.start("cpu", minutes=0.01))
    assert more.step > state.step and more.seconds > state.seconds


def test_minutes_measure_the_way_where_they_are_given(tmp_path):
    state = training.train(Line(), batch, schedule(samples=0, minutes=0.01), {}, tmp_path, ALONE)
    assert state.done and 0.5 < state.seconds < 5


def test_a_step_with_an_overflow_is_left_out(tmp_path):
    def poisoned(rng: np.random.Generator, count: int) -> dict:
        made = batch(rng, count)
        if rng.random() < 0.2:
            made["x"][0] = float("inf")
        return made

    training.train(Line(), poisoned, schedule(), {}, tmp_path, ALONE)
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_the_rate_warms_up_stays_and_falls():
    plan = schedule(rate=1.0, warmup=10, decay=0.25, floor=0.1)
    assert plan.rate_at(0, 0.0) == pytest.approx(0.1)
    assert plan.rate_at(500, 0.5) == 1.0
    assert plan.rate_at(900, 0.875) == pytest.approx(0.5)
    assert plan.rate_at(1000, 1.0) == pytest.approx(0.1)


def test_a_batch_that_cannot_be_shared_is_named(tmp_path):
    with pytest.raises(TrainError, match="multiple of 3"):
        training.train(Line(), batch, schedule(), {}, tmp_path, Worker(0, 3, torch.device("cpu")))


# Checkpoints


def test_pieces_are_small_enough_to_move(tmp_path):
    tensors = {f"t{n}": torch.full((2**20,), float(n)) for n in range(12)}  # 4 MiB each
    checkpoint.save(tmp_path / "checkpoint", tensors, {"config": {}})
    pieces = list((tmp_path / "checkpoint").glob("*.safetensors"))
    assert len(pieces) == 4 and max(piece.stat().st_size for piece in pieces) <= 16 * 2**20
    loaded, _ = checkpoint.load(tmp_path / "checkpoint")
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", {"t": torch.ones(1)}, {"config": {}, "n": 1})
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")
    assert checkpoint.load(tmp_path / "checkpoint")[1]["n"] == 1
    checkpoint.save(tmp_path / "checkpoint", {"t": torch.ones(1)}, {"config": {}, "n": 2})
    assert checkpoint.load(tmp_path / "checkpoint")[1]["n"] == 2


def test_another_configuration_is_named(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", {"t": torch.ones(1)}, {"config": {"width": 256}})
    with pytest.raises(TrainError, match="width is 256 there and 384 here"):
        checkpoint.load(tmp_path / "checkpoint", {"width": 384})


def test_a_damaged_and_a_missing_checkpoint_are_named(tmp_path):
    with pytest.raises(TrainError, match="run the stage"):
        checkpoint.load(tmp_path / "checkpoint")
    checkpoint.save(tmp_path / "checkpoint", {"t": torch.ones(100)}, {"config": {}})
    piece = tmp_path / "checkpoint" / "state-000.safetensors"
    piece.write_bytes(piece.read_bytes()[:50])
    with pytest.raises(TrainError, match="damaged"):
        checkpoint.load(tmp_path / "checkpoint")


def test_meta_is_plain_json(tmp_path):
    checkpoint.save(tmp_path / "checkpoint", {"t": torch.ones(1)}, {"config": {}, "state": vars(State(step=3))})
    assert json.loads((tmp_path / "checkpoint" / "meta.json").read_text())["state"]["step"] == 3


# Optimisers and memory


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (48, 48)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape):
    found = optimizer.orthogonalise(torch.randn(3, *shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.4 and values.max() < 1.4


def test_muon_takes_matrices_and_leaves_the_rest():
    assert optimizer.takes_muon(torch.zeros(64, 32)) and optimizer.takes_muon(torch.zeros(48, 48, 3, 3))
    assert not optimizer.takes_muon(torch.zeros(64)) and not optimizer.takes_muon(torch.zeros(6, 256))


def test_too_little_memory_is_named():
    training.require_memory("the stage", 1, "no remedy")
    with pytest.raises(TrainError, match="lower the batch"):
        training.require_memory("the stage", 10**18, "lower the batch")


def test_a_compiled_model_computes_the_same():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(approximate="tanh"))
    x = torch.randn(4, 8)
    fast = training.compiled(model, "default", ALONE)
    assert fast is not model
    assert torch.allclose(fast(x), model(x), atol=1e-6)


def test_restored_moments_lie_in_memory_as_their_parameters_do(tmp_path):
    class Pixel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"loss": self.layer(x.view(-1, 4, 2, 4).repeat(1, 1, 2, 1)).square().mean()}

    training.train(Pixel(), batch, schedule(), {}, tmp_path, ALONE)
    objective = Pixel()
    parameters = dict(objective.named_parameters())
    optimizers = optimizer.make(list(parameters.values()), 1e-3, (0.9, 0.99), 0.0)
    average = {name: value.detach().clone() for name, value in parameters.items()}
    training._restore(tmp_path / "checkpoint", {}, parameters, average, optimizers)
    weight = parameters["layer.weight"]
    moments = optimizers[-1].state[weight]
    assert moments["exp_avg"].stride() == weight.stride() and moments["exp_avg"].abs().max() > 0


def test_on_a_gpu_blocks_are_compiled_one_by_one():
    velocity = transformer.Velocity(transformer.make(load("smoke", [])))
    before = set(velocity.state_dict())
    on_gpu = distributed.Worker(0, 1, torch.device("cuda"))
    assert training.compiled(velocity, "default", on_gpu) is velocity and set(velocity.state_dict()) == before
    assert all(block._compiled_call_impl is not None for block in velocity.transformer.transformer_blocks)


def test_without_a_compiler_it_says_so_and_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(training.shutil, "which", lambda name: None)
    model = torch.nn.Linear(8, 8)
    assert training.compiled(model, "default", ALONE) is model
    assert "no C++ compiler" in capsys.readouterr().out
    assert training.compiled(model, None, ALONE) is model
