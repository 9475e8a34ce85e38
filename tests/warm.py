"""Imported by a forkserver alone: it samples and trains once, so that its children find every module imported."""

import tempfile
import threading
from pathlib import Path

import torch
from tests.align.trainings import pipeline, preferences, settings
from tests.runs.small_runs import AXES, recipe_of, save_models, sweep
from tqdm import tqdm

from deradiff.align import align

# tqdm's lock is shared by processes: one that is killed while it holds it would stop all that are forked later.
tqdm.set_lock(threading.RLock())
tqdm.monitor_interval = 0  # no thread that holds the lock at a fork

torch.set_num_threads(1)  # the threads of a parent don't outlive a fork
with tempfile.TemporaryDirectory() as root:
    sweep(Path(root) / "run", recipe_of(save_models(Path(root)), steps=1), [AXES])
    align(pipeline(), preferences(Path(root) / "pairs"), Path(root) / "trained", settings(steps=1), card={})
