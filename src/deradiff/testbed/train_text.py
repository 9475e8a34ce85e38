"""Train the text encoder to represent the claims of a caption, before it is frozen for the denoiser.

Linear heads predict shapes, colours, size, relation and background from each of the last positions, which a causal
encoder reaches after the whole caption. A denoiser of this size learns far less from a random encoder.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import CLIPTextModel, CLIPTokenizer

from deradiff.testbed.architecture import TOKENS, make_text_encoder
from deradiff.testbed.captions import Claim, parse, random_caption
from deradiff.testbed.descend import descend
from deradiff.testbed.scenes import COLOURS, PAIRS, SHAPES, random_scene

_ANSWERS: tuple[tuple[str | None, ...], ...] = (
    SHAPES,
    COLOURS,
    (*SHAPES, None),
    (*COLOURS, None),
    ("small", "large", None),
    (*PAIRS, None),
    (*COLOURS, None),
)
_SIZES = [len(answers) for answers in _ANSWERS]
_READ = 3  # the longest caption ends three positions before the last


def _labels(claim: Claim) -> list[int]:
    second = (claim.shapes[1], claim.colours[1]) if claim.pair else (None, None)
    values = (claim.shapes[0], claim.colours[0], *second, claim.size, claim.pair, claim.background)
    return [answers.index(word) for answers, word in zip(_ANSWERS, values, strict=True)]


def train_text_encoder(
    tokenizer: CLIPTokenizer,
    *,
    steps: int,
    batch: int = 128,
    peak_lr: float = 3e-3,
    seed: int = 0,
    report: Callable[[int, float], None],
) -> CLIPTextModel:
    """Train and freeze an encoder whose output determines every claim; ``report`` receives step and loss."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder = make_text_encoder(tokenizer)
    heads = nn.Linear(encoder.config.hidden_size, sum(_SIZES))
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=peak_lr, weight_decay=0)
    lr_scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_lr, total_steps=steps, pct_start=0.1)

    def loss() -> Tensor:
        captions = [random_caption(random_scene(rng), rng) for _ in range(batch)]
        tokens = tokenizer(captions, padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
        labels = torch.tensor([_labels(parse(caption)) for caption in captions])
        states = encoder(tokens).last_hidden_state[:, -_READ:]
        logits = heads(states).transpose(1, 2).split(_SIZES, dim=1)
        wanted = labels[:, :, None].expand(-1, -1, _READ).unbind(1)
        return torch.stack([cross_entropy(guess, answer) for guess, answer in zip(logits, wanted, strict=True)]).sum()

    descend(loss, optimizer, lr_scheduler, steps=steps, report=report)
    return encoder.eval().requires_grad_(False)
