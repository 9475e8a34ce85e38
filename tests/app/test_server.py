"""Who may come in, and what may be read."""

import contextlib
import io
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.runs.painted import painted

from deradiff.app import server
from deradiff.app.engine import Engine
from deradiff.app.page import build_page, serve_run
from deradiff.app.request_filter import MAX_BODY
from deradiff.errors import ConfigError
from deradiff.runs.run import Run

HOSTILE = ["/etc/passwd", "../../../../etc/passwd", "%2Fetc%2Fpasswd", "/proc/self/environ", "file:///etc/passwd"]


def client_of(engine: Engine, folder: Path, password: str | None = None) -> TestClient:
    painted(folder / "run")
    page = build_page(serve_run(engine, Run(folder / "run")), ["a red circle"], None)
    return TestClient(server.web_app(page, "127.0.0.1", password), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def client(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with client_of(engine, tmp_path_factory.mktemp("served")) as client:
        yield client


def test_no_file_is_served(client: TestClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("root:secret")
    run = [str(path) for path in Path.cwd().glob("pyproject.toml")]
    for path in [*HOSTILE, str(secret), *run, "pyproject.toml"]:
        for route in ("/file=", "/gradio_api/file=", "/gradio_api/file/", "/gradio_api/proxy=", "/static/", "/assets/"):
            answer = client.get(route + path)
            assert answer.status_code >= 400 or "<!doctype html>" in answer.text.lower(), (route, path)
            assert "root:" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        *("docs", "openapi.json", "monitoring", "monitoring/summary", "runs", "pwa_icon"),
        *(
            f"gradio_api/{name}"
            for name in ("info", "openapi.json", "deep_link?session_hash=x", "queue/status", "dev/reload")
        ),
        *(
            f"gradio_api/{name}"
            for name in ("upload", "process_recording", "component_server", "run/x", "call/predict")
        ),
        *(
            f"gradio_api/{name}"
            for name in ("vibe-edit/", "stream/x", "file=http://127.0.0.1/", "proxy=http://127.0.0.1/")
        ),
        *(f"gradio_api/run-history/{name}" for name in ("connect", "buckets", "records")),
    ],
)
def test_of_gradios_routes_only_the_pages_own_answer(client: TestClient, path: str) -> None:
    for method in ("GET", "POST", "PUT", "OPTIONS"):
        assert client.request(method, f"/{path}", content=b"").status_code == 404


def test_another_site_may_open_the_page_and_nothing_else(client: TestClient) -> None:
    join, here = "/gradio_api/queue/join", {"origin": "http://127.0.0.1"}
    foreign = [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.example"}]
    for headers in (*foreign, {"origin": "null"}):
        assert client.get("/", headers=headers).status_code == 200
        assert client.get("/config", headers=headers).status_code == 403
        assert client.post(join, json={}, headers=headers).status_code == 403
        assert client.options(join, headers=headers).status_code == 403
    for headers in ({}, here, {"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}):
        assert client.get("/config", headers=headers).status_code == 200
        assert client.post(join, json={}, headers=headers).status_code == 422  # what it asks is wrong


def test_a_request_says_its_size_and_is_of_a_bounded_one(client: TestClient) -> None:
    join = "/gradio_api/queue/join"
    assert client.post(join, content=b"x" * (MAX_BODY + 1)).status_code == 413
    assert client.post(join, content=iter([b"{", b"}"])).status_code == 411


def test_the_page_names_no_other_host_to_fetch_from(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "fonts.googleapis" not in answer.text
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_a_password_is_wanted_for_everything(engine: Engine, tmp_path: Path) -> None:
    with client_of(engine, tmp_path, "correct horse") as client:
        assert client.get("/config").status_code == 401
        assert client.post("/gradio_api/queue/join", json={}).status_code == 401
        login = {"username": server.USER, "password": "wrong horse"}
        assert client.post("/login", data=login).status_code == 400
        assert client.get("/config").status_code == 401
        login["password"] = "correct horse"
        assert client.post("/login", data=login).status_code == 200
        assert client.get("/config").status_code == 200


def test_a_host_that_others_reach_needs_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.7"):
        server.check_access(host, None)
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        with pytest.raises(ConfigError, match="--password-file"):
            server.check_access(host, None)
        server.check_access(host, "long enough")
    file = tmp_path / "password"
    file.write_text("from a file\n")
    monkeypatch.setenv(server.PASSWORD, "from the variable")
    assert server.read_password(file) == "from a file"
    assert server.read_password(None) == "from the variable"
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="8 or more"):
        server.read_password(file)
    with pytest.raises(ConfigError, match="can't be read"):
        server.read_password(tmp_path / "none")


def test_what_visitors_sent_does_not_steer_the_terminal() -> None:
    printed = io.StringIO()
    with contextlib.redirect_stderr(server.Terminal(printed)):  # pyright: ignore[reportArgumentType]
        try:
            raise ValueError("\x1b[2J" + "x" * 100_000)
        except ValueError:
            traceback.print_exc()
    assert "ValueError" in printed.getvalue()
    assert printed.getvalue().count("\n") > 2
    assert "\x1b" not in printed.getvalue()
    assert len(printed.getvalue()) < 5000


def test_a_port_that_is_taken_is_an_error_and_by_default_the_next_is_tried() -> None:
    with server.bind("127.0.0.1", None) as first, server.bind("127.0.0.1", None) as second:
        taken = first.getsockname()[1]
        assert second.getsockname()[1] != taken
        with pytest.raises(ConfigError, match=f"port {taken}"):
            server.bind("127.0.0.1", taken)
    with pytest.raises(ConfigError, match="--host"):
        server.bind("no.such.host.invalid", None)
    assert isinstance(first, socket.socket)
