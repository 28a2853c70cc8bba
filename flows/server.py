"""Prefect's server behind a filter; `driftline serve` runs it as `python -m flows.server SOCKET`.

SOCKET is the file descriptor of a listening socket of `driftline serve`, which never closes it, so that no other process can take
the port and receive the password. Otherwise as `prefect server start` (prefect/cli/_server_utils.py, 3.8.8), plus the filter. All
settings come from the environment that `flows/serve.py` sets; without an auth string there it does not start.

The filter refuses requests that pages of other sites can make a browser send.
Every page that the user opens can reach 127.0.0.1. What it can send, and what refuses it:

    a form, an image, fetch(..., {mode: "no-cors"})     Origin, Sec-Fetch-Site; a body without Content-Type: application/json
    fetch with JSON and headers (preflighted)           Origin: the preflight is refused, so is the request
    a name that resolves to 127.0.0.1 (DNS rebinding)  Host
    WebSocket (browsers do not check permissions)          Origin, Host

Fetch metadata: https://www.w3.org/TR/fetch-metadata/. Prefect's own auth string, CSRF tokens and CORS apply in addition.
Responses forbid other sites to frame them, and the UI to connect to other hosts: Prefect's UI calls an analytics service, and
an image in an artifact's text could report to its author who opened it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import re
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CHANGES = ("POST", "PUT", "PATCH", "DELETE")
HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)
PASSWORD_KEY = "prefect-password"  # the key under which both UIs of Prefect store the auth string, in base64
ADDED_HEADERS = [
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
POLICY = (  # https://www.w3.org/TR/CSP3/; Prefect's pages use inline styles, and draw the graph of a run with eval and blobs
    "default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' {socket}; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
LOGIN_PAGE = """<!doctype html><meta charset="utf-8"><title>driftline</title>
<noscript>The UI needs JavaScript.</noscript>
<script>{script}</script>
"""
LOGIN_SCRIPT = "localStorage.setItem({key}, {value}); location.replace('/')"
WRONG_TOKEN = "this token is not (or no longer) valid; `driftline serve` prints the address with the valid one\n"


class RequestFilter:
    """An ASGI application around Prefect's; `port` is its port on 127.0.0.1.

    `/?token=TOKEN` passes the token (the server's auth string) to the UI and redirects to the UI.
    """

    def __init__(self, app: App, port: int, token: str):
        self.app, self.token = app, token
        self.origin = f"http://127.0.0.1:{port}"
        self.headers = [*ADDED_HEADERS, self.policy()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        refusal = self.refusal_of(scope)
        if refusal is not None:
            return await self.refuse(scope, receive, send, *refusal)
        if scope["type"] == "http":
            if (location := self.own_address_of(scope)) is not None:
                return await self.answer(send, HTTPStatus.TEMPORARY_REDIRECT, b"", [(b"location", location)])
            if (given := token_in(scope)) is not None:
                return await self.log_in(send, given)
        await self.app(scope, receive, adding(self.headers, send))

    def refusal_of(self, scope: Scope) -> tuple[HTTPStatus, str] | None:
        """The reason why this request is not from the server's own UI or a program; None if it is."""
        hosts, origins = values(scope, b"host"), values(scope, b"origin")
        if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
            return HTTPStatus.MISDIRECTED_REQUEST, f"this server answers as 127.0.0.1 or localhost only, not as {hosts!r}"
        if any(origin != self.origin for origin in origins):
            return HTTPStatus.FORBIDDEN, f"requests of pages come from {self.origin} only, not from {origins!r}"
        is_page = scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and not is_api(scope)
        if not is_page and any(site not in ("same-origin", "none") for site in values(scope, b"sec-fetch-site")):
            return HTTPStatus.FORBIDDEN, "requests of pages of other sites are refused"
        if scope["type"] == "http" and scope["method"] in CHANGES and has_body(scope) and not is_json(scope):
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a request with a body needs the header Content-Type: application/json"
        return None

    def own_address_of(self, scope: Scope) -> bytes | None:
        """The 127.0.0.1 address of a page requested as localhost: the UI calls its API at 127.0.0.1, a different origin."""
        host = values(scope, b"host")[0].lower()
        if host.startswith("127.0.0.1") or is_api(scope) or scope["method"] not in ("GET", "HEAD"):
            return None
        query: bytes = scope.get("query_string", b"")
        path: bytes = b"/" + scope.get("raw_path", b"/").lstrip(b"/")
        return self.origin.encode() + path + (b"?" + query if query else b"")

    async def log_in(self, send: Send, given: str) -> None:
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return await self.answer(send, HTTPStatus.FORBIDDEN, WRONG_TOKEN.encode())
        value = base64.b64encode(self.token.encode()).decode()
        script = LOGIN_SCRIPT.format(key=json.dumps(PASSWORD_KEY), value=json.dumps(value))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"cache-control", b"no-store"),
            self.policy(f"'sha256-{digest}'"),
        ]
        await self.answer(send, HTTPStatus.OK, LOGIN_PAGE.format(script=script).encode(), headers)

    def policy(self, scripts: str = "'unsafe-eval'") -> tuple[bytes, bytes]:
        """The header that lists what a page may load, run and connect to; `scripts`: scripts besides the server's files."""
        socket = self.origin.replace("http://", "ws://")
        return b"content-security-policy", POLICY.format(scripts=scripts, socket=socket).encode()

    async def refuse(self, scope: Scope, receive: Receive, send: Send, status: HTTPStatus, why: str) -> None:
        """A WebSocket that is closed before it is accepted is a response 403 (ASGI, "Close - send event")."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": why[:100]})
        else:
            await self.answer(send, status, f"{why}\n".encode())

    async def answer(self, send: Send, status: HTTPStatus, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """A response of the filter itself, plain text unless `headers` state otherwise."""
        own = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        chosen = dict([*own, *self.headers, *headers])
        await send({"type": "http.response.start", "status": int(status), "headers": list(chosen.items())})
        await send({"type": "http.response.body", "body": body})


# ---------------------------------------------------------------- parts of a request


def values(scope: Scope, name: bytes) -> list[str]:
    """Every value of a header; ASGI has the names in lower case."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def is_api(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == "/api" or path.startswith("/api/")


def has_body(scope: Scope) -> bool:
    lengths = values(scope, b"content-length")
    return bool(values(scope, b"transfer-encoding")) or any(length.strip() != "0" for length in lengths)


def is_json(scope: Scope) -> bool:
    types = values(scope, b"content-type")
    return len(types) == 1 and types[0].partition(";")[0].strip().lower() == "application/json"


def token_in(scope: Scope) -> str | None:
    """The token of `/?token=...`."""
    if scope["path"] != "/" or scope["method"] != "GET":
        return None
    given = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).get("token")
    return given[0] if given else None


def adding(headers: list[tuple[bytes, bytes]], send: Send) -> Send:
    """`send` that replaces the application's headers of the same names with `headers`."""
    names = {name for name, _ in headers}

    async def send_more(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            kept = [(name, value) for name, value in message.get("headers", []) if bytes(name).lower() not in names]
            message = {**message, "headers": [*kept, *headers]}
        await send(message)

    return send_more


def main(descriptor: int) -> None:
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    api = get_current_settings().server.api
    if not (api.auth_string and api.auth_string.get_secret_value() and api.csrf_protection_enabled):
        sys.exit("PREFECT_SERVER_API_AUTH_STRING and PREFECT_SERVER_CSRF_PROTECTION_ENABLED must be set: use `driftline serve`")
    config = uvicorn.Config(
        RequestFilter(create_app(final=True), api.port, api.auth_string.get_secret_value()),
        timeout_keep_alive=api.keepalive_timeout,
        ws_ping_interval=api.websocket_ping_interval,
        ws_ping_timeout=api.websocket_ping_timeout,
        # not DEBUG: it logs the first message of a WebSocket, which contains the password
        log_level=max(logging.getLevelName(get_current_settings().server.logging_level), logging.INFO),
        access_log=False,  # it would contain the token of the login page
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
