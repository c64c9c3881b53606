"""A website on 127.0.0.1 that counts its requests, and fails where a test says so."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = b"image" * 1_000


class Site(ThreadingHTTPServer):
    """Answers by path; a test sets `fails` to the number of failures that come before success."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.counts: Counter[str] = Counter()
        self.headers: dict[str, str] = {}
        self.fails = 0
        self.files: dict[str, bytes] = {}  # by path
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}  # by path: status, body and headers
        self.down: set[str] = set()  # paths of files that answer 503
        self.now = self.most = 0
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """A client may hang up."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.counts[self.path] += 1
            self.server.headers = dict(self.headers)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            if self.path in self.server.answers:
                status, body, headers = self.server.answers[self.path]
                self.send(status, body, **headers)
                return
            if self.path in self.server.files:
                self.send(503) if self.path in self.server.down else self.send(200, self.server.files[self.path])
                return
            getattr(self, "get" + self.path.split("?")[0].replace("/", "_"))()
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self.server.lock:
                self.server.now -= 1

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **named}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def get_ok(self) -> None:
        self.send(200, BODY)

    def get_missing(self) -> None:
        self.send(404, b"not here")

    def get_shaky(self) -> None:
        failed = self.server.counts["/shaky"] <= self.server.fails
        self.send(500) if failed else self.send(200, BODY)

    def get_busy(self) -> None:
        failed = self.server.counts["/busy"] <= self.server.fails
        self.send(429, Retry_After="1") if failed else self.send(200, BODY)

    def get_closed(self) -> None:
        self.send(503, Retry_After=formatdate(time.time() + 3_600, usegmt=True))

    def get_silent(self) -> None:
        time.sleep(3)

    def get_trickle(self) -> None:
        self.send(200, Content_Length="1000")
        for _ in range(100):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def get_header_trickle(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for n in range(100):
            self.wfile.write(b"X-%d: 1\r\n" % n)
            time.sleep(0.1)

    def get_large(self) -> None:
        self.send(200, bytes(200_000))

    def get_endless(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(1_000):
            self.wfile.write(b"4000\r\n" + bytes(0x4000) + b"\r\n")

    def get_short(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b"too little")
        self.close_connection = True

    def get_lost(self) -> None:
        """The start of a JPEG of no announced length, then the connection ends."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"\xff\xd8\xff\xe0" + bytes(5_000))
        self.close_connection = True

    def get_moved(self) -> None:
        self.send(302, Location="/ok")

    def get_round(self) -> None:
        self.send(302, Location="/round")

    def get_to_file(self) -> None:
        self.send(302, Location="file:///etc/hostname")

    def get_to_link_local(self) -> None:
        self.send(302, Location="http://169.254.169.254/latest/meta-data")

    def get_slow(self) -> None:
        time.sleep(0.1)
        self.send(200, BODY)


@contextmanager
def running(site: Site) -> Iterator[Site]:
    """The site, answering while the block runs."""
    threading.Thread(target=site.serve_forever, args=(0.02,), daemon=True).start()
    yield site
    site.shutdown()
    site.server_close()
