"""Pushing: what is uploaded and what isn't; huggingface_hub's client is replaced by one that records."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from deradiff.errors import HubError
from deradiff.hub import create_repository, push

from .recorder import TOKEN, TOKENS, Recorder
from .recorder import hub as hub


def test_weights_cards_and_configs_are_pushed_and_nothing_else(hub: Recorder, tmp_path: Path) -> None:
    pushed = [
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "deradiff.json"),
        *("scheduler/scheduler_config.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"),
    ]
    kept = ["checkpoint.pt", "log.jsonl", "bake.html", "cache/a/x.safetensors", "pairs/image.png", ".writing/config.py"]
    for name in [*pushed, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("content")
    (tmp_path / "linked.safetensors").symlink_to(tmp_path / "log.jsonl")
    assert push(tmp_path, "org/name") == "https://huggingface.co/org/name"
    [(kind, settings)] = hub.calls
    assert kind == "upload_folder"
    assert settings["folder_path"] == tmp_path
    assert sorted(settings["allow_patterns"]) == sorted(pushed)


def test_a_folder_without_weights_is_not_pushed(hub: Recorder, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("content")
    with pytest.raises(HubError, match="no weights to push"):
        push(tmp_path, "org/name")
    assert hub.calls == []


def test_a_repository_is_made_once_with_the_privacy_that_is_asked_for(hub: Recorder) -> None:
    create_repository("org/name", private=True)
    assert hub.calls == [("create_repo", {"name": "org/name", "private": True, "exist_ok": True})]
    hub.private = False
    create_repository("org/name")
    assert hub.calls[-1] == ("create_repo", {"name": "org/name", "private": None, "exist_ok": True})
    with pytest.raises(HubError, match="is there already and public"):
        create_repository("org/name", private=True)


@pytest.mark.parametrize("name", ["name", "a/b/c", "org/na me", "", "../x", "https://huggingface.co/org/name"])
def test_a_wrong_name_asks_nobody(hub: Recorder, name: str) -> None:
    with pytest.raises(HubError, match="expected ORG/NAME"):
        create_repository(name)
    assert hub.calls == []


def test_without_a_token_nobody_is_asked(hub: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TOKENS, lambda: None)
    with pytest.raises(HubError, match="set HF_TOKEN, or run hf auth login"):
        create_repository("org/name")
    assert hub.calls == []


def refused() -> HfHubHTTPError:
    response: Any = SimpleNamespace(status_code=403, headers={}, request=None)
    return HfHubHTTPError(f"403 for {TOKEN}", response=response)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refused(), "refused org/name .status 403."),
        (HTTPError(f"no route with {TOKEN}"), "can't be reached .HTTPError.*push again later"),
        (OfflineModeIsEnabled("offline"), "can't be reached"),
        (RuntimeError(f"CAS service error for {TOKEN}"), "CAS service error for hf_.*HF_HUB_DISABLE_XET=1"),
        (FileNotFoundError(2, "No such file or directory", "a.safetensors"), "can't be pushed to .No such file"),
    ],
)
def test_what_goes_wrong_is_one_sentence_without_the_token(
    hub: Recorder, tmp_path: Path, error: Exception, expected: str
) -> None:
    hub.error = error
    (tmp_path / "a.safetensors").write_text("content")
    for attempt in (lambda: create_repository("org/name"), lambda: push(tmp_path, "org/name")):
        with pytest.raises(HubError, match=expected) as raised:
            attempt()
        assert TOKEN not in str(raised.value)
