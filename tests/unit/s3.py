"""An S3-compatible server in this process (moto's), which can be down, and fail at times."""

import socket
import threading
import urllib.request
from http.client import HTTPConnection

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class S3:
    """`requests` has method and path of each request; `fails` says which of them are refused.

    What it says of one is `True` (a 500), a status and S3's word for what is wrong, or "cut": the
    connection breaks in the middle of what is sent.
    """

    def __init__(self):
        self.requests = []
        self.fails = lambda method, path: False
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, True, 1, Quiet)
        self.port = self._server.server_port
        self._serve()

    def _serve(self):
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _answer(self, environ, start):
        request = (environ["REQUEST_METHOD"], environ["PATH_INFO"])
        self.requests.append(request)
        if how := self.fails(*request):
            return refused(how, environ, start)
        return self._app(environ, start)

    def up(self):
        self._server = make_server("127.0.0.1", self.port, self._answer, True, 1, Quiet)
        self._serve()

    def down(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, path, data=b""):
        address = f"http://127.0.0.1:{self.port}/{path}"
        urllib.request.urlopen(urllib.request.Request(address, data, method="PUT")).close()

    def put_raw(self, path, data):
        """A key as it stands, dots and all."""
        connection = HTTPConnection("127.0.0.1", self.port)
        connection.request("PUT", f"/{path}", data)
        assert connection.getresponse().status == 200
        connection.close()

    def count(self, method, end):
        return sum(m == method and path.endswith(end) for m, path in self.requests)


def refused(how, environ, start):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if how == "cut":
        environ["wsgi.input"].read(length // 2)
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError
    # A request that is not read to its end would break the connection.
    environ["wsgi.input"].read(length)
    status, word = ("500 Internal Server Error", "") if how is True else how
    said = f"<Error><Code>{word}</Code><Message>No.</Message></Error>" if word else ""
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else said.encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


class Silent:
    """A server that takes every connection and says nothing, until it is closed."""

    def __init__(self):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._taken = []
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self):
        while True:
            try:
                self._taken.append(self._listening.accept()[0])
            except OSError:
                return

    def close(self):
        # Closing alone would leave `accept` waiting.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._taken:
            each.close()
