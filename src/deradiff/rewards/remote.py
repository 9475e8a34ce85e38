"""A reward that another machine computes, asked over http."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deradiff.errors import RewardError, RewardUnavailableError
from deradiff.rewards.card import Card
from deradiff.rewards.preprocess import to_pil
from deradiff.rewards.scorer import in_batches


class Remote:
    """Scores from a server: POST ``{"images": [base64 of a PNG, ...], "prompts": [...]}`` -> ``{"scores": [...]}``.

    The reward servers of flow_grpo (https://github.com/yifan123/reward-server) speak pickle in both directions.  This
    one does not: whoever answers a request for a pickle runs any code they like here, and a request of pickle makes
    the same of the server.

    A connection that fails, a reply that is late, and the statuses 429, 500, 502, 503 and 504 are tried again, each
    time after twice the wait, or after what the server's Retry-After says.

    Args:
        url: ``http://`` or ``https://``.
        timeout: seconds to wait for an answer.
        retries: after the first try.
        backoff: seconds before the second retry; the first is at once.
        batch_size: images a request.
    """

    def __init__(
        self, url: str, *, timeout: float = 120, retries: int = 5, backoff: float = 0.5, batch_size: int = 32
    ) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        again = Retry(
            total=retries,
            backoff_factor=backoff,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods={"POST"},
            raise_on_status=False,  # the last answer is told
        )
        self.url, self.timeout, self.batch_size = url, timeout, batch_size
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again))
        self.card = Card(
            name=url,
            measures="what its server says",
            range="its server's",
            model="its server's",
            licence="its server's",
            citation="none",
        )

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores (N,), float32, of pixels (N, 3, H, W) in [0, 1] and N prompts.

        Raises:
            RewardError: no answer, a status other than 200, or one that isn't a number an image; names url and status.
        """
        return in_batches(self._ask, images, prompts, self.batch_size)

    def _ask(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        import requests

        question = {"images": [_png(picture) for picture in to_pil(images)], "prompts": list(prompts)}
        try:
            answer = self._session.post(self.url, json=question, timeout=self.timeout)
        except requests.RequestException as error:
            raise RewardUnavailableError(
                f"the reward server {self.url} gave no answer: {error}; is it running?"
            ) from error
        where = f"the reward server {self.url} answered with status {answer.status_code}"
        if answer.status_code != requests.codes.ok:
            raise RewardError(f"{where}: {answer.text[:300]!r}; its log may say why")
        try:
            told: Any = answer.json()
        except ValueError as error:
            raise RewardError(f"{where} and no JSON: {answer.text[:300]!r}; expected {_EXPECTED}") from error
        scores = told.get("scores") if isinstance(told, dict) else None
        if not isinstance(scores, list) or not all(type(score) in (int, float) for score in scores):
            raise RewardError(f"{where} and {answer.text[:300]!r}; expected {_EXPECTED}")
        if len(scores) != len(prompts):
            raise RewardError(f"{where} and {len(scores)} scores for {len(prompts)} images; expected one each")
        return torch.tensor(scores, dtype=torch.float32)


_EXPECTED = '{"scores": [a number an image]}'


def _png(picture: Any) -> str:
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
