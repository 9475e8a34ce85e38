"""A ComfyUI checkout as a process, and its HTTP API."""

import json
import os
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

START_SECONDS, PROMPT_SECONDS = 300, 300


class ComfyUI:
    """Starts on ``__enter__`` with folders of its own, and ends on ``__exit__``."""

    def __init__(self, checkout: Path, python: Path, folder: Path) -> None:
        self.checkout, self.python, self.folder = checkout, python, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> "ComfyUI":
        port = self.url.rsplit(":", 1)[1]
        command = [str(self.python), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", port]
        command += ["--base-directory", str(self.folder), "--disable-auto-launch"]
        self._log = (self.folder / "server.log").open("w")
        environment = {**os.environ, "PYTHONPATH": ""}
        self._process = subprocess.Popen(
            command, cwd=self.checkout, stdout=self._log, stderr=self._log, env=environment
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                self.get("/system_stats")
            except (URLError, ConnectionError):
                time.sleep(0.5)
            else:
                return self
        self.__exit__()
        raise RuntimeError("ComfyUI did not start:\n" + (self.folder / "server.log").read_text()[-4000:])

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def get(self, path: str) -> Any:
        with urlopen(self.url + path, timeout=30) as response:
            return json.load(response)

    def run(self, prompt: dict[str, Any]) -> dict[str, list[Path]]:
        """Runs a prompt (ComfyUI's API format); the files that each output node wrote, by the node's id.

        Raises:
            RuntimeError: the prompt was refused, or a node raised; the message is the node's.
        """
        body = json.dumps({"prompt": prompt, "client_id": uuid.uuid4().hex}).encode()
        try:
            with urlopen(Request(self.url + "/prompt", body), timeout=60) as response:
                prompt_id = json.load(response)["prompt_id"]
        except HTTPError as error:
            raise RuntimeError(error.read().decode()) from None
        deadline = time.monotonic() + PROMPT_SECONDS
        while not (history := self.get(f"/history/{prompt_id}")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no end after {PROMPT_SECONDS} s")
            time.sleep(0.1)
        entry = history[prompt_id]
        for kind, message in entry["status"]["messages"]:
            if kind == "execution_error":
                raise RuntimeError(f"{message['node_type']}: {message['exception_message']}")
        return {node: self._files(outputs) for node, outputs in entry["outputs"].items()}

    def _files(self, outputs: dict[str, Any]) -> list[Path]:
        entries = [entry for group in outputs.values() for entry in group if isinstance(entry, dict)]
        return [self.folder / "output" / entry["subfolder"] / entry["filename"] for entry in entries]
