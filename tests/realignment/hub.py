"""A small server that speaks as much of the hub's protocol as downloads need, over folders of this machine."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from diffusers.loaders import lora_base
from diffusers.utils import hub_utils
from huggingface_hub import constants, hf_api

COMMIT = "a" * 40


class Hub(BaseHTTPRequestHandler):
    """Repositories by name; only the revision main, and what tests call v2."""

    repositories: Mapping[str, Path] = {}
    fetched: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(self.path.split("?")[0])
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/[^/]+", path):
            self._tree(self.repositories[match[1]])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[3], body=body)
        else:
            self._send(404, b"{}")

    def _info(self, name: str, revision: str) -> None:
        folder = self.repositories.get(name)
        if folder is None:
            return self._send(404, b'{"error":"Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        if revision not in ("main", "v2", COMMIT):
            return self._send(404, b'{"error":"Revision not found"}', {"X-Error-Code": "RevisionNotFound"})
        files = [{"rfilename": p.relative_to(folder).as_posix()} for p in sorted(folder.rglob("*")) if p.is_file()]
        private = self.is_private(name)
        info = {"id": name, "modelId": name, "sha": COMMIT, "siblings": files, "private": private, "tags": []}
        return self._send(200, json.dumps(info).encode())

    def is_private(self, name: str) -> bool:
        return False

    def _tree(self, folder: Path) -> None:
        files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
        entries = [
            {"type": "file", "path": p.relative_to(folder).as_posix(), "size": p.stat().st_size, "oid": "0" * 40}
            for p in files
        ]
        self._send(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, file: str, *, body: bool) -> None:
        path = self.repositories[name] / file
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        if body:
            self.fetched.append(file)
        return self._send(200, content if body else b"", {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, len(content))

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] = {}, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(repositories: Mapping[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """The server's address, and the names of the files fetched so far."""
    fetched: list[str] = []
    handler = type("OneHub", (Hub,), {"repositories": repositories, "fetched": fetched})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fetched
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def connected(address: str, cache: Path) -> Iterator[None]:
    """Inside the block huggingface_hub knows that hub alone, and keeps what it downloads in an empty cache.

    A new process with ``HF_ENDPOINT`` and ``HF_HOME`` would import torch and diffusers again, which takes ten seconds.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        patched.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patched.setattr(hf_api.api, "endpoint", address)
        patched.setattr(constants, "HF_HUB_CACHE", str(cache))
        patched.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for module in (constants, lora_base, hub_utils):
            patched.setattr(module, "HF_HUB_OFFLINE", False)
        yield
