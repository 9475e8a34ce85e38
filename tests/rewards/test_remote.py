"""A reward behind http, asked of a real server in a thread."""

import base64
import io
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.runs.painted import painted

from deradiff.analysis.recommend import recommend
from deradiff.errors import RewardError
from deradiff.report import write_report
from deradiff.rewards import card_of, check_distinct, compute_scores, load_reward, reward_name
from deradiff.rewards.remote import MAX_WAIT_SECONDS, Remote
from deradiff.runs.export import export
from deradiff.runs.run import Run

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
        self.answers: list[Callable[[dict[str, Any]], Any]] = [means]
        self.asked: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                said = {"type": self.headers["Content-Type"], "authorization": self.headers["Authorization"]}
                outer.asked.append(question | said | {"path": self.path})
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                told = answer(question)
                with suppress(OSError):  # who asked may have gone
                    self.reply(told)

            def reply(self, told: Any) -> None:
                if not isinstance(told, tuple):  # without end
                    self.send_response(200)
                    self.end_headers()
                    for part in told:
                        self.wfile.write(part)
                    return
                status, content, *headers = told
                self.send_response(status)
                for name, value in (headers[0] if headers else {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.closed = threading.Event()
        self.name = f"http://127.0.0.1:{self.http.server_address[1]}/score"
        self.url = f"{self.name}?model=a=b"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.closed.set()
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


def test_its_url_without_secrets_is_its_name(server: Server) -> None:
    reward = load_reward(server.url)
    assert reward_name(server.url) == server.name
    assert len(compute_scores(server.name, reward, PIXELS, PROMPTS)) == 5
    card = card_of(reward)
    assert card is not None
    assert card.name == server.name


SECRET = "s3cr3t"


def private(server: Server) -> str:
    """A url with all that may hold a secret."""
    where = server.name.removeprefix("http://")
    return f"http://{SECRET}user:{SECRET}pass@{where}?key={SECRET}query#{SECRET}fragment"


def test_user_and_password_and_query_are_sent_and_never_recorded(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = painted(tmp_path / "run")
    run = Run(store.folder)
    run.score(private(server))
    run.score([private(server).replace("pass@", "other@")])  # the same reward: nothing is asked again
    assert {question["path"] for question in server.asked} == {f"/score?key={SECRET}query"}
    assert base64.b64decode(server.asked[0]["authorization"].split()[1]).decode() == f"{SECRET}user:{SECRET}pass"
    assert len(server.asked) == -(-36 // 8)
    results = run.results()
    assert list(results.scores) == [server.name]
    answer = recommend(results, server.name, kl_budget=40)
    write_report(run, answer)
    export(store, tmp_path / "run" / "table.csv")
    export(store, tmp_path / "run" / "table.parquet")
    assert not [path for path in store.folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert SECRET not in "".join(capfd.readouterr())


def test_no_message_holds_a_secret(server: Server) -> None:
    broken = [always(404, b"no"), always(200, b"[]"), always(307, b""), always(503, b"")]
    for answer in broken:
        server.answers = [answer]
        with pytest.raises(RewardError, match=server.name) as error:
            compute_scores(private(server), Remote(private(server), retries=0), PIXELS, PROMPTS)
        assert SECRET not in str(error.value)
    server.http.server_close()
    with pytest.raises(RewardError, match="gave no answer") as error:
        Remote(private(server), retries=0)(PIXELS, PROMPTS)
    assert SECRET not in "".join(traceback.format_exception(error.value))
    with pytest.raises(RewardError, match="two rewards are both called") as error:
        check_distinct([private(server), f"{server.name}?key=other"])
    assert SECRET not in str(error.value)


def test_no_redirect_is_followed(server: Server) -> None:
    other = Server()
    server.answers = [lambda question: (307, b"", {"Location": f"http://user:{SECRET}@127.0.0.1/other?{SECRET}"})]
    with pytest.raises(RewardError, match=r"status 307, a redirect to http://127\.0\.0\.1/other, which isn't") as error:
        Remote(server.url)(PIXELS, PROMPTS)
    assert SECRET not in str(error.value)
    other.http.server_close()
    assert len(server.asked) == 1


def test_what_a_busy_server_asks_to_wait_is_capped(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("deradiff.rewards.remote.time.sleep", waited.append)
    hours = ["86400", "2", "inf", "nan", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"]
    server.answers = [lambda question, value=value: (503, b"", {"Retry-After": value}) for value in hours] + [means]
    assert len(Remote(server.url, retries=len(hours), backoff=0)(PIXELS, PROMPTS)) == 5
    assert waited == [MAX_WAIT_SECONDS, 2, MAX_WAIT_SECONDS, 0, 0, 0]


def test_an_answer_that_drips_is_given_up(server: Server) -> None:
    def drip(question: dict[str, Any]) -> Iterator[bytes]:
        while not server.closed.wait(0.02):
            yield b" "

    server.answers = [drip]
    with pytest.raises(RewardError, match="gave no answer: timed out"):
        Remote(server.url, timeout=0.3, retries=0)(PIXELS, PROMPTS)


def test_an_answer_without_end_is_given_up(server: Server) -> None:
    def flood(question: dict[str, Any]) -> Iterator[bytes]:
        while not server.closed.is_set():
            yield b" " * (1 << 20)

    server.answers = [flood]
    with pytest.raises(RewardError, match=r"more than 16,777,216 bytes"):
        Remote(server.url)(PIXELS, PROMPTS)


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
    assert server.name in str(told.value)
    assert len(server.asked) == 3


def test_a_late_answer(server: Server) -> None:
    server.answers = [lambda question: (time.sleep(0.4), means(question))[1]]
    with pytest.raises(RewardError, match=r"gave no answer: .*[Tt]imed? ?out") as told:
        Remote(server.url, timeout=0.1, retries=1, backoff=0)(PIXELS, PROMPTS)
    assert server.name in str(told.value)
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
        ((200, b"\x80\x04K\x01."), r"status 200 and no JSON object: .*expected \{\"scores\""),
        ((200, b'{"outputs": [1, 2, 3, 4, 5]}'), r"status 200 and .*outputs.*expected \{\"scores\""),
        ((200, b"[1, 2, 3, 4, 5]"), r"expected \{\"scores\""),
        ((200, b'{"scores": [1, 2, 3, 4, "5"]}'), r"expected \{\"scores\""),
        ((200, b'{"scores": [1, 2, 3, 4, true]}'), r"expected \{\"scores\""),
        ((200, b'{"scores": [1, 2, 3, 4]}'), r"status 200 and 4 scores for 5 images"),
        ((200, b'{"scores": [1, 2, 3, 4, 1' + b"0" * 400 + b"]}"), r"a score that is no float"),
        ((200, b"[" * 100_000), r"status 200 and no JSON object"),
        ((200, b'{"scores": "\\ud800"}'), r"status 200 and no JSON object"),
    ],
)
def test_what_is_no_answer_is_reported(answer: Answer, told: str, server: Server) -> None:
    server.answers = [always(*answer)]
    with pytest.raises(RewardError, match=told) as error:
        Remote(server.url)(PIXELS, PROMPTS)
    assert server.name in str(error.value)
    assert len(server.asked) == 1  # nothing of it is worth another try


def test_a_number_that_is_none_is_reported_as_of_any_reward(server: Server) -> None:
    server.answers = [always(200, b'{"scores": [1, 2, 3, 4, NaN]}')]
    with pytest.raises(RewardError, match="expected a finite number each"):
        compute_scores(server.url, load_reward(server.url), PIXELS, PROMPTS)
