"""A reward behind http, asked of a real server in a thread."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deradiff.errors import RewardError
from deradiff.rewards import card_of, compute_scores, load_reward, reward_name
from deradiff.rewards.remote import Remote

PIXELS, PROMPTS = torch.randint(256, (5, 3, 6, 7)) / 255, [f"prompt {number}: «é»" for number in range(5)]
Answer = tuple[int, bytes]


def means(question: dict[str, Any]) -> Answer:
    """A score of each image and its prompt."""
    pictures = [Image.open(io.BytesIO(base64.b64decode(image)), formats=["png"]) for image in question["images"]]
    values = [
        float(np.asarray(one).mean()) + len(text) for one, text in zip(pictures, question["prompts"], strict=True)
    ]
    return 200, json.dumps({"scores": values}).encode()


class Server:
    """Answers by the first of its answers, the last of which stays; keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Callable[[dict[str, Any]], Answer]] = [means]
        self.asked: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(question | {"type": self.headers["Content-Type"], "path": self.path})
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                status, content = answer(question)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/score?model=a=b"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


def always(status: int, content: bytes) -> Callable[[dict[str, Any]], Answer]:
    return lambda question: (status, content)


def test_scores_of_images_and_prompts_in_batches(server: Server) -> None:
    told = Remote(server.url, batch_size=2)(PIXELS, PROMPTS)
    expected = (PIXELS * 255).mean((1, 2, 3)) + torch.tensor([float(len(prompt)) for prompt in PROMPTS])
    torch.testing.assert_close(told, expected)
    assert [len(question["images"]) for question in server.asked] == [2, 2, 1]
    assert [text for question in server.asked for text in question["prompts"]] == PROMPTS
    assert {(question["type"], question["path"]) for question in server.asked} == {
        ("application/json", "/score?model=a=b")
    }


def test_its_url_is_its_name(server: Server) -> None:
    reward = load_reward(server.url)
    assert reward_name(server.url) == server.url
    assert len(compute_scores(server.url, reward, PIXELS, PROMPTS)) == 5
    card = card_of(reward)
    assert card is not None
    assert card.name == server.url


def test_tried_again_while_the_server_is_busy(server: Server) -> None:
    server.answers = [always(503, b"starting"), always(429, b"slow down"), means]
    begun = time.monotonic()
    assert len(Remote(server.url, backoff=0.1)(PIXELS, PROMPTS)) == 5
    assert len(server.asked) == 3
    assert time.monotonic() - begun >= 0.2  # the second retry waits


def test_the_last_answer_is_reported(server: Server) -> None:
    server.answers = [always(503, b"starting")]
    with pytest.raises(RewardError, match=r"answered with status 503: 'starting'") as told:
        Remote(server.url, retries=2, backoff=0)(PIXELS, PROMPTS)
    assert server.url in str(told.value)
    assert len(server.asked) == 3


def test_a_late_answer(server: Server) -> None:
    server.answers = [lambda question: (time.sleep(0.4), means(question))[1]]
    with pytest.raises(RewardError, match=r"gave no answer: .*[Tt]imed? ?out") as told:
        Remote(server.url, timeout=0.1, retries=1, backoff=0)(PIXELS, PROMPTS)
    assert server.url in str(told.value)
    assert len(server.asked) == 2


def test_nobody_there(server: Server) -> None:
    closed = Server()
    closed.http.server_close()
    with pytest.raises(RewardError, match=r"gave no answer: .*is it running\?"):
        Remote(closed.url, retries=1, backoff=0)(PIXELS, PROMPTS)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((404, b"no such page"), r"status 404: 'no such page'"),
        ((400, b"bad request"), r"status 400: 'bad request'"),
        ((200, b"\x80\x04K\x01."), r"status 200 and no JSON: .*expected \{\"scores\""),
        ((200, b'{"outputs": [1, 2, 3, 4, 5]}'), r"status 200 and .*outputs.*expected \{\"scores\""),
        ((200, b"[1, 2, 3, 4, 5]"), r"expected \{\"scores\""),
        ((200, b'{"scores": [1, 2, 3, 4, "5"]}'), r"expected \{\"scores\""),
        ((200, b'{"scores": [1, 2, 3, 4, true]}'), r"expected \{\"scores\""),
        ((200, b'{"scores": [1, 2, 3, 4]}'), r"status 200 and 4 scores for 5 images"),
    ],
)
def test_what_is_no_answer_is_reported(answer: Answer, told: str, server: Server) -> None:
    server.answers = [always(*answer)]
    with pytest.raises(RewardError, match=told) as error:
        Remote(server.url)(PIXELS, PROMPTS)
    assert server.url in str(error.value)
    assert len(server.asked) == 1  # nothing of it is worth another try


def test_a_number_that_is_none_is_reported_as_of_any_reward(server: Server) -> None:
    server.answers = [always(200, b'{"scores": [1, 2, 3, 4, NaN]}')]
    with pytest.raises(RewardError, match="expected a finite number each"):
        compute_scores(server.url, load_reward(server.url), PIXELS, PROMPTS)
