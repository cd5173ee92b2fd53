"""What the generative stages learn from: encoded views with captions that are made anew each time."""

import random

import numpy as np
import torch

from inkbloom_train.data.captions import caption
from inkbloom_train.data.dataset import TRAIN, DataSet
from inkbloom_train.latents import Latents
from inkbloom_train.text import TextEncoder


class Samples:
    """Draws latents with captions, each style as often as its weight says."""

    def __init__(self, data: DataSet, latents: Latents, encoder: TextEncoder, text_dropout: float) -> None:
        self.data, self.latents, self.encoder, self.text_dropout = data, latents, encoder, text_dropout
        trained = [
            (index, data.styles[data.rows[view.rows[0]].style].weight)
            for index, view in enumerate(latents.views)
            if view.rows and all(data.rows[row].split == TRAIN for row in view.rows)
        ]
        self.indices = np.array([index for index, _ in trained])
        self.cumulative = np.cumsum([weight for _, weight in trained])

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, list[str]]:
        """x_0 [count, C, h, w] in f32 and captions, some of them empty."""
        chosen, captions = self.draw(rng, count)
        return self.latents.values[torch.as_tensor(chosen, device=self.latents.values.device)].float(), captions

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
        """Indices of views [count] and captions, some of them empty."""
        drawn = np.searchsorted(self.cumulative, rng.random(count) * self.cumulative[-1], side="right")
        chosen = self.indices[drawn]
        words = random.Random(int(rng.integers(2**62)))
        captions = [
            "" if words.random() < self.text_dropout else caption(self.latents.views[index], self.data.rows, self.data.styles, words) for index in chosen
        ]
        return chosen, captions
