"""What the generative stages learn from: encoded views with captions that are made anew each time."""

import random
from typing import NamedTuple

import numpy as np
import torch

from inkbloom_train.data.captions import caption
from inkbloom_train.data.dataset import TRAIN, DataSet
from inkbloom_train.latents import Latents
from inkbloom_train.text import TextEncoder


class Asked(NamedTuple):
    """What N samples are, in main memory."""

    views: torch.Tensor
    """Their indices, i64 [N]."""
    tokens: torch.Tensor
    """Of their captions, i64 [N, T]."""
    mask: torch.Tensor
    """[N, T]."""


class Samples:
    """Draws views with captions, each style as often as its weight says."""

    def __init__(self, data: DataSet, latents: Latents, encoder: TextEncoder, text_dropout: float) -> None:
        self.data, self.latents, self.encoder, self.text_dropout = data, latents, encoder, text_dropout
        trained = [
            (index, data.styles[data.rows[view.rows[0]].style].weight)
            for index, view in enumerate(latents.views)
            if view.rows and all(data.rows[row].split == TRAIN for row in view.rows)
        ]
        self.indices = np.array([index for index, _ in trained])
        self.cumulative = np.cumsum([weight for _, weight in trained])

    def ask(self, rng: np.random.Generator, count: int) -> Asked:
        """Some views with their captions, some of which are empty. Touches no device, so that other processes may do it ahead."""
        drawn = np.searchsorted(self.cumulative, rng.random(count) * self.cumulative[-1], side="right")
        chosen = self.indices[drawn]
        words = random.Random(int(rng.integers(2**62)))
        captions = [
            "" if words.random() < self.text_dropout else caption(self.latents.views[index], self.data.rows, self.data.styles, words) for index in chosen
        ]
        return Asked(torch.as_tensor(chosen), *self.encoder.tokenize(captions))

    def views(self, asked: Asked) -> torch.Tensor:
        """Their indices, on the device of the latents."""
        return asked.views.to(self.latents.values.device, non_blocking=True)

    def text(self, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        """Their captions, encoded."""
        return self.encoder.states(asked.tokens, asked.mask)
