"""Reversible surgery on an object's call: nothing of the object changes but its class.

Python looks ``__call__`` up on the class, so giving one instance a subclass of its own class routes ``instance(...)``
through us while ``forward``, its signature, its hooks (accelerate's offload, torch.compile) and its state dict stay
what they were, whichever was attached first.  Giving the class back is the exact undo.
"""

import functools
from collections.abc import Callable
from typing import Any

from deradiff.errors import RealignError

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

    @functools.wraps(original.__call__)  # callers read the signature
    def call(self: object, *args: Any, **kwargs: Any) -> Any:
        plain = original.__call__.__get__(self)
        # compiled code may hold on to this function after the undo
        return interceptor(plain, args, kwargs) if isinstance(self, intercepted) else plain(*args, **kwargs)

    def refuse_copy(self: object, *_: Any) -> Any:
        raise RealignError(f"a realigned {original.__name__} can't be copied or pickled; call handle.remove() first")

    def copy_shallow(self: Any) -> Any:
        duplicate = object.__new__(type(self))
        duplicate.__dict__.update(self.__dict__)
        return duplicate

    # Name and module stay those of the original: diffusers finds classes by them (save_pretrained, from_pipe).
    attributes = {
        "__call__": call,
        "__copy__": copy_shallow,
        # a deep copy would share the original's anchors and lam, but not its weights
        "__deepcopy__": refuse_copy,
        "__reduce_ex__": refuse_copy,
        "__module__": original.__module__,
        "__qualname__": original.__qualname__,
        "__doc__": original.__doc__,
        "_deradiff_owner": owner,
    }
    intercepted: Any = _metaclass(original)(original.__name__, (original,), attributes)
    object.__setattr__(instance, "__class__", intercepted)  # a compiled module's own __setattr__ would pass it on

    def undo() -> None:
        if type(instance) is intercepted:
            object.__setattr__(instance, "__class__", original)

    return undo


def _metaclass(original: type) -> type:
    """Of classes that equal ``original``: from_pipe takes components whose very type a signature names."""

    class Alike(type(original)):
        def __eq__(cls, other: object) -> bool:
            return cls is other or other is original

        def __hash__(cls) -> int:
            return hash(original)

    return Alike


def owner_of(instance: object) -> object | None:
    """The owner given to :func:`intercept`, or None where the object's calls are not intercepted."""
    return getattr(type(instance), "_deradiff_owner", None)
