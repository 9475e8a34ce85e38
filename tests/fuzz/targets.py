"""Every reader and grammar, with valid bytes to begin from."""

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import typer
from PIL import Image
from safetensors.torch import save as to_safetensors
from tests.fuzz.legacy import JOURNAL, PLAN, SCORES
from tests.runs.painted import painted
from typer import Context

from deradiff import tables
from deradiff.align.checkpoint import load_checkpoint
from deradiff.align.pairs import read_pairs
from deradiff.anchor.lora import read_tensors
from deradiff.anchor.source import card_of, resolve_anchor
from deradiff.cli import parsing
from deradiff.cli.commands import app
from deradiff.cli.config import read_config
from deradiff.compare.run import read_comparison
from deradiff.errors import RunFolderError
from deradiff.reading import decode_image
from deradiff.results import RewardInfo
from deradiff.rewards import load_reward, reward_name
from deradiff.runs.cells import Request
from deradiff.runs.fingerprint import fingerprint
from deradiff.runs.legacy import open_run_folder
from deradiff.runs.prompts import read_prompts
from deradiff.runs.provenance import read_provenance
from deradiff.runs.records import ScoreRecord
from deradiff.runs.results import journalled_images, load_results
from deradiff.runs.store import Store
from deradiff.search.state import SearchState, read_state


@dataclass(frozen=True)
class Target:
    """What reads bytes.

    Attributes:
        read: them, in a folder that is its own; what it raises is what is tested.
        seeds: valid bytes.
        is_json: whether they are JSON, or lines of it.
    """

    read: Callable[[bytes, Path], object]
    seeds: Sequence[bytes]
    is_json: bool = False


@contextmanager
def targets() -> Iterator[dict[str, Target]]:
    """All targets by name, on a run that is made for them."""
    with TemporaryDirectory() as folder:
        yield {**_files(), **_records(Path(folder)), **_models(Path(folder)), **_grammars()}


def _files() -> dict[str, Target]:
    lines = json.dumps({"prompt": "a cat", "chosen": "a.png", "rejected": "b.png", "probability": 0.8}).encode()
    return {
        "csv": Target(_table(".csv"), [b'prompt,seed\n"a cat, red",1\n', b"prompt\na cat\n"]),
        "tsv": Target(_table(".tsv"), [b"prompt\tseed\na cat\t1\n"]),
        "txt": Target(_table(".txt"), [b"a cat\na dog\n"]),
        "jsonl": Target(_table(".jsonl"), [b'{"prompt": "a cat"}\n{"prompt": "a dog"}\n'], True),
        "parquet": Target(_table(".parquet"), [_parquet()]),
        "arrow": Target(_table(".arrow"), [_arrow()]),
        "prompts": Target(_prompts, [b'{"prompt": "a cat"}\n{"prompt": "a dog"}\n'], True),
        "preferences": Target(_preferences, [lines], True),
        "config": Target(_config, [b"steps: 50\nprompts: a.txt\n", b"rewards: [a, b]\nseeds: &a 2\nsteps: *a\n"]),
    }


def _table(ending: str) -> Callable[[bytes, Path], object]:
    def read(content: bytes, folder: Path) -> None:
        file = _write(folder / f"t{ending}", content)
        names = tables.columns(file)
        list(tables.rows(file, names[:1]))
        if ending in (".parquet", ".arrow") and names:
            tables.cell(file, 0, names[0])

    return read


def _prompts(content: bytes, folder: Path) -> None:
    Request(prompts=read_prompts(_write(folder / "p.jsonl", content)), seeds=[0], lams=[0])


def _preferences(content: bytes, folder: Path) -> None:
    for value, name in enumerate("ab"):
        if not (folder / f"{name}.png").exists():
            _write(folder / f"{name}.png", _png(value))
    read_pairs(_write(folder / "p.jsonl", content))


@cache
def _command() -> Any:
    command: Any = typer.main.get_command(app)
    return command.commands["compare"]


def _config(content: bytes, folder: Path) -> None:
    read_config(Context(_command()), _write(folder / "c.yaml", content))


def _parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["a cat", None]}), file)
    return file.getvalue()


def _arrow() -> bytes:
    file, table = io.BytesIO(), pa.table({"prompt": ["a cat", None]})
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def _records(folder: Path) -> dict[str, Target]:
    store = painted(folder / "run", prompts=["one", "two"], seeds=[0], lams=[0, 1])
    images = list(journalled_images(store).values())
    with store.scoring() as writer:
        writer.append(
            ScoreRecord(
                reward="r",
                info=RewardInfo(margin=0.1),
                keys=tuple(image.key for image in images),
                sha256=tuple(image.sha256 for image in images),
                scores=(1.0, None, 2.0, 3.0),
                varies="seed",
                groups=("a",) * 4,
            )
        )
    state = SearchState(max_lam=1, prompts=("one",), seeds=(0,)).model_dump_json().encode()

    def whole(name: str) -> Callable[[bytes, Path], object]:
        def read(content: bytes, scratch: Path) -> None:
            before = (store.folder / name).read_bytes()
            (store.folder / name).write_bytes(content)
            try:
                found = Store.open(store.folder)
                found.index()
                load_results(found, partly=True)
            finally:
                (store.folder / name).write_bytes(before)

        return read

    def seed(name: str) -> list[bytes]:
        return [(store.folder / name).read_bytes()]

    def old(name: str) -> Callable[[bytes, Path], object]:
        def read(content: bytes, scratch: Path) -> None:
            run = scratch / "old"
            for file, valid in (("plan.json", PLAN), ("journal.jsonl", JOURNAL), ("scores.jsonl", SCORES)):
                _write(run / file, content if file == name else valid)
            try:
                load_results(open_run_folder(run), partly=True)
            finally:
                shutil.rmtree(run)

        return read

    environment = json.dumps({"made_on": [{"python": "3"}]}).encode()
    names = {"run": "run.json", "cells": "cells.jsonl", "scores": "rewards.jsonl", "requests": "requests.jsonl"}
    legacy = {"plan.json": PLAN, "journal.jsonl": JOURNAL, "scores.jsonl": SCORES}
    return {
        **{name: Target(whole(file), seed(file), True) for name, file in names.items()},
        **{f"legacy-{name.partition('.')[0]}": Target(old(name), [valid], True) for name, valid in legacy.items()},
        "environment": Target(
            lambda content, scratch: read_provenance(_write(scratch / "environment.json", content).parent),
            [environment],
            True,
        ),
        "search": Target(
            lambda content, scratch: read_state(_write(scratch / "search.json", content).parent), [state], True
        ),
        "png": Target(
            lambda content, scratch: decode_image(content, "it", RunFolderError),
            [next(store.folder.rglob("*.png")).read_bytes(), _png()],
        ),
    }


def _png(value: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("P", (9, 3), value).save(file, "PNG", optimize=True)
    return file.getvalue()


def _models(folder: Path) -> dict[str, Target]:
    layer = {f"unet.x.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    lora = to_safetensors(layer, {"deradiff": '{"beta": 0.1}', "lora_adapter_metadata": '{"unet.r": 2}'})
    comparison = {
        "anchors": [{"beta": 0.1, "seed": 0, "convention": {}, "name": "a"}],
        "scratch": [{"beta": 0.2, "seed": 0, "convention": {}, "name": "b"}],
        "schedulers": [None],
        "optimum": 0,
        "recipe": {"model": "m"},
        "request": {"prompts": ["one"], "seeds": [0], "lams": [0]},
    }
    state = {name: {} for name in ("settings", "trained", "optimizer", "rate")} | {
        "ema": None,
        "scaler": None,
        "step": 1,
    }
    checkpoint = io.BytesIO()
    torch.save(state, checkpoint)

    def read_lora(content: bytes, scratch: Path) -> None:
        path = _write(scratch / f"{sha256(content).hexdigest()[:8]}.safetensors", content)
        try:
            resolve_anchor(path, ["unet"])
            read_tensors(path)
            fingerprint(str(path))
        finally:
            path.unlink()

    def read_fingerprint(content: bytes, scratch: Path) -> None:
        fingerprint(str(_write(scratch / "model" / "x.safetensors", content).parent))

    def read_card(content: bytes, scratch: Path) -> None:
        _write(scratch / "anchor" / "pytorch_lora_weights.safetensors", lora)
        _write(scratch / "anchor" / "pytorch_lora_weights.deradiff.json", content)
        card_of(scratch / "anchor")

    def read_network(content: bytes, scratch: Path) -> None:
        folder = _write(scratch / "network" / "config.json", content).parent
        fingerprint(str(folder))

    return {
        "lora": Target(read_lora, [lora]),
        "weights": Target(read_fingerprint, [lora]),
        "card": Target(read_card, [b'{"beta": 0.1, "seed": 1}'], True),
        "network": Target(read_network, [b'{"_class_name": "UNet2DConditionModel", "in_channels": 4}'], True),
        "comparison": Target(
            lambda content, scratch: read_comparison(_write(scratch / "compare.json", content)),
            [json.dumps(comparison).encode()],
            True,
        ),
        "checkpoint": Target(
            lambda content, scratch: load_checkpoint(_write(scratch / "checkpoint.pt", content).parent, {}),
            [checkpoint.getvalue()],
        ),
    }


def _grammars() -> dict[str, Target]:
    def grammar(parse: Callable[[str], object], *seeds: str) -> Target:
        return Target(
            lambda content, folder: parse(content.decode("utf-8", "surrogateescape")), [seed.encode() for seed in seeds]
        )

    return {
        "lams": grammar(parsing.parse_numbers, "0,0.5,1", "0:2:9", "-1,0:1:3"),
        "betas": grammar(lambda text: parsing.lams_for_betas(text, 0.1), "500,1000", "0.1"),
        "share": grammar(parsing.parse_share, "1%", "0.01"),
        "shard": grammar(parsing.parse_shard, "1/4"),
        "guards": grammar(parsing.parse_guards, "hps,clip:-0.5%,edges:±10%", "http://u:p@h:1/s?q=1:-1%", "m:f:-1e-3"),
        "criteria": grammar(lambda text: parsing.parse_criteria(text, "g:-1%"), "hps", "a,b"),
        "private": grammar(lambda text: parsing.private_urls(text, text), "http://u:p@h:1/s?q=1"),
        "reward": grammar(lambda text: (reward_name(text), load_reward(text)), "saturation", "math:sqrt", "http://h/s"),
        "seeds": grammar(lambda text: Request(prompts=[text], seeds=[text], lams=[text]), "1"),
    }


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path
