"""What the generative stages learn from: encoded views with captions that are made anew each time.

A share of the samples is put together from several views of single things in one style, which were encoded at half the
size: latents and codes are local, so the parts' own are laid side by side, on the ones of nothing. So every sample has
other neighbours, where drawn views would have the same few.
"""

import random
from typing import NamedTuple

import numpy as np
import torch

from inkbloom_train.data import captions
from inkbloom_train.data.dataset import TRAIN, DataSet
from inkbloom_train.latents import Latents
from inkbloom_train.text import TextEncoder

_RELATIONS = {captions.TWO: 0.2, captions.THREE: 0.15, captions.FOUR: 0.1, captions.BESIDE: 0.4, captions.ABOVE: 0.15}
"""How often each is chosen."""


class Asked(NamedTuple):
    """What N samples are, in main memory."""

    views: torch.Tensor
    """Their indices, i64 [N]; of a sample that is put together, its first part's."""
    parts: torch.Tensor
    """Of all that are put together, i64 [P, 4]: sample, view, and how far from the top and the left, of which ``half`` are half a side."""
    half: int
    tokens: torch.Tensor
    """Of their captions, i64 [N, T]."""
    mask: torch.Tensor
    """[N, T]."""


class Samples:
    """Draws views with captions, each style as often as its weight says, and puts a share ``together`` of them together."""

    def __init__(self, data: DataSet, latents: Latents, encoder: TextEncoder, text_dropout: float, together: float) -> None:
        self.data, self.latents, self.encoder, self.text_dropout, self.together = data, latents, encoder, text_dropout, together
        trained = [
            (index, data.styles[data.rows[view.rows[0]].style].weight)
            for index, view in enumerate(latents.views)
            if view.rows and all(data.rows[row].split == TRAIN for row in view.rows)
        ]
        self.indices = np.array([index for index, _ in trained])
        self.cumulative = np.cumsum([weight for _, weight in trained])
        self.single: dict[str, list[int]] = {}
        for index in self.indices:
            if latents.views[index].relation == captions.SINGLE:
                self.single.setdefault(self._style(index), []).append(int(index))
        plain, clear = (value[: len(data.rows)] for value in (latents.values, latents.clear))
        self.half = latents.quarters.shape[-1]
        self.nothing = plain.float().permute(0, 2, 3, 1)[clear].mean(0).nan_to_num()

    def _style(self, view: int) -> str:
        return self.data.rows[self.latents.views[view].rows[0]].style

    def ask(self, rng: np.random.Generator, count: int) -> Asked:
        """Some views with their captions, some of which are empty. Touches no device, so that other processes may do it ahead."""
        drawn = np.searchsorted(self.cumulative, rng.random(count) * self.cumulative[-1], side="right")
        chosen = self.indices[drawn]
        words = random.Random(int(rng.integers(2**62)))
        parts, written = [], []
        for sample, index in enumerate(chosen):
            view = self.latents.views[index]
            if view.relation == captions.SINGLE and words.random() < self.together:
                relation = words.choices(list(_RELATIONS), _RELATIONS.values())[0]
                things = [int(index)] if relation in captions.COUNTS else [int(index), words.choice(self.single[self._style(index)])]
                places = _places(relation, self.half, words)
                parts += [(sample, things[number % len(things)], *place) for number, place in enumerate(places)]
                text = captions.together(relation, [self.latents.views[thing] for thing in things], self.data.rows, self.data.styles, words)
            else:
                text = captions.caption(view, self.data.rows, self.data.styles, words)
            written.append("" if words.random() < self.text_dropout else text)
        return Asked(torch.as_tensor(chosen), torch.tensor(parts, dtype=torch.long).view(-1, 4), self.half, *self.encoder.tokenize(written))

    def pictures(self, asked: Asked) -> torch.Tensor:
        """Their latents, f32 [N, C, h, w]."""
        whole, half = (values.permute(0, 2, 3, 1) for values in (self.latents.values, self.latents.thumbnails))
        return laid_out(whole, half, asked, self.nothing).permute(0, 3, 1, 2).float().contiguous()

    def text(self, asked: Asked) -> tuple[torch.Tensor, torch.Tensor]:
        """Their captions, encoded."""
        return self.encoder.states(asked.tokens, asked.mask)


def _places(relation: str, half: int, words: random.Random) -> list[tuple[int, int]]:
    """Where parts of half the size stand, (top, left) of 0 to ``half``; the first of BESIDE on the left, of ABOVE at the top."""
    middle = half // 2
    astray = [words.randint(max(0, middle - 1), min(half, middle + 1)) for _ in range(2)]
    if relation == captions.ABOVE:
        return [(0, astray[0]), (half, astray[1])]
    if relation == captions.THREE:
        return words.choice([[(0, middle), (half, 0), (half, half)], [(0, 0), (0, half), (half, middle)]])
    if relation == captions.FOUR:
        return [(0, 0), (0, half), (half, 0), (half, half)]
    return [(astray[0], 0), (astray[1], half)]


def laid_out(whole: torch.Tensor, half: torch.Tensor, asked: Asked, nothing: torch.Tensor | int) -> torch.Tensor:
    """Of samples their ``whole`` views [V, H, W, K], or what is put together from ``half`` [V, H / 2, W / 2, K] on ``nothing`` [K]: [N, H, W, K]."""
    device, side = whole.device, half.shape[1]
    found = whole[asked.views.to(device, non_blocking=True)]
    sample, view, *corner = asked.parts.to(device, non_blocking=True).T
    rows, columns = (start[:, None] * side // asked.half + torch.arange(side, device=device) for start in corner)
    found[sample] = nothing.to(found.dtype) if isinstance(nothing, torch.Tensor) else nothing
    found[sample[:, None, None], rows[:, :, None], columns[:, None, :]] = half[view]
    return found
