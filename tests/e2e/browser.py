"""Chromium driven as a person would, over its DevTools protocol: by clicks at places and by keys.

JavaScript is only used to look: where a button is, what a page says.
"""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from feature_platform.local.processes import wait_until

FLAGS = ("--remote-debugging-port=0", "--remote-allow-origins=*", "--window-size=1500,1200")
_SECONDS = 120.0
# the last of several: dialogs come last in a page; what another thing covers cannot be clicked
_FIND = """(() => {{
  const found = [...document.querySelectorAll({selector})].filter(
    node => node.offsetParent && !node.disabled && ({text} === null || node.innerText.trim() === {text})).pop();
  if (!found) return null;
  found.scrollIntoView({{block: "center"}});
  const box = found.getBoundingClientRect();
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  return found.contains(document.elementFromPoint(x, y)) ? [x, y] : null;
}})()"""


class Browser:
    """One page of a running Chromium."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._calls = 0

    def open(self, url: str) -> None:
        """Go to a page."""
        self._call("Page.navigate", url=url)

    def text(self) -> str:
        """What the page says now."""
        return str(self._look("document.body ? document.body.innerText : ''"))

    def click(self, text: str | None, *, selector: str = "button") -> None:
        """Click what is called so, once it is there, stands still and may be clicked.

        Args:
            text: all of its text; None for the last of those selected.
            selector: what to look among.
        """
        expression = _FIND.format(selector=json.dumps(selector), text=json.dumps(text))
        places: list[list[float] | None] = [None]

        def stands_still() -> bool:
            places.append(self._look(expression))
            return places[-1] is not None and places[-1] == places[-2]

        assert wait_until(stands_still, seconds=_SECONDS), f"no {selector} {text!r} to click in:\n{self.text()}"
        assert places[-1] is not None
        x, y = places[-1]
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def fill(self, text: str, *, selector: str) -> None:
        """Put text in place of what a field holds and leave it with Enter, until the page holds it.

        A page that draws itself anew while somebody types loses what was typed. A person sees that and types again.
        """
        held = f"[...document.querySelectorAll({json.dumps(selector)})].pop()?.value"

        def holds() -> bool:
            if self._look(held) == text:
                return True
            self.click(None, selector=selector)
            self._write(text)
            return False

        assert wait_until(holds, seconds=_SECONDS), f"{selector} holds {self._look(held)!r}, not {text!r}"

    def _write(self, text: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key="a", code="KeyA", modifiers=2, commands=["selectAll"])
        self._call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)

    def _look(self, expression: str) -> Any:
        return self._call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        while True:  # events of the page come between
            answer = json.loads(self._socket.recv(timeout=_SECONDS))
            if answer.get("id") == self._calls:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result


@contextmanager
def running(chromium: str, profile: Path, *flags: str) -> Iterator[Browser]:
    """Start a Chromium with one page, and end it."""
    process = subprocess.Popen(
        [chromium, *flags, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = profile / "DevToolsActivePort"
        assert wait_until(lambda: port.exists() and bool(port.read_text()), seconds=_SECONDS)
        address = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:
            (page,) = (target for target in json.load(answer) if target["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.kill()
        process.wait()
