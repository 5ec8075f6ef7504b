"""Firefox, driven by WebDriver BiDi over its own socket: no driver, nothing to download."""

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PREFERENCES = {
    "media.navigator.streams.fake": True,  # a synthetic camera and microphone
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "browser.aboutwelcome.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.disabledForTesting": True,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#",
    "remote.prefs.recommended": True,
}
PATIENCE = 30.0  # seconds


@contextmanager
def started(program: str, profile: Path) -> Iterator["Firefox"]:
    """`profile`: a new folder."""
    lines = (f"user_pref({json.dumps(key)}, {json.dumps(value)});\n" for key, value in PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines), encoding="utf-8")
    command = [program, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        address = f"{_address(process, profile / 'log')}/session"
        with connect(address, max_size=None, open_timeout=PATIENCE, ping_interval=None) as socket:
            firefox = Firefox(socket)
            yield firefox
            firefox.call("browser.close")
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _address(process: subprocess.Popen, log: Path) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"WebDriver BiDi listening on (\S+)", log.read_text(errors="replace")):
            return found.group(1)
        time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"Firefox did not start: {log.read_text(errors='replace')[-500:]}")


class Firefox:
    """One browser, at the other end of its socket."""

    def __init__(self, socket: ClientConnection):
        self._socket, self._number = socket, 0
        self.events: list[dict[str, Any]] = []
        self.call("session.new", capabilities={})
        self.call("session.subscribe", events=["log.entryAdded"])

    def call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == self._number:
                if message["type"] == "error":
                    raise RuntimeError(f"{method}: {message['message']}")
                return message["result"]
            self.events.append(message)

    def page(self, width: int = 1280, height: int = 800) -> "Page":
        context = self.call("browsingContext.create", type="tab")["context"]
        self.call("browsingContext.setViewport", context=context, viewport={"width": width, "height": height})
        return Page(self, context)


class Page:
    """One tab. What it offers bears the names that it has in Playwright."""

    def __init__(self, browser: Firefox, context: str):
        self.browser, self.context = browser, context

    def goto(self, url: str) -> None:
        self.browser.call("browsingContext.navigate", context=self.context, url=url, wait="complete")

    def add_init_script(self, script: str) -> None:
        self.browser.call(
            "script.addPreloadScript", functionDeclaration=f"() => {{ {script} }}", contexts=[self.context]
        )

    def evaluate(self, function: str, argument: Any = None) -> Any:
        """What a function of one argument, or an expression, gives; as JSON takes it."""
        called = f"(({function}))" if "=>" in function.split("\n")[0] else f"(() => {function})"
        result = self.browser.call(
            "script.callFunction",
            functionDeclaration=f"async (argument) => JSON.stringify(await {called}(JSON.parse(argument)) ?? null)",
            arguments=[{"type": "string", "value": json.dumps(argument)}],
            target={"context": self.context},
            awaitPromise=True,
            userActivation=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    def _element(self, selector: str) -> dict[str, str]:
        locator = {"type": "css", "value": selector}
        [node] = self.browser.call("browsingContext.locateNodes", context=self.context, locator=locator)["nodes"][:1]
        return {"sharedId": node["sharedId"]}

    def click(self, selector: str) -> None:
        """By the pointer, so that it counts as the user's own."""
        script = "selector => document.querySelector(selector).scrollIntoView({ block: 'center' })"
        self.evaluate(script, selector)
        origin = {"type": "element", "element": self._element(selector)}
        click = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        source = {"type": "pointer", "id": "mouse", "actions": click}
        self.browser.call("input.performActions", context=self.context, actions=[source])

    def choose(self, selector: str, files: list[Path]) -> None:
        self.browser.call(
            "input.setFiles", context=self.context, element=self._element(selector), files=[str(file) for file in files]
        )

    def type(self, keys: str) -> None:
        pressed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self.browser.call(
            "input.performActions", context=self.context, actions=[{"type": "key", "id": "keys", "actions": pressed}]
        )

    def screenshot(self, path: Path) -> None:
        data = self.browser.call("browsingContext.captureScreenshot", context=self.context)["data"]
        path.write_bytes(base64.b64decode(data))

    @property
    def wrong(self) -> list[str]:
        """What its scripts have complained of."""
        self.evaluate("null")  # so that what was told before has arrived
        told = [event["params"] for event in self.browser.events if event.get("method") == "log.entryAdded"]
        return [entry["text"] for entry in told if entry["level"] in ("error", "warn") and self._is_ours(entry)]

    def _is_ours(self, entry: dict[str, Any]) -> bool:
        return entry["source"].get("context") == self.context

    def close(self) -> None:
        self.browser.call("browsingContext.close", context=self.context)
