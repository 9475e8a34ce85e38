"""The error that every node raises: ComfyUI shows its one sentence on the node."""


class RealignError(ValueError):
    """Input that can't be realigned; the message names what was given, what was expected and what to do."""
