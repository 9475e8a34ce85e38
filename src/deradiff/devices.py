"""Where networks run."""


def pick_device(name: str = "auto") -> str:
    """A device of torch: the named one, or for ``auto`` CUDA where there is one, else MPS, else the CPU."""
    if name != "auto":
        return name
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
