"""The processes that train together, as ``accelerate launch``, ``torchrun`` or MPI started them."""

import os

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")


def join_processes() -> PartialState:
    """Join the processes that were started together; alone, a state of one process.

    accelerate joins processes without an accelerator only when it is told to use CPUs, and remembers the first state
    that was made, so every state comes from here.
    """
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def launcher_note() -> str | None:
    """What to say where a launcher was asked for several processes and started one; else None.

    ``accelerate launch --cpu --num_processes N`` sets the address at which N processes would meet, then starts one.
    """
    alone = "MASTER_ADDR" in os.environ and not any(rank in os.environ for rank in _RANKS)
    if not (alone and parse_flag_from_env("ACCELERATE_USE_CPU")):
        return None
    return (
        "accelerate's launcher starts one process on CPUs, whatever --num_processes says; to share the work among N, "
        "use torchrun --nproc_per_node N -m deradiff align ..."
    )
