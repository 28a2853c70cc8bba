"""Prefect's API over plain HTTP, with password and CSRF token, for code that must not import Prefect.

`driftline serve` must not: its children have other settings than its own process, and the import takes two seconds.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
import uuid
from typing import Any
from urllib.parse import urlsplit

CLIENT_TIMEOUT_S = 30.0
# requests with the password of a local server use no proxy
LOOPBACK = ("127.0.0.1", "localhost")
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class PrefectApi:
    """A server's API. `url` ends in /api; `auth` is its auth string, None if it has none.

    Every method raises OSError (or a subclass, as urllib's errors) if the server does not answer or refuses.

        PrefectApi("http://127.0.0.1:4200/api", auth).post("/flow_runs/filter", {"limit": 1})
    """

    def __init__(self, url: str, auth: str | None = None):
        self.url, self._auth = url.rstrip("/"), auth
        self._csrf: dict[str, str] = {}
        self._client = str(uuid.uuid4())

    def get(self, path: str) -> Any:
        return self.ask("GET", path, None, {})

    def post(self, path: str, content: object, method: str = "POST") -> Any:
        """A request that changes something; an expired CSRF token (after an hour) is renewed."""
        fresh = not self._csrf
        try:
            return self.ask(method, path, content, self._csrf or self._fetch_csrf())
        except urllib.error.HTTPError as e:
            if e.code != 403 or fresh:
                raise
        return self.ask(method, path, content, self._fetch_csrf())

    def _fetch_csrf(self) -> dict[str, str]:
        try:
            token = self.get(f"/csrf-token?client={self._client}")["token"]
        except urllib.error.HTTPError as e:
            if e.code != 422:  # 422: the server does not use CSRF tokens
                raise
            return {}
        self._csrf = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": self._client}
        return self._csrf

    def ask(self, method: str, path: str, content: object, headers: dict[str, str]) -> Any:
        """The JSON response to one request with these headers and the password; None for an empty response."""
        body = None if content is None else json.dumps(content).encode()
        typed = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(
            f"{self.url}{path}", body, {**typed, **headers, **authorization(self._auth)}, method=method
        )
        with open_url(request, CLIENT_TIMEOUT_S) as answer:
            text = answer.read()
        return json.loads(text) if text else None


def open_url(request: urllib.request.Request, timeout_s: float) -> Any:
    """The response to a request; requests to this machine use no proxy. Raises OSError."""
    is_here = urlsplit(request.full_url).hostname in LOOPBACK
    return (_direct.open if is_here else urllib.request.urlopen)(request, timeout=timeout_s)


def without_proxies() -> dict[str, str]:
    """The environment's NO_PROXY plus this machine, for the clients of Prefect and others."""
    kept = {name: os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")}
    return {name: ",".join(filter(None, [value, *LOOPBACK])) for name, value in kept.items()}


def authorization(auth: str | None) -> dict[str, str]:
    """The header that Prefect's server compares with its auth string."""
    return {} if auth is None else {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"}
