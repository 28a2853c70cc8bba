"""Prefect's server behind the request filter; `driftline serve` runs it as `python -m flows.server SOCKET`.

SOCKET is the file descriptor of a listening socket of `driftline serve`, which never closes it, so that no other process can take
the port and receive the password. Otherwise as `prefect server start` (prefect/cli/_server_utils.py, 3.8.8), plus the filter. All
settings come from the environment that `flows/serve.py` sets; without an auth string there it does not start.
"""

import logging
import socket
import sys


def main(descriptor: int) -> None:
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    from flows.request_filter import RequestFilter

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
