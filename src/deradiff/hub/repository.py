"""Pushing weights and their model card to the hub, by huggingface_hub and its token."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from deradiff.errors import HubError, reason_of
from deradiff.hub.model_card import FILE

_FILES = (FILE, "adapter_config.json", "deradiff.json")
_REMEDIES = {  # by status
    401: "the token isn't valid, or no longer: set HF_TOKEN to another one, or run hf auth login",
    403: "the token may not write there: make one that has write access to this owner's repositories",
    404: "there is no such repository that the token can see: check the name, and that the repository wasn't deleted",
    429: "that was too often: wait for some minutes, and push again",
}
_CONFIGS = ("config.json", "scheduler_config.json")  # in the folders of a checkpoint


def create_repository(name: str, *, private: bool = False) -> None:
    """Create a repository for models, or check that the one that is there can be pushed to.

    Done before long work, so that what is wrong with name or token is known before it.

    Args:
        name: ``ORG/NAME``.
        private: whether it must be private; otherwise it is what the owner's new repositories are.

    Raises:
        HubError: no such name, no token, no right, no connection; or a public repository where a private one is wanted.
    """
    _check_name(name)
    if get_token() is None:
        raise HubError(f"no token to push to {name} with: set HF_TOKEN, or run hf auth login")
    with _push_errors(name):
        api = HfApi()
        api.create_repo(name, private=private or None, exist_ok=True)  # None: what the owner's default is
        public = private and not api.model_info(name).private
    if public:  # create_repo leaves one that is there as it is
        raise HubError(f"{name} is there already and public; make it private in its settings, or leave --private out")


def push(folder: Path, name: str) -> str:
    """Push weights, card and configs of a folder, and nothing else in it; returns the repository's address.

    Args:
        folder: of `deradiff.align.align` or `deradiff.bake.bake`.
        name: of a repository that is there.

    Raises:
        HubError: nothing to push, or as `create_repository`.
    """
    _check_name(name)
    files = pushed_files(folder)
    if not any(file.endswith(".safetensors") for file in files):
        raise HubError(f"{folder} holds no weights to push; expected an anchor or a bake")
    with _push_errors(name):
        commit = HfApi().upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=files, commit_message="Weights and card by deradiff"
        )
    return str(commit.repo_url)


def pushed_files(folder: Path) -> list[str]:
    """Paths in a folder that `push` uploads: weights, cards and a checkpoint's parts; no caches, images or states."""
    parts = [
        part
        for part in sorted(folder.iterdir())
        if part.is_dir() and not part.is_symlink() and any((part / name).is_file() for name in _CONFIGS)
    ]
    files = [file for file in sorted(folder.iterdir()) if file.suffix == ".safetensors" or file.name in _FILES]
    files += [file for part in parts for file in sorted(part.iterdir()) if file.suffix in (".safetensors", ".json")]
    return [file.relative_to(folder).as_posix() for file in files if file.is_file() and not file.is_symlink()]


def _check_name(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise HubError(f"{name!r} is no name of a repository; expected ORG/NAME") from error
    if name.count("/") != 1:
        raise HubError(f"{name!r} names no owner; expected ORG/NAME")


@contextmanager
def _push_errors(name: str) -> Generator[None]:
    try:
        yield
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        message = _describe_failure(name, error)
        if token := get_token():
            message = message.replace(token, "hf_...")
        raise HubError(f"{message}; nothing on this machine is lost") from error


def _describe_failure(name: str, error: Exception) -> str:
    """Which repository, why, and what to do."""
    refusal = error if isinstance(error, HfHubHTTPError) else error.__cause__  # of the upload of one large file
    if isinstance(refusal, HfHubHTTPError):
        status = getattr(refusal.response, "status_code", None)
        reason = f": {' '.join(refusal.server_message.split())}" if refusal.server_message else ""
        return f"the hub refused {name} (status {status}{reason}): {_remedy(status, reason)}"
    if type(error).__module__.startswith("hf_xet") or type(error) in (RuntimeError, ConnectionError):  # hf_xet's own
        return (
            f"the hub's storage (Xet) didn't take the weights for {name} ({reason_of(error)}): push again, and if that "
            "fails too with HF_HUB_DISABLE_XET=1, which uploads them another way"
        )
    if isinstance(error, HTTPError | ConnectionError):  # offline mode, too
        return f"{name} can't be reached ({type(error).__name__}): push again later"
    return f"{name} can't be pushed to ({reason_of(error)}): put that right, and push again"


def _remedy(status: int | None, reason: str) -> str:
    if status in (402, 413, 507) or (status == 403 and "storage" in reason.lower()):
        return "its owner has no storage left: delete old files there, or give another owner's repository"
    if status is not None and status >= 500:
        return "that is the hub's own failure: push again later"
    return _REMEDIES.get(status or 0, "check the name, and that the token may write there")
