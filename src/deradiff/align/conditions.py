"""What a pipeline tells its denoiser of a prompt, captured from the pipeline itself.

The pipeline is run up to the first call of its denoiser, and that call is kept: embeddings, pooled ones, sizes,
positions, embedded guidance, whatever it is. Training repeats the call with other samples and times. So nothing here
knows a family of pipelines, and what is trained is what will be sampled.
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

_ROWS = 3  # of the captured call: tells what has one entry a row
_TIMES = ("timestep", "timesteps", "t", "timestep_ratio")


@dataclass(frozen=True)
class Condition:
    """A denoiser's call for one prompt.

    Attributes:
        args: of the call, with ``_ROWS`` equal rows; the sample first, or first of ``kwargs``.
        kwargs: of the call.
        shape: of one sample, without its row.
        time_scale: the timestep given to the denoiser as a share of the scheduler's.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    time_scale: float

    @property
    def form(self) -> str:
        """Equal for conditions that fit into one batch."""
        return repr(map_tensors([self.args, self.kwargs], lambda tensor: tensor.shape))


def call(denoiser: Any, conditions: Sequence[Condition], sample: Tensor, timestep: Tensor) -> Tensor:
    """The denoiser's predictions, (B, ...), for N prompts.

    Args:
        denoiser: the network.
        conditions: N of them; those of one form share a batch.
        sample: (B, ...), B / N rows a prompt.
        timestep: (B,), the scheduler's.
    """
    each, groups = len(sample) // len(conditions), dict[str, list[int]]()
    for place, condition in enumerate(conditions):
        groups.setdefault(condition.form, []).append(place)
    made: dict[int, Tensor] = {}
    for places in groups.values():
        rows = torch.cat([torch.arange(place * each, (place + 1) * each) for place in places]).to(sample.device)
        output = single(_call(denoiser, [conditions[place] for place in places], sample[rows], timestep[rows]))
        made |= zip(places, output.split(each), strict=True)
    return torch.cat([made[place] for place in range(len(conditions))])


def _call(denoiser: Any, conditions: Sequence[Condition], sample: Tensor, timestep: Tensor) -> Any:
    each = len(sample) // len(conditions)
    args, kwargs = (
        _to(_merged([getattr(condition, part) for condition in conditions], each), sample)
        for part in ("args", "kwargs")
    )
    times = timestep * conditions[0].time_scale
    named = [name for name in _TIMES if name in kwargs]
    kwargs |= dict.fromkeys(named, times)
    if args:
        args = (sample, *args[1:]) if named else (sample, times, *args[2:])
    else:
        kwargs[next(iter(kwargs))] = sample
    return denoiser(*args, **kwargs)


class _Captured(BaseException):  # no pipeline catches it
    pass


def capture(pipe: Any, denoiser: nn.Module, prompt: str, **settings: Any) -> Condition:
    """The denoiser's call for a prompt, without classifier-free guidance.

    Args:
        pipe: the pipeline.
        denoiser: one of its components.
        prompt: what the image shows.
        settings: of the pipeline's call, such as ``height``; those that are None are left out.

    Raises:
        AlignError: the pipeline can't be run so, or calls its denoiser in a way that can't be repeated.
    """
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def keep(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen.append((args, kwargs))
        raise _Captured

    given = {"guidance_scale": 1.0, "output_type": "latent", "num_inference_steps": 2}
    given |= {name: value for name, value in settings.items() if value is not None}
    taken = inspect.signature(type(pipe).__call__).parameters
    if "prompt" not in taken:
        raise AlignError(f"{type(pipe).__name__} takes no prompt; expected a pipeline that draws images from text")
    undo = intercept(denoiser, keep, keep)
    try:
        pipe(prompt=[prompt] * _ROWS, **{name: value for name, value in given.items() if name in taken})
    except _Captured:
        pass
    finally:
        undo()
    if not seen:
        raise AlignError(f"{type(pipe).__name__} never called its {type(denoiser).__name__}; name it with component")
    return _condition(pipe, *seen[0])


def _condition(pipe: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Condition:
    sample = DenoiserInputs(pipe, args, kwargs).sample
    if not isinstance(sample, Tensor) or len(sample) != _ROWS:
        raise AlignError(
            f"{type(pipe).__name__} gives its denoiser {type(sample).__name__} samples in a batch that isn't one row "
            "an image, so its call can't be repeated in training"
        )
    time = next((kwargs[name] for name in _TIMES if name in kwargs), args[1] if len(args) > 1 else None)
    told, own = float(torch.as_tensor(time).flatten()[0]), float(pipe.scheduler.timesteps[0])
    scales = [scale for scale in (1.0, 1 / float(pipe.scheduler.config.num_train_timesteps)) if _near(told, own, scale)]
    if not scales:
        raise AlignError(
            f"{type(pipe).__name__} tells its denoiser time {told:g} at the scheduler's {own:g}: not known"
        )
    kept = map_tensors([args, kwargs], _kept)
    return Condition(tuple(kept[0]), kept[1], tuple(sample.shape[1:]), scales[0])


def _kept(tensor: Tensor) -> Tensor:
    """On the CPU; equal rows share the memory of one, on disk too."""
    if tensor.ndim and len(tensor) == _ROWS:
        return tensor[:1].detach().cpu().clone().expand_as(tensor)
    return tensor.detach().cpu()


def _near(told: float, own: float, scale: float) -> bool:
    return abs(told - own * scale) <= 0.01 * own * scale


def _merged(values: Sequence[Any], each: int) -> Any:
    """Captured calls as one with ``each`` rows of everyone; what isn't of rows is the same in all."""
    first = values[0]
    if isinstance(first, Tensor):
        of_rows = first.ndim and len(first) == _ROWS
        return torch.cat([value[:1] for value in values]).repeat_interleave(each, 0) if of_rows else first
    if isinstance(first, list):
        if len(first) == _ROWS and not any(isinstance(item, Tensor) for item in first):
            return [value[0] for value in values for _ in range(each)]
        return [_merged(items, each) for items in zip(*values, strict=True)]
    if type(first) is tuple:
        return tuple(_merged(items, each) for items in zip(*values, strict=True))
    if type(first) is dict:
        return {key: _merged([value[key] for value in values], each) for key in first}
    return first


def _to(value: Any, like: Tensor) -> Any:
    def moved(tensor: Tensor) -> Tensor:
        return tensor.to(like.device, like.dtype if tensor.is_floating_point() else None)

    return map_tensors(value, moved)
