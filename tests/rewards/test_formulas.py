"""Each scorer's numbers, by its real loader, against the published formula worked out another way."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.rewards import open_clip_reference as open_clip
from tests.rewards.blip_reference import Blip
from tests.rewards.published import CLIP_TOKENS, LENGTH, SIZE, loaded
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cosine_similarity, linear
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from deradiff.rewards.hps import infer_clip_config
from deradiff.rewards.preprocess import MEAN, STD, to_pil

PROMPTS = ["a red circle", "a blue square on the left of a circle", "x", "a " * 40]  # the last is cut


@pytest.fixture
def images() -> Tensor:
    # cut to a square, sides of 28 and of 32 leave margins whose halves transformers and torchvision round apart
    return torch.rand(4, 3, 42, 47, generator=torch.Generator().manual_seed(0))


def clip_embeddings(folder: Path, images: Tensor) -> tuple[Any, Tensor, Tensor]:
    """As transformers' own classes give them, texts padded to the longest."""
    model: Any = CLIPModel.from_pretrained(folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(to_pil(images), return_tensors="pt")
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens.enable_truncation(LENGTH)
    tokens.enable_padding(pad_token="<|endoftext|>", pad_id=tokens.token_to_id("<|endoftext|>"))
    told = tokens.encode_batch(PROMPTS)
    ids, mask = (torch.tensor([getattr(one, part) for one in told]) for part in ("ids", "attention_mask"))
    with torch.no_grad():
        seen = model.get_image_features(**pixels).pooler_output
        read = model.get_text_features(ids, attention_mask=mask).pooler_output
    return model, seen, read


def test_clip_score(folders: dict[str, Path], images: Tensor) -> None:
    _, seen, read = clip_embeddings(folders["clip"], images)
    cosines = cosine_similarity(seen, read)
    scores = loaded("clip", folders["clip"])(images, PROMPTS)
    torch.testing.assert_close(scores, 100 * cosines.clamp(min=0), rtol=1e-4, atol=1e-3)
    assert (cosines < 0).any()
    assert (scores > 0).any()


def test_pickscore(folders: dict[str, Path], images: Tensor) -> None:
    model, seen, read = clip_embeddings(folders["pickscore"], images)
    scores = loaded("pickscore", folders["pickscore"])(images, PROMPTS)
    torch.testing.assert_close(scores, 100 * cosine_similarity(seen, read), rtol=1e-4, atol=1e-3)
    assert math.exp(model.logit_scale.item()) == pytest.approx(100, rel=1e-4)


def test_hps(folders: dict[str, Path], images: Tensor) -> None:
    reference = open_clip.Clip(CLIP_TOKENS, LENGTH)
    reference.load_state_dict(torch.load(folders["hps"] / "HPS_v2.1_compressed.pt")["state_dict"])
    tokens = Tokenizer.from_file(str(folders["hps"] / "tokenizer.json"))
    ids = torch.zeros(len(PROMPTS), LENGTH, dtype=torch.long)  # open_clip pads with 0 and keeps an end when it cuts
    for row, told in zip(ids, tokens.encode_batch(PROMPTS), strict=True):
        kept = told.ids if len(told.ids) <= LENGTH else [*told.ids[: LENGTH - 1], told.ids[-1]]
        row[: len(kept)] = torch.tensor(kept)
    levels = (images * 255).round() / 255
    small = torch.nn.functional.interpolate(levels, (25, 28), mode="bicubic", antialias=True)
    square = torch.zeros(4, 3, SIZE, SIZE)
    square[:, :, 1:26] = small
    pixels = (square - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    with torch.no_grad():
        expected = reference.eval()(pixels, ids)
    scores = loaded("hps", folders["hps"])(images, PROMPTS)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    assert scores.std() > 0.01


def test_sizes_of_the_published_hps() -> None:
    """By the shapes that open_clip's ViT-H-14.json gives its tensors."""
    shapes = {
        "visual.conv1.weight": (1280, 3, 14, 14),
        "visual.positional_embedding": (257, 1280),
        "visual.proj": (1280, 1024),
        "token_embedding.weight": (49408, 1024),
        "positional_embedding": (77, 1024),
    }
    for prefix, layers, width in (("visual.", 32, 1280), ("", 24, 1024)):
        for layer in range(layers):
            shapes[f"{prefix}transformer.resblocks.{layer}.mlp.c_fc.weight"] = (4 * width, width)
    config: Any = infer_clip_config({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    for tower, heads, layers in ((config.vision_config, 16, 32), (config.text_config, 16, 24)):
        assert (tower.num_attention_heads, tower.num_hidden_layers, tower.hidden_act) == (heads, layers, "gelu")
    assert (config.vision_config.image_size, config.projection_dim) == (224, 1024)


def centred(images: Tensor, size: int, left: int) -> Tensor:
    """A wide picture's shorter side brought to size, cut from ``left`` on, normalised."""
    wide = int(size * images.shape[3] / images.shape[2])
    squares = [picture.resize((wide, size), 3).crop((left, 0, left + size, size)) for picture in to_pil(images)]
    pixels = torch.stack([torch.tensor(list(picture.tobytes())).view(size, size, 3) for picture in squares])
    return (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def through(state: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    for place in (0, 2, 4, 6, 7):
        x = linear(x, state[f"{prefix}{place}.weight"], state[f"{prefix}{place}.bias"])
    return x[:, 0]


def test_image_reward(folders: dict[str, Path], images: Tensor) -> None:
    state = torch.load(folders["image_reward"] / "ImageReward.pt")
    tokens = Tokenizer.from_file(str(folders["image_reward"] / "tokenizer.json"))
    tokens.enable_truncation(35)
    tokens.enable_padding(length=35, pad_id=0)
    told = tokens.encode_batch(PROMPTS)
    ids, known = (torch.tensor([getattr(one, part) for one in told]) for part in ("ids", "attention_mask"))
    blip = Blip(state)
    read = blip.read(ids, known, blip.see(centred(images, 32, round((int(32 * 47 / 42) - 32) / 2))))
    expected = (through(state, "mlp.layers.", read[:, 0]) - 0.16717362830052426) / 1.0333394966054072
    scores = loaded("image_reward", folders["image_reward"])(images, PROMPTS)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert scores.std() > 0.01


def test_aesthetic(folders: dict[str, Path], images: Tensor) -> None:
    folder = folders["aesthetic"]
    model: Any = CLIPModel.from_pretrained(folder).eval()
    left = round((int(SIZE * 47 / 42) - SIZE) / 2)
    with torch.no_grad():
        seen = model.get_image_features(centred(images, SIZE, left)).pooler_output
    state = torch.load(folder / "sac+logos+ava1-l14-linearMSE.pth")
    scorer = loaded("aesthetic", folder)
    scores = scorer(images, PROMPTS)
    torch.testing.assert_close(
        scores, through(state, "layers.", seen / seen.norm(dim=-1, keepdim=True)), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(scores, scorer(images, ["other"] * 4))
    assert load_file(folder / "model.safetensors")  # the head is a file of its own, CLIP another
