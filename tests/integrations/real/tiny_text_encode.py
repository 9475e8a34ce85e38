"""A custom node of the real test: random conditioning in place of a text encoder, the same for the same text."""

import torch


class TinyTextEncode:
    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"

    @classmethod
    def INPUT_TYPES(cls) -> dict:  # noqa: N802
        return {"required": {"text": ("STRING", {})}}

    def encode(self, text: str) -> tuple:
        generator = torch.Generator().manual_seed(sum(text.encode()))
        return ([[torch.randn(1, 77, 768, generator=generator), {}]],)


NODE_CLASS_MAPPINGS = {"TinyTextEncode": TinyTextEncode}
