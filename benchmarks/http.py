"""Measures what HTTP takes: this code, older code and a bare fan-out answer the same requests of one client in turn.

    python -m benchmarks.http --bundle=build/mobilenet_224 --other=../before --csv=benchmarks/results/http.csv

For every switch each of them gets workers of its own, one per slice, and a coordinator, all of them processes of this
machine. --other is the folder of another checkout of this repository. The bundle is one of a classifier. See
METHODOLOGY.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from aiohttp import ClientSession

from benchmarks.conditions import write_csv
from fusion.base import columns
from fusion.base.files import results
from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.bundle.contents import Bundle
from fusion.local.cores import pinned, place
from fusion.runtime import choosing as runtime
from paradis_tf.base import program

_BUNDLE = define_path("bundle", None, "The bundle's folder.", required=True)
_OTHER = define_path("other", None, "Folder of another checkout of this repository; left out, only this one.")
_SWITCHES = flags.DEFINE_list("switches", None, "The switches; default: those of no more slices than there are cores.")
_ROUNDS = flags.DEFINE_integer("rounds", 25, "Turns of each, of one request at a time.", 1, 100_000)
_REQUESTS = flags.DEFINE_integer("requests", 20, "Timed requests of a turn.", 2, 100_000)
_AT_ONCE = flags.DEFINE_integer("at_once", 4, "Requests at once in further turns, a third of --rounds.", 2, 1024)
_CSV = define_path("csv", "", "File to write the table to.")

_THIS, _OLDER, _BARE = "this", "other", "bare"
# What the bare fan-out says of its slowest invocation.
_INVOKE_HEADER = "Invoke-Ms"
_ROOT = Path(__file__).resolve().parents[1]
_COLUMNS = ("switch", "at_once", "side", "p50_ms", "p95_ms", "over_invoke_ms", "requests_per_s", "coordinator_cpu_ms")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_START_S, _ANSWER_S = 120, 60


@dataclass
class Contender:
    """A coordinator that is measured: how it is asked, and what has been measured of it.

    Attributes:
      name: `this`, `other` or `bare`.
      url, headers, body: the request.
      pid: the coordinator's process.
      seconds: of every timed request.
      invoke_ms: of the slowest slice, of every timed request of the bare fan-out.
      cpu_s, wall_s: of all turns; `cpu_s` the coordinator's.
    """

    name: str
    url: str
    headers: dict[str, str]
    body: bytes
    pid: int
    seconds: list[float] = field(default_factory=list)
    invoke_ms: list[float] = field(default_factory=list)
    cpu_s: float = 0.0
    wall_s: float = 0.0


def main(argv: list[str]) -> None:
    bundle = manifest.load(_BUNDLE.value)
    bundle.check_precision("int8")
    if not bundle.task.has_classes:
        raise UserError(f"bundle {_BUNDLE.value!r} is of {bundle.task.name}; this program takes one of a classifier.")
    cores = sorted(os.sched_getaffinity(0))
    switches = _SWITCHES.value or [one.switch for one in bundle.switches if len(one.slices) <= len(cores)]
    others = {} if _OTHER.value is None else {_OLDER: _runner(Path(_OTHER.value))}
    rows: list[Sequence[Any]] = []
    for switch in switches:
        slices = len(bundle.find_switch(switch).slices)
        placement = place(cores, slices)
        print(f"switch {switch}: starting", file=sys.stderr, flush=True)
        with contextlib.ExitStack() as stack:
            contenders = [
                stack.enter_context(_cluster(bundle, switch, cores, name, root, package))
                for name, (root, package) in {_THIS: (_ROOT, "fusion"), **others}.items()
            ]
            contenders.append(stack.enter_context(_bare(bundle, switch, cores)))
            with pinned(placement.client):
                rows += asyncio.run(_measure(switch, contenders))
    with results() as write:
        if _CSV.value:
            height, width, _ = bundle.shape
            options = {"bundle": bundle.name, "image": f"{width}x{height}", "runtime": str(runtime.choose("auto"))}
            write(write_csv, Path(_CSV.value), _COLUMNS, rows, options)
        print(columns.render(_COLUMNS, rows))
        for switch in switches:
            _judge(switch, {row[2]: row for row in rows if row[:2] == (switch, 1)})


def _judge(switch: str, rows: dict[str, Sequence[Any]]) -> None:
    """Says by how much this code is slower than the other, and than the bare fan-out."""
    this, bare = rows[_THIS], rows[_BARE]
    if _OLDER in rows:
        print(f"{switch}: this code's p50 is {this[3] - rows[_OLDER][3]:+.2f} ms from the other's (aim: at most +1.50)")
    print(
        f"{switch}: this code's p50 is {this[3] - bare[3]:+.2f} ms from the bare fan-out's, which itself takes "
        f"{bare[5]:.2f} ms beyond the invocation (aim: at most as much again)"
    )


def _runner(folder: Path) -> tuple[Path, str]:
    """(root, package of the runner) of a checkout, today's layout or the one before."""
    for package in ("fusion", "export.fusion"):
        if (folder / package.replace(".", "/") / "__init__.py").is_file():
            return folder.resolve(), package
    raise UserError(f"--other={folder} holds no runner; give a checkout of this repository.")


@contextlib.contextmanager
def _cluster(
    bundle: Bundle, switch: str, cores: Sequence[int], name: str, root: Path, package: str
) -> Iterator[Contender]:
    """Workers and a coordinator of a runner, ready to be asked."""
    common = [f"--bundle={bundle.folder}", f"--switch={switch}", "--precision=int8", "--port=0", "--stop_at_stdin_end"]
    slices = len(bundle.find_switch(switch).slices)
    placement = place(cores, slices)
    with contextlib.ExitStack() as stack:
        lines = []
        for device in range(slices):
            core = [placement.workers[device % len(placement.workers)]]
            options = [*common, f"--device={device}", "--threads=1"]
            url, _ = stack.enter_context(_process(root, f"{package}.worker", options, core))
            lines.append(f'[[device]]\nname = "worker-{device}"\nurl = "{url}"\n')
        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "cluster.toml"
        file.write_text("".join(lines), encoding="utf-8")
        options = [*common, f"--cluster={file}"]
        url, pid = stack.enter_context(_process(root, f"{package}.coordinator", options, placement.coordinator))
        image = _image(bundle)
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, *bundle.shape]}
        logits = {"name": "logits", "parameters": {"binary_data": True}}
        head = json.dumps(
            {"inputs": [tensor | {"parameters": {"binary_data_size": len(image)}}], "outputs": [logits]}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        yield Contender(name, f"{url}/v2/models/{bundle.name}/infer", headers, head + image, pid)


@contextlib.contextmanager
def _bare(bundle: Bundle, switch: str, cores: Sequence[int]) -> Iterator[Contender]:
    """The same slices behind the bare fan-out."""
    slices = len(bundle.find_switch(switch).slices)
    placement = place(cores, slices)
    module = "benchmarks.fan_out"
    with contextlib.ExitStack() as stack:
        workers = []
        for device in range(slices):
            core = [placement.workers[device % len(placement.workers)]]
            options = [f"--bundle={bundle.folder}", f"--switch={switch}", f"--device={device}"]
            workers.append(stack.enter_context(_process(_ROOT, module, options, core))[0])
        options = [f"--worker={url}" for url in workers]
        url, pid = stack.enter_context(_process(_ROOT, module, options, placement.coordinator))
        yield Contender(_BARE, url, {}, _image(bundle), pid)


@contextlib.contextmanager
def _process(root: Path, module: str, options: Sequence[str], cores: Sequence[int]) -> Iterator[tuple[str, int]]:
    """(address, process id) of a server that is ready; it is ended after the block."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        with pinned(cores):
            process = subprocess.Popen(
                [sys.executable, "-m", module, *options],
                cwd=root,
                env=os.environ | {"PYTHONPATH": str(root)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        with process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                if "ready: " not in line:
                    process.wait(_START_S)
                    errors.seek(0)
                    last = errors.read().strip().splitlines()[-1:] or ["it wrote nothing"]
                    raise UserError(f"{module} of {root} ended before it was ready: {last[0]}")
                yield line.split("ready: ")[1].strip(), process.pid
            finally:
                process.kill()


def _image(bundle: Bundle) -> bytes:
    return np.random.default_rng(0).integers(0, 256, bundle.shape, dtype=np.uint8).tobytes()


async def _measure(switch: str, contenders: Sequence[Contender]) -> list[Sequence[Any]]:
    """The rows of a switch: with one request at a time, then with several."""
    async with contextlib.AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(ClientSession()) for _ in contenders]
        answers = [await _ask(*pair) for pair in zip(contenders, sessions, strict=True)]
        # Logits are the last, or all, of an answer.
        size = len(answers[-1])
        first, *rest = [np.frombuffer(answer[-size:], np.float32) for answer in answers]
        if not all(np.allclose(first, other, rtol=1e-4, atol=1e-4) for other in rest):
            raise UserError(f"switch {switch}: the answers differ; give one bundle that both codes run alike.")
        rows: list[Sequence[Any]] = []
        for at_once, rounds in ((1, _ROUNDS.value), (_AT_ONCE.value, -(-_ROUNDS.value // 3))):
            for contender in contenders:
                contender.seconds, contender.invoke_ms = [], []
                contender.cpu_s = contender.wall_s = 0.0
            for number in range(rounds):
                if sys.stderr.isatty():
                    print(f"\r{switch}, {at_once} at once: {number + 1}/{rounds} ", end="", file=sys.stderr, flush=True)
                order = [(number + place) % len(contenders) for place in range(len(contenders))]
                for place_ in order:
                    await _turn(contenders[place_], sessions[place_], at_once)
            rows += _rows(switch, at_once, contenders)
        return rows


async def _turn(contender: Contender, session: ClientSession, at_once: int) -> None:
    # The first finds cold caches, and is not counted.
    await asyncio.gather(*(_ask(contender, session) for _ in range(at_once)))
    del contender.seconds[-at_once:], contender.invoke_ms[-at_once:]
    left = iter(range(_REQUESTS.value))

    async def client() -> None:
        for _ in left:
            await _ask(contender, session)

    began, cpu_s = time.perf_counter(), _cpu_s(contender.pid)
    await asyncio.gather(*(client() for _ in range(at_once)))
    contender.wall_s += time.perf_counter() - began
    contender.cpu_s += _cpu_s(contender.pid) - cpu_s


async def _ask(contender: Contender, session: ClientSession) -> bytes:
    began = time.perf_counter()
    async with session.post(contender.url, data=contender.body, headers=contender.headers) as response:
        answer = await response.read()
    contender.seconds.append(time.perf_counter() - began)
    if response.status != 200:
        raise UserError(f"{contender.name}: {contender.url} answered {response.status}: {answer[:200]!r}")
    contender.invoke_ms.append(float(response.headers.get(_INVOKE_HEADER, "0")))
    return answer


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _rows(switch: str, at_once: int, contenders: Sequence[Contender]) -> list[Sequence[Any]]:
    invoke_ms = statistics.median(contenders[-1].invoke_ms)
    rows: list[Sequence[Any]] = []
    for contender in contenders:
        times = sorted(1e3 * seconds for seconds in contender.seconds)
        p50, p95 = statistics.median(times), times[min(len(times) - 1, int(0.95 * len(times)))]
        over = round(p50 - invoke_ms, 3) if at_once == 1 else ""
        rate, cpu_ms = len(times) / contender.wall_s, 1e3 * contender.cpu_s / len(times)
        figures = (round(p50, 3), round(p95, 3), over, round(rate, 1), round(cpu_ms, 3))
        rows.append((switch, at_once, contender.name, *figures))
    return rows


if __name__ == "__main__":
    program.run(main)
