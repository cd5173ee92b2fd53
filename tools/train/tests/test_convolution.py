"""The convolution that learns by rows, against PyTorch's own."""

import pytest
import torch
from inkbloom_train.convolution import Conv2d, quicken
from torch import nn


@pytest.mark.parametrize("size", [(80, 72), (65, 130), (8, 8)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_pytorch(size, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    x = torch.randn(2, 5, *size).contiguous(memory_format=torch.channels_last)
    wanted = torch.randn(2, 7, *size)

    def gradients(model):
        given = x.clone().requires_grad_()
        found = torch.autograd.grad((model(given) * wanted).sum(), [given, *model.parameters()])
        return [model(x).detach(), *found]

    expected = gradients(plain)
    own = quicken(nn.Sequential(plain))
    assert isinstance(own[0], Conv2d)
    for a, b in zip(gradients(own[0]), expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


def test_others_stay():
    model = quicken(nn.Sequential(nn.Conv2d(4, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2)))
    assert [type(part) for part in model] == [nn.Conv2d] * 3
