"""Webhooks, one path per owner: who was told what, and when by the stack's clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from drill.clock import StackClock
from drill.project import ROUTES


class Receivers:
    """A server whose every request is a line of a file."""

    def __init__(self, record: Path, clock: StackClock) -> None:
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                line = {"at": clock.now().isoformat(), "receiver": self.path.strip("/"), "notice": body}
                with lock, record.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        record.touch()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def routes(self) -> dict[str, str]:
        """The variables of the owners' routes; a receiver has the name of its dbt group."""
        port = self._server.server_port
        return {name: f"http://127.0.0.1:{port}/{name.removesuffix('_ALERT_URL').lower()}" for name in ROUTES}

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def receiving(record: Path, clock: StackClock) -> Iterator[Receivers]:
    """Receivers that are closed at the end."""
    made = Receivers(record, clock)
    try:
        yield made
    finally:
        made.close()
