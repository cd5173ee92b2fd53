"""Pictures as tokens: the codes of an image tokenizer, and the transformer that writes them one after the other.

Two components of a model. ``codebook/`` (diffusers layout) turns places of a latent into codes and back:

    a place is a first code a and a residual code b; it stands for embedding[a] + residual[b], a vector of the
    latent in normalised units; a = 0 is a place that shows nothing, whose b is always 0, and residual[0] is zero
    a grid of such vectors x, its layout, is decoded to the latent x + decoder(x): what the codes leave out can be guessed
    from the codes around. decoder is a convolution, AutoencoderTiny's blocks and a convolution; or there is none

A picture has two grids of places, each row by row: first the coarse one, the latent of the picture at half its
size, then the fine one, its own latent. ``autoregressive/`` (transformers layout) is a LlamaForCausalLM with tied
head over E, which holds a row for each first code, each residual code and each place, in this order:

    prefix                 text_projection of the text encoder's token states, as many as the prompt has
    input of place i       E[place i] + C(i - 1), but for the first + for a fine place coarse_projection(C(the coarse place above it))
                           where C(i) is E[first code] + E[residual code] of place i
    rotary positions       text token j has j, place i has max_text_tokens + i, however long the prompt is
    hidden h of place i    the last layer's, normed
    first code's logits    E[first codes] h
    residual's logits      E[residual codes] linear_2(silu(linear_1([h, E[a]]))), a being the first code

All of it is causal. Guided logits are u + g (c - u), u those of the encoded empty prompt after the same codes.
"""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache


class InkbloomCodebook(ModelMixin, ConfigMixin):
    """The codes of latents in normalised units."""

    @register_to_config
    def __init__(
        self, codes: tuple[int, int] = (1024, 1024), latent_channels: int = 8, grids: tuple[int, ...] = (8, 16), decoder_channels: int = 64, decoder_blocks: int = 0
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes[0], latent_channels)
        self.residual = nn.Embedding(codes[1], latent_channels)
        if decoder_blocks:
            self.decoder = nn.Sequential(
                nn.Conv2d(latent_channels, decoder_channels, 3, padding=1),
                *(AutoencoderTinyBlock(decoder_channels, decoder_channels, "relu") for _ in range(decoder_blocks)),
                nn.Conv2d(decoder_channels, latent_channels, 3, padding=1),
            )
            nn.init.zeros_(self.decoder[-1].weight)  # it begins by changing nothing
            nn.init.zeros_(self.decoder[-1].bias)

    def encode(self, latent: torch.Tensor, clear: torch.Tensor) -> torch.Tensor:
        """Latents [N, C, h, w] and where they show nothing, bool [N, h, w], to codes [N, h w, 2]."""
        return self.nearest(latent.float().permute(0, 2, 3, 1), clear).flatten(1, 2)

    def nearest(self, vectors: torch.Tensor, clear: torch.Tensor) -> torch.Tensor:
        """The codes [..., 2] of vectors [..., C], and of places that show nothing, bool [...]."""
        x = vectors.flatten(0, -2)
        first = nearest(x, self.embedding.weight[1:]) + 1
        codes = torch.stack([first, nearest(x - self.embedding(first), self.residual.weight)], -1)
        return codes.view(*clear.shape, 2) * ~clear[..., None]  # which asks a GPU nothing, as a choice of the shown ones would

    def vectors(self, codes: torch.Tensor) -> torch.Tensor:
        """What codes [..., 2] stand for, [..., C]."""
        return self.embedding(codes[..., 0]) + self.residual(codes[..., 1])

    def layout(self, codes: torch.Tensor) -> torch.Tensor:
        """What codes [N, h h, 2] of a square grid stand for, each by itself, [N, C, h, h]."""
        x = self.vectors(codes)
        side = round(x.shape[1] ** 0.5)
        return x.unflatten(1, (side, side)).permute(0, 3, 1, 2)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [N, h h, 2] of a square grid to a latent [N, C, h, h]."""
        x = self.layout(codes)
        return x + self.decoder(x) if self.config.decoder_blocks else x


def nearest(x: torch.Tensor, codes: torch.Tensor, batch: int = 65536) -> torch.Tensor:
    """The index [N] of the code [K, C] nearest to each vector [N, C]."""
    half = codes.square().sum(1) / 2
    return torch.cat([torch.addmm(half, part, codes.T, alpha=-1).argmin(1) for part in x.split(batch)])


class InkbloomAutoregressiveConfig(LlamaConfig):
    """A LlamaConfig with the tokenizer's sizes; ``guidance`` is each grid's, by default."""

    model_type = "inkbloom_autoregressive"

    codes: tuple[int, int] = (1024, 1024)
    grids: tuple[int, ...] = (8, 16)
    text_embed_dim: int = 384
    max_text_tokens: int = 32
    guidance: tuple[float, ...] = (3.0, 1.5)


class ResidualHead(nn.Module):
    """Hidden state [..., H] and embedded first code [..., H] to what the residual codes are compared with, [..., H]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(2 * width, width), nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.silu(self.linear_1(torch.cat([hidden, first], -1))))


class InkbloomAutoregressive(LlamaForCausalLM):
    """Writes the codes of a picture; see the module."""

    config_class = InkbloomAutoregressiveConfig

    def __init__(self, config: InkbloomAutoregressiveConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.text_projection = nn.Linear(config.text_embed_dim, width)
        if len(config.grids) > 1:
            self.coarse_projection = nn.Linear(width, width, bias=False)
        self.residual_head = ResidualHead(width)
        self.post_init()

    @property
    def coarse(self) -> int:
        """Places of the coarse grid."""
        return self.config.grids[0] ** 2

    @property
    def places(self) -> int:
        """Places of all grids."""
        return sum(side**2 for side in self.config.grids)

    def above(self, place: torch.Tensor) -> torch.Tensor:
        """The coarse place that each fine place lies in."""
        coarse, fine = self.config.grids
        row, column = (place - self.coarse) // fine, (place - self.coarse) % fine
        return row * coarse // fine * coarse + column * coarse // fine

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        """C of codes [N, L, 2]: [N, L, H]."""
        return self.model.embed_tokens(codes[..., 0]) + self.model.embed_tokens(codes[..., 1] + self.config.codes[0])

    def inputs(self, codes: torch.Tensor, first: int, last: int) -> torch.Tensor:
        """The inputs of the places ``first`` to ``last`` - 1 after the codes before ``last`` - 1, [N, at least last - 1, 2]: [N, last - first, H]."""
        place = torch.arange(first, last, device=codes.device)
        x = self.model.embed_tokens(sum(self.config.codes) + place).expand(len(codes), -1, -1)
        before = self.embed(codes[:, max(0, first - 1) : last - 1])
        x = x + F.pad(before, (0, 0, last - first - before.shape[1], 0))
        fine = place[place >= self.coarse]
        if len(fine):
            x = x + F.pad(self.coarse_projection(self.embed(codes[:, self.above(fine)])), (0, 0, last - first - len(fine), 0))
        return x

    def hidden(
        self, text: torch.Tensor | None, mask: torch.Tensor, codes: torch.Tensor, first: int, last: int, cache: Cache | None = None
    ) -> torch.Tensor:
        """Normed hidden states of the places ``first`` to ``last`` - 1, [N, last - first, H].

        ``text`` [N, T, D] is the prompt's token states, None where ``cache`` holds the prefix and the places before
        ``first``; ``mask`` [N, T] is 1 for its tokens.
        """
        x = self.inputs(codes, first, last).to(self.text_projection.weight.dtype)
        length, count = mask.shape[1], last - first
        position = self.config.max_text_tokens + torch.arange(first, last, device=x.device)
        if text is not None:
            x = torch.cat([self.text_projection(text), x], 1)
            position = torch.cat([torch.arange(length, device=x.device), position])
        seen = torch.cat([mask, mask.new_ones(len(mask), last)], 1).bool()
        order = torch.arange(length + last, device=x.device)
        causal = order[None] <= order[-x.shape[1] :, None]
        allowed = causal & seen[:, None, None]
        out = self.model(
            inputs_embeds=x,
            attention_mask=torch.where(allowed, 0.0, torch.finfo(x.dtype).min).to(x.dtype),
            position_ids=position[None],
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return out.last_hidden_state[:, -count:]

    def first_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Of the first code after hidden states [..., H]: [..., K1]."""
        return hidden @ self.model.embed_tokens.weight[: self.config.codes[0]].T

    def residual_logits(self, hidden: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Of the residual code after hidden states [..., H] and first codes [...]: [..., K2]."""
        own = self.config.codes[0]
        return self.residual_head(hidden, self.model.embed_tokens(first)) @ self.model.embed_tokens.weight[own : own + self.config.codes[1]].T
