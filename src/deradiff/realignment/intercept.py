"""Reversible surgery on an object's call: nothing of the object changes but its class.

Python looks ``__call__`` up on the class, so giving one instance a subclass of its own class routes ``instance(...)``
through us while ``forward``, its signature, its hooks (accelerate's offload, torch.compile) and its state dict stay
what they were, whichever was attached first.  Giving the class back is the exact undo.
"""

from collections.abc import Callable
from typing import Any

Call = Callable[..., Any]
Interceptor = Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]


def intercept(instance: object, interceptor: Interceptor, owner: object) -> Callable[[], None]:
    """Route calls of ``instance`` through ``interceptor(original, args, kwargs)``.

    Args:
        instance: the object; only ``instance(...)`` is routed, other methods are not.
        interceptor: receives the original bound call, so it may run it any number of times.
        owner: found again with :func:`owner_of`.

    Returns:
        The undo, which may be called more than once.
    """
    original: Any = type(instance)

    def call(self: object, *args: Any, **kwargs: Any) -> Any:
        return interceptor(original.__call__.__get__(self), args, kwargs)

    # Name and module stay those of the original: diffusers finds classes by them (save_pretrained, from_pipe).
    attributes = {
        "__call__": call,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "_deradiff_owner": owner,
    }
    intercepted = type(original.__name__, (original,), attributes)
    instance.__class__ = intercepted  # pyright: ignore[reportAttributeAccessIssue]

    def undo() -> None:
        if type(instance) is intercepted:
            instance.__class__ = original

    return undo


def owner_of(instance: object) -> object | None:
    """The owner given to :func:`intercept`, or None where the object's calls are not intercepted."""
    return getattr(type(instance), "_deradiff_owner", None)
