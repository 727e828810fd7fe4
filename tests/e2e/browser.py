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

    def fill(self, text: str, *, selector: str, behind: tuple[str, ...]) -> None:
        """Put text in place of what a field holds and leave it with Enter, until the page holds it.

        What is clicked or typed while a page draws itself anew is lost. A person sees that and does it again.

        Args:
            text: what to write.
            selector: the field.
            behind: buttons that bring the field while it is not there; the first that may be clicked is.
        """
        held = f"[...document.querySelectorAll({json.dumps(selector)})].pop()?.value"

        def holds() -> bool:
            if self._look(held) == text:
                return True
            if self._clicked(selector):
                self._write(text)
            else:
                any(self._clicked("button", button) for button in behind)
            return False

        assert wait_until(holds, seconds=_SECONDS), f"{selector} holds {self._look(held)!r} in:\n{self.text()}"

    def click_away(self, text: str) -> None:
        """Click the button with this text, once it may be clicked, until it is gone."""
        named = f"[...document.querySelectorAll('button')].some(one => one.innerText.trim() === {json.dumps(text)})"
        clicks = 0

        def gone() -> bool:
            nonlocal clicks
            clicks += self._clicked("button", text)
            return clicks > 0 and not self._look(named)

        assert wait_until(gone, seconds=_SECONDS), f"{text!r} was clicked {clicks} times in:\n{self.text()}"

    def _clicked(self, selector: str, text: str | None = None) -> bool:
        """Click what is there, stands still and may be clicked; False if there is no such thing."""
        place = _FIND.format(selector=json.dumps(selector), text=json.dumps(text))
        found, again = self._look(place), self._look(place)
        if found is None or found != again:
            return False
        x, y = found
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        return True

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
