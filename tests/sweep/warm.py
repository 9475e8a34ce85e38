"""Imported by a forkserver alone: a sweep, so that its children find everything imported, lazy modules too."""

import tempfile
from pathlib import Path

import torch
from tests.sweep.subject import make_plan, save_models, sweep

torch.set_num_threads(1)  # the threads of a parent don't outlive a fork
with tempfile.TemporaryDirectory() as root:
    sweep(Path(root) / "run", make_plan(save_models(Path(root)), seeds=[0], steps=1))
