"""open_clip's CLIP in plain torch, of a tiny ViT-H-14's proportions: the names are its checkpoints'."""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

VISION, TEXT, SHARED, PATCH, GRID = 160, 128, 24, 7, 4  # heads are 80 and 64 wide


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 2)
        layers = {"c_fc": nn.Linear(width, 96), "gelu": nn.GELU(), "c_proj": nn.Linear(96, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x.transpose(0, 1)  # tokens first
        for block in self.resblocks:
            x = block(x, mask)
        return x.transpose(0, 1)


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, VISION, PATCH, PATCH, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(VISION))
        self.positional_embedding = nn.Parameter(torch.empty(GRID**2 + 1, VISION))
        self.ln_pre, self.ln_post = nn.LayerNorm(VISION), nn.LayerNorm(VISION)
        self.transformer = Transformer(VISION, 3)
        self.proj = nn.Parameter(torch.empty(VISION, SHARED))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Clip(nn.Module):
    def __init__(self, tokens: int, length: int) -> None:
        super().__init__()
        self.visual, self.transformer = Visual(), Transformer(TEXT, 2)
        self.token_embedding = nn.Embedding(tokens, TEXT)
        self.positional_embedding = nn.Parameter(torch.empty(length, TEXT))
        self.ln_final = nn.LayerNorm(TEXT)
        self.text_projection = nn.Parameter(torch.empty(TEXT, SHARED))
        self.logit_scale = nn.Parameter(torch.empty(()))

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Cosines (N,) of images (N, 3, 28, 28) and texts (N, length), padded with 0 after their highest token."""
        mask = torch.full((tokens.shape[1],) * 2, float("-inf")).triu(1)
        x = self.ln_final(self.transformer(self.token_embedding(tokens) + self.positional_embedding, mask))
        text = x[torch.arange(len(x)), tokens.argmax(-1)] @ self.text_projection
        return (normalize(self.visual(pixels), dim=-1) * normalize(text, dim=-1)).sum(-1)
