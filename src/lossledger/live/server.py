"""A server for one page: on this machine alone, for who has its address, and read only."""

import secrets
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast
from urllib.parse import parse_qs, urlsplit

from lossledger.errors import LossLedgerError
from lossledger.live.growing import Growing

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",  # what the page's own can't say
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address is a secret
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingHTTPServer):
    """Serves one page and what is new of it.

    Args:
        growing: The runs.
        port: On 127.0.0.1; 0 takes a free one.

    Raises:
        LossLedgerError: The port can't be had (slug `port-not-free`).
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, growing: Growing, port: int) -> None:
        self.growing = growing
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise LossLedgerError(
                f"The page can't be served on this port. Received: {port}: {error}. "
                "Name another with --port, or none: any free one is taken then.",
                slug="port-not-free",
            ) from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    """Answers GET, of two paths below the token; whatever else is refused."""

    server_version = "lossledger"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        """Answers with the page, or with what is new."""
        server = cast("PageServer", self.server)
        port = server.server_port
        # A name of another site that leads here (DNS rebinding) comes with that name.
        if self.headers.get("Host") not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, "text/plain", "Not this host.")
            return
        url = urlsplit(self.path)
        token, _, name = url.path.removeprefix("/").partition("/")
        if not secrets.compare_digest(token.encode(), server.token.encode()):
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "Not found.")
        elif name == "":
            self._page(server.growing)
        elif name == "since":
            self._since(server.growing, parse_qs(url.query))
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", "Not found.")

    def _page(self, growing: Growing) -> None:
        try:
            page = growing.page()
        except LossLedgerError as error:
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", f"{error}\nLoad it again.")
            return
        self._send(HTTPStatus.OK, "text/html", page)

    def _since(self, growing: Growing, query: Mapping[str, list[str]]) -> None:
        try:
            generation, version = (int(query[name][0]) for name in ("generation", "version"))
            parts = [each.split(".") for each in query.get("have", [""])[0].split(",") if each]
            have = {(int(run), int(model)): int(length) for run, model, length in parts}
        except (KeyError, ValueError):
            self._send(HTTPStatus.BAD_REQUEST, "text/plain", "Not a question of the page's.")
            return
        answer = growing.since(generation, version, have)
        self._send(HTTPStatus.OK, "application/json", answer)

    def _send(self, status: HTTPStatus, kind: str, content: str) -> None:
        data = content.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page was closed meanwhile

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: an address in a log is no secret any more."""


def serve(growing: Growing, port: int, tell: Callable[[str], None]) -> None:
    """Serves the page until Ctrl-C.

    Args:
        growing: The runs.
        port: As in `PageServer`.
        tell: Takes a line for the user.
    """
    with PageServer(growing, port) as server:
        tell(f"lossledger: live page at {server.address}  Ctrl-C ends it")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            tell("lossledger: the live page is no longer served")
