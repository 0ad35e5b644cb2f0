"""The status page: in a real browser where one is installed, and its content-security policy without one."""

import asyncio
import base64
import copy
import hashlib
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fusion.coordinator.status_page import HEADERS, PAGE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
TOKEN = "0123456789abcdef"
HOSTILE = "<img src=x onerror=window.broken=1><script>window.broken=1</script>"
NEWEST = {"age_s": 0.4, "ms": 31.5, "switch": "0.5+0.25+0.25", "devices": "a,b,c", "missing": ""}
NEWEST |= {"early": False, "degraded": False}
STATUS = {
    "name": "imagenette_resnet50",
    "model_id": "9f2c41d7ab0e9f2c41d7ab0e9f2c41d7ab0e9f2c41d7ab0e9f2c41d7ab0e9f2c",
    "precision": "int8",
    "uptime_s": 93_784.2,
    "deadline_ms": 100.0,
    "min_accuracy": None,
    "accuracy_loss": 0.01,
    "early_answer": "off",
    "plan": {
        "switch": "0.5+0.25+0.25",
        "assignment": ["kitchen-pi5", "hall-pi4", "attic-pi4"],
        "latency_ms": 34.2,
        "accuracy": 0.7431,
        "rule": "the fastest within 1 point of the most accurate",
        "lacks": "",
    },
    "meanwhile": [{"switch": "1.0", "assignment": ["cellar-pi5"], "latency_ms": 41.2, "accuracy": 0.7615}],
    "rejected": [
        {
            "switch": "4x0.25",
            "assignment": ["kitchen-pi5", "hall-pi4", "attic-pi4", "garage-zero2"],
            "latency_ms": 88.9,
            "accuracy": 0.7012,
            "reason": "lower accuracy",
        },
        {
            "switch": "1.0",
            "assignment": ["kitchen-pi5"],
            "latency_ms": 130.4,
            "accuracy": 0.7615,
            "reason": "130.4 ms is beyond the deadline of 100 ms",
        },
    ],
    "devices": [
        {
            "name": "kitchen-pi5",
            "url": "https://192.168.0.11:8001",
            "state": "up",
            "reason": "",
            "since_s": 93_700.0,
            "inflight": 1,
            "requests": 18_231,
            "failures": 0,
            "latency_ms": {"imagenette_resnet50-0.5+0.25+0.25-0": 31.02, "imagenette_resnet50-0.5+0.5-0": 31.4},
            "models": 9,
        },
        {
            "name": "garage-zero2",
            "url": "https://192.168.0.14:8001",
            "state": "down",
            "reason": "while connecting: connection refused; asked again in 4 s",
            "since_s": 64.0,
            "inflight": 0,
            "requests": 4_012,
            "failures": 37,
            "latency_ms": {},
            "models": 9,
        },
    ],
    "requests": {"running": 1, "answered": 18_231, "early": 404, "degraded": 12, "refused": 3, "late_slices": 505},
    "recent": [
        NEWEST | {"status": 200},
        NEWEST | {"age_s": 0.9, "ms": 21.5, "devices": "a,,c", "missing": "1", "early": True, "status": 200},
        NEWEST | {"age_s": 1.4, "ms": 99.8, "devices": "a,b,", "missing": "2", "degraded": True, "status": 200},
        NEWEST | {"age_s": 2.4, "ms": 100.2, "devices": ",,", "missing": "0,1,2", "status": 504},
    ],
}


class Coordinator:
    """Serves the page and what a test puts into `status`; with `token`, as a coordinator that asks for it."""

    def __init__(self, token=None):
        self.status, self.token, self.shown = copy.deepcopy(STATUS), token, set()

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/", self._page)
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def stop(self):
        await self._runner.cleanup()

    async def __aexit__(self, *_):
        await self.stop()

    async def _page(self, request):
        return web.Response(body=PAGE, headers=HEADERS)

    async def _status(self, request):
        self.shown.add(request.headers.get("Authorization"))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"error": "no token"}, status=401)
        return web.json_response(self.status)


@pytest.fixture(scope="module")
def debugger():
    """The address of a headless browser's debugging protocol."""
    with tempfile.TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        options += ["--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        command = [str(CHROMIUM), *options, "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            file, end = Path(profile) / "DevToolsActivePort", time.monotonic() + 180
            while not file.exists() or "\n" not in file.read_text():
                assert time.monotonic() < end, "the browser did not start"
                time.sleep(0.02)
            yield f"http://127.0.0.1:{file.read_text().splitlines()[0]}"
            process.kill()


class Tab:
    """One tab of the browser, so many pixels wide, that shows `url`; `complaints` is what the browser logs."""

    def __init__(self, debugger, url, width=1100):
        self._debugger, self._url, self._width = debugger, url, width
        self._number, self.complaints = 0, []

    async def __aenter__(self):
        self._session = aiohttp.ClientSession()
        async with self._session.put(f"{self._debugger}/json/new?about:blank") as answer:
            address = (await answer.json())["webSocketDebuggerUrl"]
        self._socket = await self._session.ws_connect(address, max_msg_size=0)
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        size = {"width": self._width, "height": 1000, "deviceScaleFactor": 1, "mobile": self._width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        await self.call("Page.navigate", url=self._url)
        await self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")
        return self

    async def __aexit__(self, *_):
        await self.call("Page.close")
        await self._session.close()

    async def call(self, method, **params):
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": params})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), 180)
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
                self.complaints.append(message["params"])

    async def run(self, script):
        """The value of a JavaScript expression."""
        done = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    async def wait_for(self, script):
        end = time.monotonic() + 180
        while not await self.run(script):
            assert time.monotonic() < end, (script, await self.text())
            await asyncio.sleep(0.05)

    async def text(self):
        return re.sub(r"\s+", " ", await self.run("document.body.innerText"))


SHOWN = "document.getElementById('status')?.hidden === false"
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def test_loads_nothing_from_elsewhere():
    page = PAGE.decode()
    assert set(re.findall(r"https?://[\w./]+", page)) == {"http://www.w3.org/2000/svg"}
    for markup in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick="):
        assert markup not in page


def test_policy_names_the_inline_code():
    policy = dict(part.strip().split(" ", 1) for part in HEADERS["Content-Security-Policy"].split(";"))
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE.decode(), re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'"


@in_browser
def test_shows_the_cluster(debugger):
    async def visit():
        async with Coordinator() as coordinator, Tab(debugger, coordinator.url) as tab:
            await tab.wait_for(SHOWN)
            await tab.run("document.querySelector('details').open = true")
            text = await tab.text()
            for part in (
                "imagenette_resnet50 int8 · model 9f2c41d7ab0e · up 1 d 2 h",
                "0.5+0.25+0.25 · expected: 34.2 ms, accuracy 74.31 %",
                "chosen: the fastest within 1 point of the most accurate · deadline 100.0 ms · early answers: off",
                "for requests that come meanwhile: 1.0 on cellar-pi5",
                "kitchen-pi5 slice 0: 0.5",
                "● up for 1 d 2 h",
                "0.5+0.25+0.25-0 31.0 ms",
                "✕ down for 1 min 4 s: while connecting: connection refused",
                "130.4 ms is beyond the deadline of 100 ms",
                "of them early 404",
                "slices not waited for 505",
                "early, without slice 1",
            ):
                assert part in text, (part, text)
            marks = "['whole', 'early', 'partial', 'failed'].map(c => document.querySelectorAll('#chart .' + c).length)"
            assert await tab.run(marks) == [1, 1, 1, 1]
            coordinator.status["requests"]["answered"] = 18_240
            coordinator.status["plan"]["lacks"] = "though it is over the deadline of 30 ms"
            await tab.wait_for("document.body.innerText.includes('18,240')")
            assert "accuracy 74.31 %, though it is over the deadline of 30 ms" in await tab.text()
            coordinator.status["plan"]["accuracy"] = 31.25
            await tab.wait_for("document.body.innerText.includes('accuracy 31.25 dB')")
            assert tab.complaints == []

    asyncio.run(visit())


@in_browser
@pytest.mark.parametrize(
    ("assignment", "parts", "named"),
    [
        (
            ["kitchen-pi5", "", "attic-pi4"],
            ["kitchen-pi5 slice 0: 0.5", "– slice 1: 0.25"],
            "kitchen-pi5, –, attic-pi4",
        ),
        (["", "hall-pi4", "attic-pi4"], ["– slice 0: 0.5", "hall-pi4 slice 1: 0.25"], "–, hall-pi4, attic-pi4"),
        (["", "hall-pi4", ""], ["– slice 0: 0.5", "– slice 2: 0.25"], "–, hall-pi4, –"),
    ],
)
def test_a_slice_without_a_device_has_no_name(debugger, assignment, parts, named):
    async def visit():
        async with Coordinator() as coordinator, Tab(debugger, coordinator.url) as tab:
            lacks = "though no living device serves slice 1"
            coordinator.status["plan"] |= {"assignment": assignment, "lacks": lacks}
            coordinator.status["meanwhile"][0] |= {"switch": "0.5+0.5", "assignment": assignment}
            coordinator.status["rejected"][0] |= {"assignment": assignment}
            await tab.wait_for(f"{SHOWN} && document.body.innerText.includes({json.dumps(lacks)})")
            await tab.run("document.querySelector('details').open = true")
            text = await tab.text()
            for part in (*parts, f"for requests that come meanwhile: 0.5+0.5 on {named}", f"4x0.25 {named} 88.9 ms"):
                assert part in text, (part, text)
            assert await tab.run("document.querySelectorAll('#parts li').length") == 3
            assert tab.complaints == []

    asyncio.run(visit())


@in_browser
def test_names_from_files_are_never_markup(debugger):
    status = json.loads(json.dumps(STATUS))

    def spoil(value):
        if isinstance(value, dict):
            return {HOSTILE if key.startswith("imagenette") else key: spoil(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoil(one) for one in value]
        return HOSTILE if isinstance(value, str) else value

    async def visit():
        async with Coordinator() as coordinator, Tab(debugger, coordinator.url) as tab:
            coordinator.status = spoil(status)
            await tab.wait_for(SHOWN)
            await tab.run("document.querySelector('details').open = true")
            await tab.wait_for("document.body.innerText.includes('<img')")
            hostile = [part for part in json.dumps(coordinator.status).split(",") if HOSTILE in part]
            assert len(hostile) > 10 and (await tab.text()).count(HOSTILE) > 10
            assert await tab.run("window.broken === undefined")
            assert await tab.run("document.querySelectorAll('main img, main script').length") == 0
            assert tab.complaints == []

    asyncio.run(visit())


@in_browser
@pytest.mark.parametrize("odd", [{}, [], None, {"plan": None, "devices": {}, "recent": [{}], "rejected": [{}]}])
def test_odd_answers_do_not_end_it(debugger, odd):
    async def visit():
        async with Coordinator() as coordinator, Tab(debugger, coordinator.url) as tab:
            coordinator.status = odd
            await tab.wait_for("document.getElementById('live').textContent !== 'connecting …'")
            coordinator.status = STATUS
            await tab.wait_for(f"{SHOWN} && document.body.innerText.includes('kitchen-pi5')")

    asyncio.run(visit())


@in_browser
def test_asks_for_the_token_once(debugger):
    async def give(tab, token):
        await tab.run(f"document.getElementById('token').value = {json.dumps(token)}; 0")
        await tab.run("document.getElementById('login').requestSubmit()")

    async def visit():
        async with Coordinator(TOKEN) as coordinator, Tab(debugger, coordinator.url) as tab:
            await tab.wait_for("!document.getElementById('ask').hidden")
            for wrong in ("wrong", "ünfit", "two words"):
                await tab.run("document.getElementById('refused').textContent = ''")
                await give(tab, wrong)
                await tab.wait_for("document.body.innerText.includes('This token was refused.')")
            assert not await tab.run(SHOWN)
            await give(tab, TOKEN)
            await tab.wait_for(SHOWN)
            assert await tab.run("document.getElementById('ask').hidden")
            assert TOKEN not in await tab.run("location.href + document.documentElement.outerHTML")
            await tab.call("Page.reload")
            await tab.wait_for(SHOWN)
            assert coordinator.shown == {None, "Bearer wrong", f"Bearer {TOKEN}"}

    asyncio.run(visit())


@in_browser
def test_a_name_and_password_in_the_address(debugger):
    async def visit():
        async with Coordinator() as coordinator:
            url = coordinator.url.replace("://", f"://somebody:{TOKEN}@")
            async with Tab(debugger, url) as tab:
                await tab.wait_for(SHOWN)
            assert tab.complaints == []

    asyncio.run(visit())


@in_browser
def test_says_that_nobody_answers(debugger):
    async def visit():
        async with Coordinator() as coordinator, Tab(debugger, coordinator.url, width=360) as tab:
            await tab.wait_for(SHOWN)
            assert await tab.run("document.documentElement.scrollWidth") <= 360
            await coordinator.stop()
            await tab.wait_for("document.body.innerText.includes('has not answered for')")
            assert await tab.run("document.title") == "✕ imagenette_resnet50"

    asyncio.run(visit())
