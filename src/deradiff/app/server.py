"""Serving the page: where it listens, who may come in, and what may be read."""

import io
import ipaddress
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, TextIO, cast

from deradiff.errors import ConfigError, printable
from deradiff.reading import read_text

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read by gradio when it is imported, and later

PASSWORD = "DERADIFF_APP_PASSWORD"
USER = "deradiff"
PORT, PORTS = 7860, 100  # the first that is tried, and how many
_LEAST = 8  # characters of a password
_LINE = 1000  # characters that are printed of a line
_GRACE = 2  # seconds for open connections when it ends


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_password(file: Path | None) -> str | None:
    """The password of a file's first line, or of the environment; None where there is neither.

    Raises:
        ConfigError: the file can't be read, or the password is short.
    """
    if file is not None:
        lines = read_text(file, "the password file", ConfigError, 4096).splitlines()
        password, where = (lines[0].strip() if lines else ""), f"the first line of {file}"
    elif (value := os.environ.get(PASSWORD)) is not None:
        password, where = value, f"the variable {PASSWORD}"
    else:
        return None
    if len(password) < _LEAST:
        raise ConfigError(f"{where} has a password of {len(password)} characters; expected {_LEAST} or more")
    return password


def check_access(host: str, password: str | None) -> None:
    """Check that whoever reaches a host needs a password.

    Raises:
        ConfigError: others reach it, and there is none.
    """
    if password is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host} lets others in, who could use this machine: give --password-file FILE, or set {PASSWORD}; "
            "or leave --host out, for this machine alone"
        )


def bind(host: str, port: int | None) -> socket.socket:
    """A socket at a port, or at the first free one from 7860 on.

    Raises:
        ConfigError: the port is taken, or the host isn't this machine's.
    """
    problem: OSError | None = None
    for candidate in [port] if port is not None else range(PORT, PORT + PORTS):
        try:
            family, _, _, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise ConfigError(f"--host {host} is no address ({error.strerror}); give one of this machine") from error
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen()
        except OSError as error:
            listening.close()
            problem = error
            continue
        return listening
    reason = problem.strerror if problem is not None else "none is free"
    which = f"port {port}" if port is not None else f"any port from {PORT} to {PORT + PORTS - 1}"
    raise ConfigError(f"can't listen at {which} of {host} ({reason}); give another --port or --host") from problem


def web_app(page: Any, host: str, password: str | None) -> Any:
    """The page as a web application: behind `RequestFilter` and any password, and for no other host's name."""
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from deradiff.app.page import KEYS, STYLE, theme
    from deradiff.app.request_filter import RequestFilter

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    if is_loopback(host):  # another site whose name leads here is not this page
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])
    app.add_middleware(RequestFilter)

    def is_known(user: str, typed: str) -> bool:
        return secrets.compare_digest(typed.encode(), str(password).encode()) and user == USER

    page.queue(max_size=64, api_open=False)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        server_name=host,
        auth=None if password is None else is_known,
        auth_message=f"The user is {USER}.",
        allowed_paths=[],
        blocked_paths=[str(Path.cwd()), str(Path.home())],
        show_error=True,
        max_file_size=1,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=STYLE.read_text("utf-8"),
        head=f"<script>{KEYS.read_text('utf-8')}</script>",
    )


class Terminal(io.TextIOBase):
    """A stream to which gradio may print tracebacks: what visitors sent is in them, and must not steer the terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write printable lines, long ones cut."""
        self._stream.write("\n".join(printable(line)[:_LINE] for line in text.split("\n")))
        return len(text)

    def flush(self) -> None:
        """Write what is kept back."""
        self._stream.flush()


def serve(app: Any, listening: socket.socket, started: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal comes, which is raised again for whoever handles it.

    Args:
        app: of `web_app`.
        listening: of `bind`.
        started: called when it answers.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started()

    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, timeout_graceful_shutdown=_GRACE, server_header=False, lifespan="on"
    )
    with redirect_stderr(cast("TextIO", Terminal(sys.stderr))):
        Server(config).run(sockets=[listening])
