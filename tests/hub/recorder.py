"""A client of the hub that records what it is asked, in place of huggingface_hub's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

TOKEN = "hf_secret"
API, TOKENS = "deradiff.hub.repository.HfApi", "deradiff.hub.repository.get_token"


class Recorder:
    """As HfApi, as far as it is used."""

    def __init__(self, *, private: bool = True, error: Exception | None = None) -> None:
        self.private, self.error = private, error
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __call__(self) -> Recorder:
        return self

    def create_repo(self, name: str, **settings: Any) -> None:
        self.calls.append(("create_repo", {"name": name} | settings))
        if self.error:
            raise self.error

    def model_info(self, name: str) -> Any:
        return SimpleNamespace(private=self.private)

    def upload_folder(self, **settings: Any) -> Any:
        self.calls.append(("upload_folder", settings))
        if self.error:
            raise self.error
        return SimpleNamespace(repo_url=f"https://huggingface.co/{settings['repo_id']}")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(API, recorder)
    monkeypatch.setattr(TOKENS, lambda: TOKEN)
    return recorder
