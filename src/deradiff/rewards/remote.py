"""A reward that a server computes, requested over HTTP."""

import base64
import time
from collections.abc import Callable, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from deradiff.errors import RewardError, RewardUnavailableError, public_url
from deradiff.reading import parse_object
from deradiff.rewards.card import Card
from deradiff.rewards.preprocess import to_pil
from deradiff.rewards.scorer import score_in_batches
from deradiff.writing import encode_png

if TYPE_CHECKING:
    from requests import Response

T = TypeVar("T")

MAX_RESPONSE_BYTES = 16 << 20
MAX_WAIT_SECONDS = 60  # between two requests, whatever the server asks for
_BUSY = (429, 500, 502, 503, 504)
_CHUNK_BYTES = 1 << 16
_EXPECTED = '{"scores": [a number an image]}'


class Remote:
    """Scores from a server: POST ``{"images": [base64 of a PNG, ...], "prompts": [...]}`` -> ``{"scores": [...]}``.

    flow_grpo's reward servers (https://github.com/yifan123/reward-server) exchange pickles, which run arbitrary code
    where they are read. This protocol exchanges JSON instead.

    Failed connections, timeouts and the statuses 429, 500, 502, 503 and 504 are retried with exponential backoff, or
    after the time in the server's Retry-After, a minute at most. Redirects are not followed: images and prompts go to
    the host that was named and to no other. User, password, query and fragment of the url are sent and never shown.

    Args:
        url: ``http://`` or ``https://``.
        timeout: seconds that one request may take, from connecting to the last byte of the response.
        retries: number of retries after the first request.
        backoff: seconds before the second retry; the first retry is immediate.
        batch_size: number of images in a request.
    """

    def __init__(
        self, url: str, *, timeout: float = 120, retries: int = 5, backoff: float = 0.5, batch_size: int = 32
    ) -> None:
        self.name = public_url(url)
        self.timeout, self.retries, self.backoff, self.batch_size = timeout, retries, backoff, batch_size
        self._url = url
        self.card = Card(
            name=self.name,
            measures="defined by its server",
            range="its server's",
            model="its server's",
            licence="its server's",
            citation="none",
        )

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score images: float32 ``[batch]`` of pixels ``[batch, 3, height, width]`` in [0, 1] and as many prompts.

        Raises:
            RewardError: no response, a status other than 200, or not one number for each image; names url and status.
        """
        return score_in_batches(self._request, images, prompts, self.batch_size)

    def _request(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        payload = {
            "images": [base64.b64encode(encode_png(image)).decode() for image in to_pil(images)],
            "prompts": list(prompts),
        }
        status, headers, content = self._post(payload)
        where = f"the reward server {self.name} answered with status {status}"
        text = content.decode("utf-8", "replace")[:300]
        if 300 <= status < 400:
            target = public_url(headers.get("Location", "nowhere"))
            raise RewardError(f"{where}, a redirect to {target}, which isn't followed; give that url if you trust it")
        if status != 200:
            raise RewardError(f"{where}: {text!r}; its log may say why")
        try:
            scores = parse_object(content, "its answer", RewardError).get("scores")
        except RewardError as error:
            raise RewardError(f"{where} and no JSON object: {text!r}; expected {_EXPECTED}") from error
        if not isinstance(scores, list) or not all(type(score) in (int, float) for score in scores):
            raise RewardError(f"{where} and {text!r}; expected {_EXPECTED}")
        if len(scores) != len(prompts):
            raise RewardError(f"{where} and {len(scores)} scores for {len(prompts)} images; expected one each")
        try:
            return torch.tensor(scores, dtype=torch.float32)
        except (OverflowError, RuntimeError) as error:
            raise RewardError(f"{where} and a score that is no float: {text!r}; expected {_EXPECTED}") from error

    def _post(self, payload: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the response to the last of several tries."""
        for attempt in range(self.retries + 1):
            is_last = attempt == self.retries
            wait = self.backoff * 2**attempt if attempt else 0.0
            try:
                status, headers, content = _within(self.timeout, lambda: self._post_once(payload))
            except _NoAnswerError as error:
                if is_last:
                    raise RewardUnavailableError(
                        f"the reward server {self.name} gave no answer: {error}; is it running?"
                    ) from None  # the causes hold the whole url
            else:
                if status not in _BUSY or is_last:
                    return status, headers, content
                wait = max(wait, _retry_after(headers))
            time.sleep(min(wait, MAX_WAIT_SECONDS))
        raise AssertionError("the last try returns or raises")

    def _post_once(self, payload: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        import requests

        try:
            with requests.post(
                self._url, json=payload, timeout=self.timeout, allow_redirects=False, stream=True
            ) as response:
                return response.status_code, dict(response.headers), self._body(response)
        except requests.RequestException as error:
            raise _NoAnswerError(_reason(error)) from error

    def _body(self, response: "Response") -> bytes:
        content = bytearray()
        for chunk in response.iter_content(_CHUNK_BYTES):
            content += chunk
            if len(content) > MAX_RESPONSE_BYTES:
                raise RewardError(
                    f"the reward server {self.name} answered with more than {MAX_RESPONSE_BYTES:,} bytes; expected "
                    f"{_EXPECTED}"
                )
        return bytes(content)


class _NoAnswerError(Exception):
    """There was no answer to a request."""


def _within(seconds: float, call: Callable[[], T]) -> T:
    """What a call returns or raises, if it takes no longer; libraries limit each read, but not all of them together."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(call())
        except BaseException as error:  # noqa: BLE001  (raised below, in the caller's thread)
            errors.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise _NoAnswerError(f"timed out after {seconds:g} s")
    return results[0]


def _retry_after(headers: dict[str, str]) -> float:
    """Seconds in a Retry-After; 0 where it has another form, such as a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0


def _reason(error: Exception) -> str:
    """The innermost reason of a failed request, which doesn't hold the url."""
    import requests

    if isinstance(error, requests.Timeout):
        return "timed out"
    inner: BaseException = error
    while inner.__cause__ or inner.__context__:
        inner = inner.__cause__ or inner.__context__ or inner
    return str(inner) if isinstance(inner, OSError) and inner is not error else type(error).__name__
