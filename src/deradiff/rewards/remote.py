"""A reward that a server computes, requested over HTTP."""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deradiff.errors import RewardError, RewardUnavailableError
from deradiff.io import encode_png
from deradiff.rewards.card import Card
from deradiff.rewards.preprocess import to_pil
from deradiff.rewards.scorer import score_in_batches


class Remote:
    """Scores from a server: POST ``{"images": [base64 of a PNG, ...], "prompts": [...]}`` -> ``{"scores": [...]}``.

    flow_grpo's reward servers (https://github.com/yifan123/reward-server) exchange pickles, which run arbitrary code
    where they are read. This protocol exchanges JSON instead.

    Failed connections, timeouts and the statuses 429, 500, 502, 503 and 504 are retried with exponential backoff, or
    after the time in the server's Retry-After.

    Args:
        url: ``http://`` or ``https://``.
        timeout: seconds to wait for a response.
        retries: number of retries after the first request.
        backoff: seconds before the second retry; the first retry is immediate.
        batch_size: number of images in a request.
    """

    def __init__(
        self, url: str, *, timeout: float = 120, retries: int = 5, backoff: float = 0.5, batch_size: int = 32
    ) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        retry = Retry(
            total=retries,
            backoff_factor=backoff,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods={"POST"},
            raise_on_status=False,  # the error quotes the last response
        )
        self.url, self.timeout, self.batch_size = url, timeout, batch_size
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        self.card = Card(
            name=url,
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
        import requests

        payload = {
            "images": [base64.b64encode(encode_png(image)).decode() for image in to_pil(images)],
            "prompts": list(prompts),
        }
        try:
            response = self._session.post(self.url, json=payload, timeout=self.timeout)
        except requests.RequestException as error:
            raise RewardUnavailableError(
                f"the reward server {self.url} gave no answer: {error}; is it running?"
            ) from error
        where = f"the reward server {self.url} answered with status {response.status_code}"
        if response.status_code != requests.codes.ok:
            raise RewardError(f"{where}: {response.text[:300]!r}; its log may say why")
        try:
            content: Any = response.json()
        except ValueError as error:
            raise RewardError(f"{where} and no JSON: {response.text[:300]!r}; expected {_EXPECTED}") from error
        scores = content.get("scores") if isinstance(content, dict) else None
        if not isinstance(scores, list) or not all(type(score) in (int, float) for score in scores):
            raise RewardError(f"{where} and {response.text[:300]!r}; expected {_EXPECTED}")
        if len(scores) != len(prompts):
            raise RewardError(f"{where} and {len(scores)} scores for {len(prompts)} images; expected one each")
        return torch.tensor(scores, dtype=torch.float32)


_EXPECTED = '{"scores": [a number an image]}'
