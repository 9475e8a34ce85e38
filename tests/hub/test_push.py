"""huggingface_hub's own client pushes over HTTP, and what was pushed is an anchor again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub import snapshot_download
from tests.cli.shell import mistaken
from tests.hub.recorder import TOKEN
from tests.hub.server import Pushed, receiving

from deradiff import testbed
from deradiff.anchor.source import card_of
from deradiff.errors import HubError
from deradiff.hub import create_repository, push

NAME = "org/name"
WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pushed]:
    with receiving(tmp_path / "hub") as pushed:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", pushed.address)
        files = f"{pushed.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield pushed


@pytest.fixture
def anchor(tmp_path: Path) -> Path:
    """As align leaves it."""
    folder = tmp_path / "anchor"
    shutil.copytree(testbed.anchor_path("warmth-beta0.05-seed0"), folder)
    (folder / "README.md").write_text("---\ntags: [lora]\n---\n# An anchor\n")
    (folder / "checkpoint.pt").write_bytes(b"the state of a training")
    return folder


def test_what_was_pushed_is_an_anchor_whose_beta_is_known(hub: Pushed, anchor: Path, tmp_path: Path) -> None:
    create_repository(NAME, private=True)
    assert hub.private == {NAME}
    assert push(anchor, NAME) == f"{hub.address}/{NAME}"
    assert hub.files(NAME) == ["README.md", WEIGHTS]
    assert (hub.repositories[NAME] / WEIGHTS).read_bytes() == (anchor / WEIGHTS).read_bytes()
    again = snapshot_download(NAME, endpoint=hub.address, token=TOKEN, cache_dir=tmp_path / "cache")
    assert card_of(again)["beta"] == card_of(anchor)["beta"] == 0.05
    push(anchor, NAME)  # the same once more
    assert hub.files(NAME) == ["README.md", WEIGHTS]


def test_a_public_repository_is_not_taken_for_a_private_one(hub: Pushed) -> None:
    create_repository(NAME)
    create_repository(NAME)
    assert hub.private == set()
    with pytest.raises(HubError, match="is there already and public"):
        create_repository(NAME, private=True)


def test_a_wrong_token_is_an_error_before_anything_is_made(
    hub: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    words = ["bake", "embedded", "--lam", "0.5", "--out", str(tmp_path / "baked"), "--push-to-hub", NAME]
    mistaken(*words, expected="status 401")
    assert hub.repositories == {}
    assert not (tmp_path / "baked").exists()


@pytest.mark.parametrize(
    "refused", ["/preupload/", "/objects/batch", "/lfs/[0-9a-f]{64}", "/commit/", "/validate-yaml"]
)
def test_what_the_hub_does_not_take_is_not_half_pushed(hub: Pushed, anchor: Path, refused: str) -> None:
    create_repository(NAME)
    hub.refused = refused
    with pytest.raises(HubError, match=r"the hub refused org/name \(status 403: Forbidden") as raised:
        push(anchor, NAME)
    assert TOKEN not in str(raised.value)
    assert hub.files(NAME) == []
    hub.refused = "$^"
    push(anchor, NAME)
    assert hub.files(NAME) == ["README.md", WEIGHTS]


@pytest.mark.parametrize(
    ("status", "reason", "expected"),
    [
        (401, "Invalid username or password.", "the token isn't valid"),
        (403, "You don't have the rights to create a model under this namespace", "make one that has write access"),
        (403, "Private repository storage limit reached, please upgrade your plan", "no storage left: delete old"),
        (404, "Repository not found", "check the name"),
        (429, "You hit the quota of 1000 api requests per 5 minutes period", "wait for some minutes"),
        (500, "Internal Error", "push again later"),
    ],
)
def test_a_refusal_says_what_was_refused_why_and_what_to_do(
    hub: Pushed, anchor: Path, status: int, reason: str, expected: str
) -> None:
    create_repository(NAME)
    hub.refused, hub.refusal = "/commit/", (status, reason)
    with pytest.raises(HubError) as raised:
        push(anchor, NAME)
    message = str(raised.value)
    assert f"the hub refused org/name (status {status}: {reason}" in message
    assert expected in message
    assert "nothing on this machine is lost" in message
    assert "\n" not in message


def test_storage_that_fails_is_an_error_with_the_way_around_it(
    hub: Pushed, anchor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Xet is a protocol of its own: here its client gets no permission to write."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    create_repository(NAME)
    hub.refused = "/xet-write-token/"
    with pytest.raises(
        HubError, match=r"\(Xet\) didn't take the weights for org/name .*HF_HUB_DISABLE_XET=1"
    ) as raised:
        push(anchor, NAME)
    assert TOKEN not in str(raised.value)
    assert hub.files(NAME) == []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    push(anchor, NAME)
    assert hub.files(NAME) == ["README.md", WEIGHTS]
