"""What is let through to gradio: the routes that the page itself uses, from its own origin, of a bounded size."""

import re
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

MAX_BODY = 8 << 20  # bytes: 20,000 prompts of 400
_ROUTES = re.compile(
    r"/|/(assets|static)/.+|/(config|login|logout|theme\.css|favicon\.ico|manifest\.json)/?"
    r"|/gradio_api/(queue/(join|data)|run/predict|heartbeat/[^/]+|cancel|startup-events|app_id|user|login_check)/?"
)
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; object-src 'none'; "
    "base-uri 'self'; frame-ancestors 'none'; form-action 'self'"
)
_HEADERS = {"content-security-policy": _POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class RequestFilter:
    """Middleware before gradio, which also has routes that read files, fetch addresses and take uploads.

    Answers carry a content security policy, by which browsers fetch from this page's own host alone.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        refusal = _refusal(scope["path"], scope["method"], Headers(scope=scope))
        await (self._app if refusal is None else refusal)(scope, receive, sent)


def _refusal(path: str, method: str, headers: Headers) -> PlainTextResponse | None:
    """The answer to a request that isn't let through."""
    if not _ROUTES.fullmatch(path):
        return PlainTextResponse("not found", 404)
    reads = method in ("GET", "HEAD")
    if not _is_from_here(headers) and not (reads and path == "/"):  # a link from elsewhere may open the page
        return PlainTextResponse("another site may not use this page", 403)
    return None if reads else _size_refusal(headers)


def _is_from_here(headers: Headers) -> bool:
    """Whether a browser says that this page itself asks; programs that are no browsers say nothing, and may ask."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _size_refusal(headers: Headers) -> PlainTextResponse | None:
    length = headers.get("content-length", "")
    if not length.isdecimal():
        return PlainTextResponse("a request with a body needs its length", 411)
    if int(length) > MAX_BODY:
        return PlainTextResponse(f"a request of {int(length):,} bytes; expected at most {MAX_BODY:,}", 413)
    return None
