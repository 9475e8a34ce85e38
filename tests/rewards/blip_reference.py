"""ImageReward's BLIP written with functions of torch, on a state dict of its checkpoints' names; tiny."""

import tokenizers
import torch
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from torch.nn.functional import conv2d, embedding, gelu, layer_norm, linear

VISION, TEXT, PATCH, GRID, INNER = 128, 48, 8, 4, 64
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "circle", "square", "on", "the", "left", "of", "##s"]
MED = {
    "architectures": ["BertModel"],
    "hidden_act": "gelu",
    "hidden_size": TEXT,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 64,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": len(WORDS) + 2,
    "encoder_width": 768,  # wrong in the published file too, and overruled
    "add_cross_attention": True,
}


def tokenizer() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(WordPiece({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    made.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    made.add_special_tokens(WORDS[:4])
    return made


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of all the checkpoint holds but the head."""
    see, read = "blip.visual_encoder.", "blip.text_encoder."
    made: dict[str, tuple[int, ...]] = {
        f"{see}cls_token": (1, 1, VISION),
        f"{see}pos_embed": (1, GRID**2 + 1, VISION),
        f"{see}patch_embed.proj.weight": (VISION, 3, PATCH, PATCH),
        f"{see}patch_embed.proj.bias": (VISION,),
        f"{read}embeddings.word_embeddings.weight": (MED["vocab_size"], TEXT),
        f"{read}embeddings.position_embeddings.weight": (64, TEXT),
    }
    linears = {"blip.vision_proj": (16, VISION), "blip.text_proj": (16, TEXT)}
    norms = {f"{see}norm": VISION, f"{read}embeddings.LayerNorm": TEXT}
    for at in range(3):
        block = f"{see}blocks.{at}."
        norms |= {f"{block}norm1": VISION, f"{block}norm2": VISION}
        linears |= {f"{block}attn.qkv": (3 * VISION, VISION), f"{block}attn.proj": (VISION, VISION)}
        linears |= {f"{block}mlp.fc1": (INNER, VISION), f"{block}mlp.fc2": (VISION, INNER)}
    for at in range(2):
        layer = f"{read}encoder.layer.{at}."
        for kind, width in (("attention", TEXT), ("crossattention", VISION)):
            linears |= {f"{layer}{kind}.self.query": (TEXT, TEXT), f"{layer}{kind}.output.dense": (TEXT, TEXT)}
            linears |= {f"{layer}{kind}.self.{part}": (TEXT, width) for part in ("key", "value")}
            norms[f"{layer}{kind}.output.LayerNorm"] = TEXT
        linears |= {f"{layer}intermediate.dense": (INNER, TEXT), f"{layer}output.dense": (TEXT, INNER)}
        norms[f"{layer}output.LayerNorm"] = TEXT
    for name, shape in linears.items():
        made |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name, width in norms.items():
        made |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    return made


class Blip:
    """The forward passes."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        return layer_norm(x, x.shape[-1:], self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)

    def see(self, pixels: Tensor) -> Tensor:
        at = "blip.visual_encoder."
        x = conv2d(pixels, self.state[f"{at}patch_embed.proj.weight"], self.state[f"{at}patch_embed.proj.bias"], PATCH)
        x = torch.cat([self.state[f"{at}cls_token"].expand(len(x), 1, -1), x.flatten(2).transpose(1, 2)], 1)
        x = x + self.state[f"{at}pos_embed"]
        for block in (f"{at}blocks.{index}." for index in range(3)):
            query, key, value = self._linear(f"{block}attn.qkv", self._norm(f"{block}norm1", x, 1e-6)).chunk(3, -1)
            x = x + self._linear(f"{block}attn.proj", attend(query, key, value, VISION // 64))
            hidden = self._linear(f"{block}mlp.fc1", self._norm(f"{block}norm2", x, 1e-6))
            x = x + self._linear(f"{block}mlp.fc2", gelu(hidden))
        return self._norm(f"{at}norm", x, 1e-6)

    def read(self, tokens: Tensor, known: Tensor, seen: Tensor) -> Tensor:
        at = "blip.text_encoder."
        x = embedding(tokens, self.state[f"{at}embeddings.word_embeddings.weight"])
        x = x + self.state[f"{at}embeddings.position_embeddings.weight"][: tokens.shape[1]]
        x = self._norm(f"{at}embeddings.LayerNorm", x, 1e-12)
        hidden = (1 - known[:, None, None, :].float()) * -10000.0
        for layer in (f"{at}encoder.layer.{index}." for index in range(2)):
            x = self._attention(f"{layer}attention.", x, x, hidden)
            x = self._attention(f"{layer}crossattention.", x, seen, torch.zeros(()))
            inner = gelu(self._linear(f"{layer}intermediate.dense", x))
            x = self._norm(f"{layer}output.LayerNorm", x + self._linear(f"{layer}output.dense", inner), 1e-12)
        return x

    def _attention(self, at: str, x: Tensor, context: Tensor, mask: Tensor) -> Tensor:
        query = self._linear(f"{at}self.query", x)
        key, value = (self._linear(f"{at}self.{part}", context) for part in ("key", "value"))
        out = self._linear(f"{at}output.dense", attend(query, key, value, 3, mask))
        return self._norm(f"{at}output.LayerNorm", x + out, 1e-12)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | float = 0.0) -> Tensor:
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query, key, value))
    weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask).softmax(-1)
    return (weights @ value).transpose(1, 2).flatten(2)
