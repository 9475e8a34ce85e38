"""A hub to push to, over HTTP: huggingface_hub's own client talks to it; what is committed can be downloaded again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.hub.recorder import TOKEN
from tests.realignment.hub import COMMIT, Hub


@dataclass
class Pushed:
    """What a hub has been given.

    Attributes:
        address: of the hub.
        folder: of its repositories.
        repositories: by name.
        private: names of those that only their owner sees.
        refused: a pattern of the addresses that are refused.
        refusal: the status and the reason that these answer with.
    """

    folder: Path
    address: str = ""
    repositories: dict[str, Path] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    blobs: dict[str, bytes] = field(default_factory=dict)
    refused: str = "$^"
    refusal: tuple[int, str] = (403, "Forbidden")

    def files(self, name: str) -> list[str]:
        """What was committed to a repository."""
        folder = self.repositories[name]
        return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


class PushHub(Hub):
    """Creates repositories, and takes commits, for those who have the token."""

    pushed: Pushed

    def do_GET(self) -> None:  # noqa: N802
        if self._is_allowed():
            super().do_GET()

    def do_HEAD(self) -> None:  # noqa: N802
        if self._is_allowed():
            super().do_HEAD()

    def do_POST(self) -> None:  # noqa: N802
        content = self.rfile.read(int(self.headers.get("Content-Length", 0))) or self._chunks()
        if not self._is_allowed():
            return
        if self.path == "/api/repos/create":
            self._create(json.loads(content))
        elif self.path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/main", self.path):
            self._preupload(json.loads(content))
        elif re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", self.path):
            self._batch(json.loads(content))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            self._commit(match[1], [json.loads(line) for line in content.splitlines()])
        else:
            self._send(404, b"{}")

    def do_PUT(self) -> None:  # noqa: N802
        content = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_allowed(token=False):  # the address itself is the permission
            self.pushed.blobs[hashlib.sha256(content).hexdigest()] = content
            self._send(200, b"")

    def _is_allowed(self, *, token: bool = True) -> bool:
        if token and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._send(401, b'{"error":"Invalid credentials"}')
        elif re.search(self.pushed.refused, self.path):
            status, reason = self.pushed.refusal
            self._send(status, json.dumps({"error": reason}).encode(), {"Content-Type": "application/json"})
        else:
            return True
        return False

    def _chunks(self) -> bytes:
        content = b""
        while self.headers["Transfer-Encoding"] == "chunked" and (size := int(self.rfile.readline(), 16)):
            content += self.rfile.read(size)
            self.rfile.readline()
        return content

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        address = {"url": f"{self.pushed.address}/{name}"}
        if name in self.pushed.repositories:
            return self._json(address, 409)
        self.pushed.repositories[name] = self.pushed.folder / name
        self.pushed.repositories[name].mkdir(parents=True)
        if asked.get("private") or asked.get("visibility") == "private":  # as clients of several ages say it
            self.pushed.private.add(name)
        return self._json(address)

    def _preupload(self, asked: dict[str, Any]) -> None:
        modes = {True: "lfs", False: "regular"}
        files = [
            {"path": file["path"], "uploadMode": modes[file["path"].endswith(".safetensors")], "shouldIgnore": False}
            for file in asked["files"]
        ]
        self._json({"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            one | {"actions": {"upload": {"href": f"{self.pushed.address}/lfs/{one['oid']}", "header": {}}}}
            for one in asked["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self._write(name, value["path"], base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                self._write(name, value["path"], self.pushed.blobs[value["oid"]])
        address = f"{self.pushed.address}/{name}/commit/{COMMIT}"
        self._json({"success": True, "commitUrl": address, "commitOid": COMMIT})

    def _write(self, name: str, path: str, content: bytes) -> None:
        file = self.pushed.repositories[name] / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def is_private(self, name: str) -> bool:
        return name in self.pushed.private

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


@contextmanager
def receiving(folder: Path) -> Iterator[Pushed]:
    """A hub that keeps what is pushed to it in a folder."""
    pushed = Pushed(folder)
    handler = type("OnePushHub", (PushHub,), {"pushed": pushed, "repositories": pushed.repositories, "fetched": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    pushed.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield pushed
    finally:
        server.shutdown()
        server.server_close()
