"""The inputs of a denoiser for a prompt, captured from the pipeline itself.

The pipeline runs up to the first call of its denoiser, and `capture_inputs` keeps the arguments of that call:
embeddings, pooled embeddings, sizes, positions, embedded guidance and so on. Training repeats the call with other
samples and timesteps. Nothing here depends on a pipeline family, and training sees the inputs that sampling will see.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deradiff.acceleration.cells import single
from deradiff.anchor.inputs import DenoiserInputs, map_tensors
from deradiff.errors import AlignError
from deradiff.realignment.intercept import intercept

_ROWS = 3  # batch size of the captured call: identifies arguments with one entry for each row
_TIMES = ("timestep", "timesteps", "t", "timestep_ratio")


@dataclass(frozen=True)
class CapturedInputs:
    """The arguments of a denoiser's call for one prompt.

    Attributes:
        args: positional arguments, with ``_ROWS`` equal rows; the sample comes first, here or in ``kwargs``.
        kwargs: keyword arguments, likewise.
        shape: of one sample, without the batch dimension.
        time_scale: the denoiser's timestep divided by the scheduler's.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    time_scale: float

    @property
    def batch_key(self) -> str:
        """Equal for inputs that can share a batch."""
        return repr(map_tensors([self.args, self.kwargs], lambda tensor: tensor.shape))


def call_denoiser(denoiser: Any, inputs: Sequence[CapturedInputs], sample: Tensor, timestep: Tensor) -> Tensor:
    """The denoiser's predictions for N prompts, ``[batch, ...]``.

    Args:
        denoiser: the network.
        inputs: of the N prompts; those with one ``batch_key`` share a batch.
        sample: ``[batch, ...]``, batch / N rows for each prompt.
        timestep: the scheduler's, ``[batch]``.
    """
    repeats, groups = len(sample) // len(inputs), dict[str, list[int]]()
    for index, one in enumerate(inputs):
        groups.setdefault(one.batch_key, []).append(index)
    outputs: dict[int, Tensor] = {}
    for indices in groups.values():
        rows = torch.cat([torch.arange(index * repeats, (index + 1) * repeats) for index in indices]).to(sample.device)
        output = single(_call_batch(denoiser, [inputs[index] for index in indices], sample[rows], timestep[rows]))
        outputs |= zip(indices, output.split(repeats), strict=True)
    return torch.cat([outputs[index] for index in range(len(inputs))])


def _call_batch(denoiser: Any, inputs: Sequence[CapturedInputs], sample: Tensor, timestep: Tensor) -> Any:
    repeats = len(sample) // len(inputs)
    args, kwargs = (
        _move_to(_merge([getattr(one, part) for one in inputs], repeats), sample) for part in ("args", "kwargs")
    )
    times = timestep * inputs[0].time_scale
    named = [name for name in _TIMES if name in kwargs]
    kwargs |= dict.fromkeys(named, times)
    if args:
        args = (sample, *args[1:]) if named else (sample, times, *args[2:])
    else:
        kwargs[next(iter(kwargs))] = sample
    return denoiser(*args, **kwargs)


class _Captured(BaseException):  # not an Exception, which a pipeline might catch
    pass


def capture_inputs(pipe: Any, denoiser: nn.Module, prompt: str, **settings: Any) -> CapturedInputs:
    """Capture the denoiser's inputs for a prompt, without classifier-free guidance.

    Args:
        pipe: the pipeline.
        denoiser: one of its components.
        prompt: a text.
        settings: arguments of the pipeline's call, such as ``height``; None leaves an argument out.

    Raises:
        AlignError: the pipeline takes no prompt, or training can't repeat the call of its denoiser.
    """
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        calls.append((args, kwargs))
        raise _Captured

    arguments = {"guidance_scale": 1.0, "output_type": "latent", "num_inference_steps": 2}
    arguments |= {name: value for name, value in settings.items() if value is not None}
    parameters = inspect.signature(type(pipe).__call__).parameters
    if "prompt" not in parameters:
        raise AlignError(f"{type(pipe).__name__} takes no prompt; expected a text-to-image pipeline")
    undo = intercept(denoiser, keep, keep)
    try:
        pipe(prompt=[prompt] * _ROWS, **{name: value for name, value in arguments.items() if name in parameters})
    except _Captured:
        pass
    finally:
        undo()
    if not calls:
        raise AlignError(f"{type(pipe).__name__} never called its {type(denoiser).__name__}; name it with component")
    return _make_inputs(pipe, *calls[0])


def _make_inputs(pipe: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CapturedInputs:
    sample = DenoiserInputs(pipe, args, kwargs).sample
    if not isinstance(sample, Tensor) or len(sample) != _ROWS:
        raise AlignError(
            f"{type(pipe).__name__} calls its denoiser with {type(sample).__name__} samples in a batch that isn't "
            "one row for each image, so training can't repeat the call"
        )
    time = next((kwargs[name] for name in _TIMES if name in kwargs), args[1] if len(args) > 1 else None)
    passed, expected = float(torch.as_tensor(time).flatten()[0]), float(pipe.scheduler.timesteps[0])
    known_scales = (1.0, 1 / float(pipe.scheduler.config.num_train_timesteps))
    scales = [scale for scale in known_scales if abs(passed - expected * scale) <= 0.01 * expected * scale]
    if not scales:
        raise AlignError(
            f"{type(pipe).__name__} passes its denoiser the time {passed:g} at the scheduler's {expected:g}; this "
            "scale is not known"
        )
    stored = map_tensors([args, kwargs], _to_storage)
    return CapturedInputs(tuple(stored[0]), stored[1], tuple(sample.shape[1:]), scales[0])


def _to_storage(tensor: Tensor) -> Tensor:
    """A tensor on the CPU whose equal rows share the memory of one, also on disk."""
    if tensor.ndim and len(tensor) == _ROWS:
        return tensor[:1].detach().cpu().clone().expand_as(tensor)
    return tensor.detach().cpu()


def _merge(values: Sequence[Any], repeats: int) -> Any:
    """One argument of several captured calls, with ``repeats`` rows of each; the first call's if it has no rows."""
    first = values[0]
    if isinstance(first, Tensor):
        has_rows = first.ndim and len(first) == _ROWS
        return torch.cat([value[:1] for value in values]).repeat_interleave(repeats, 0) if has_rows else first
    if isinstance(first, list):
        if len(first) == _ROWS and not any(isinstance(item, Tensor) for item in first):
            return [value[0] for value in values for _ in range(repeats)]
        return [_merge(items, repeats) for items in zip(*values, strict=True)]
    if type(first) is tuple:
        return tuple(_merge(items, repeats) for items in zip(*values, strict=True))
    if type(first) is dict:
        return {key: _merge([value[key] for value in values], repeats) for key in first}
    return first


def _move_to(value: Any, like: Tensor) -> Any:
    def move(tensor: Tensor) -> Tensor:
        return tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)

    return map_tensors(value, move)
