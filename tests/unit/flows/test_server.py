"""Requests of pages of other sites never reach the application; those of programs and the server's UI do."""

import asyncio
import base64
import hashlib
from typing import Any

import pytest

from flows.server import RequestFilter

PORT, TOKEN = 4200, "0123456789abcdef0123456789abcdef"
OWN = f"http://127.0.0.1:{PORT}"
JSON = {"content-type": "application/json", "content-length": "2"}


def ask(
    method: str = "GET", path: str = "/api/flows", query: str = "", kind: str = "http", **headers: str | list[str]
) -> tuple[int, dict[str, str], str, bool]:
    """(status, headers, body, whether the application was reached); a WebSocket that is closed immediately has status 403."""
    reached, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Frame-Options", b"ALLOWALL")]})
            await send({"type": "http.response.body", "body": b"inner"})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": f"127.0.0.1:{PORT}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [(k.encode(), v.encode()) for k, one in given.items() for v in ([one] if isinstance(one, str) else one)]
    scope = {"type": kind, "method": method, "path": path, "raw_path": path.encode(), "headers": lines}
    asyncio.run(RequestFilter(app, PORT, TOKEN)({**scope, "query_string": query.encode()}, receive, send))
    if kind == "websocket":
        return (403 if sent and sent[0]["type"] == "websocket.close" else 101), {}, "", bool(reached)
    names = [name.decode().lower() for name, _ in sent[0]["headers"]]
    assert len(names) == len(set(names)), names
    found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, sent[1]["body"].decode(), bool(reached)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"method": "POST", "origin": "http://evil.example", **JSON}, 403),
        ({"method": "POST", "origin": "null", **JSON}, 403),
        ({"method": "POST", "origin": "http://127.0.0.1:9999", **JSON}, 403),  # another program's page on this machine
        ({"method": "POST", "origin": [OWN, "http://evil.example"], **JSON}, 403),
        ({"method": "OPTIONS", "origin": "http://evil.example", "access_control_request_method": "POST"}, 403),
        ({"method": "POST", "sec_fetch_site": "cross-site"}, 403),
        ({"method": "GET", "sec_fetch_site": "cross-site"}, 403),
        ({"method": "GET", "sec_fetch_site": "same-site"}, 403),  # another port of 127.0.0.1
        ({"method": "POST", "path": "/", "sec_fetch_site": "cross-site"}, 403),
        ({"method": "POST", "content_length": "2"}, 415),
        ({"method": "POST", "transfer_encoding": "chunked"}, 415),
        ({"method": "PATCH", "content_length": "2", "content_type": "text/plain"}, 415),
        ({"method": "POST", "content_length": "2", "content_type": "application/x-www-form-urlencoded"}, 415),
        ({"method": "POST", "content_length": "2", "content_type": "text/plain; application/json"}, 415),
        ({"method": "POST", "content_length": "2", "content_type": ["application/json", "text/plain"]}, 415),
        ({"host": "rebound.example"}, 421),
        ({"host": "127.0.0.1.rebound.example:4200"}, 421),
        ({"host": ["127.0.0.1:4200", "rebound.example"]}, 421),
        ({"host": []}, 421),
        ({"host": "127.0.0.1:4300/api/health?"}, 421),
        ({"host": "127.0.0.1:x@evil.example"}, 421),
        ({"host": "", "path": "/"}, 421),
        ({"kind": "websocket", "origin": "http://evil.example"}, 403),
        ({"kind": "websocket", "host": "rebound.example:4200"}, 403),
    ],
)
def test_requests_of_other_sites_are_refused(request_: dict[str, Any], status: int) -> None:
    found, headers, body, is_reached = ask(**request_)
    assert (found, is_reached) == (status, False)
    assert "access-control-allow-origin" not in headers
    assert body.count("\n") == (0 if request_.get("kind") else 1)


@pytest.mark.parametrize(
    "request_",
    [
        {"method": "POST", **JSON},  # a program: no Origin
        {"method": "POST", "content_length": "2", "content_type": "application/json; charset=utf-8"},
        {"method": "POST", "origin": OWN, "sec_fetch_site": "same-origin", **JSON},
        {"method": "POST"},  # no body, no type: as Prefect's clients send it; CSRF tokens guard these
        {"method": "DELETE", "content_length": "0"},
        {"host": "localhost:8080"},
        {"path": "/v2/", "sec_fetch_site": "cross-site"},  # a link to the UI on another page
        {"kind": "websocket"},
        {"kind": "websocket", "origin": OWN},
    ],
)
def test_requests_of_programs_and_own_pages_are_accepted(request_: dict[str, Any]) -> None:
    status, headers, _, is_reached = ask(**request_)
    assert (status in (101, 200), is_reached) == (True, True)
    if status == 200:
        assert (headers["x-frame-options"], headers["referrer-policy"]) == ("DENY", "no-referrer")
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["connect-src"] == f"'self' ws://127.0.0.1:{PORT}"  # no connections to other hosts
        assert (policy["script-src"], policy["img-src"]) == ("'self' 'unsafe-eval'", "'self' data: blob:")


def test_the_address_with_the_token_logs_in() -> None:
    status, headers, body, is_reached = ask(path="/", query=f"token={TOKEN}")
    assert (status, is_reached, headers["cache-control"]) == (200, False, "no-store")
    script = body.partition("<script>")[2].partition("</script>")[0]
    assert f'"{base64.b64encode(TOKEN.encode()).decode()}"' in script
    assert TOKEN not in body
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in headers["content-security-policy"]
    for wrong in ("token=", "token=x", f"token={TOKEN[:-1]}", "token=%ff%fe"):
        status, _, body, is_reached = ask(path="/", query=wrong)
        assert (status, is_reached) == (403, False)
        assert "not (or no longer) valid" in body
    assert ask(path="/", query="tokens=x")[3]


def test_localhost_is_redirected_to_the_own_origin() -> None:
    status, headers, _, is_reached = ask(path="/", query=f"token={TOKEN}", host="localhost:4200")
    assert (status, headers["location"], is_reached) == (307, f"{OWN}/?token={TOKEN}", False)
    for path in ("//evil.example/", "@evil.example/"):
        assert ask(path=path, host="localhost:4200")[1]["location"].startswith(f"{OWN}/")
