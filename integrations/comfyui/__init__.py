"""deradiff for ComfyUI: choose at sampling time how strongly a model is aligned."""

from .deradiff_comfyui.nodes import comfy_entrypoint

__all__ = ["comfy_entrypoint"]
