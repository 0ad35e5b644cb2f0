"""Networks in user space: when packets arrive, and namespaces that are made and removed."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.networks import namespaces
from benchmarks.networks.links import WIFI, Link, Traffic
from fusion.base.program import UserError

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = os.geteuid() == 0 and os.path.exists("/dev/net/tun")
as_root = pytest.mark.skipif(not ALLOWED, reason="network namespaces need root and TUN")


def traffic(**link):
    return Traffic(Link("test", **link), random.Random(0))


def test_packets_pass_ports_one_after_the_other():
    # 1,250 bytes are 10,000 bits: 1 ms at 10 Mbit/s, at the sender's port and at the receiver's.
    carried = traffic(mbit=10.0, delay_ms=5.0)
    sent = [(0, 1), (0, 1), (0, 2), (1, 0)]
    # The third waits behind two others at machine 0, and finds the port of machine 2 free.
    assert [carried.arrival(0.0, *way, 1250) for way in sent] == pytest.approx([0.007, 0.008, 0.009, 0.007])
    assert carried.arrival(1.0, 0, 1, 1250) == pytest.approx(1.007)


def test_packets_share_the_air():
    carried = traffic(mbit=10.0, shared=True)
    sent = [(0, 1), (2, 0), (1, 2)]
    assert [carried.arrival(0.0, *way, 1250) for way in sent] == pytest.approx([0.001, 0.002, 0.003])


def test_a_network_without_limits():
    carried = traffic()
    assert [carried.arrival(3.0, 0, 1, 1500) for _ in range(3)] == [3.0, 3.0, 3.0]


def test_delay_and_loss():
    carried = Traffic(WIFI, random.Random(1))
    count = 20_000
    times = [carried.arrival(float(second), 0, 1, 100) for second in range(count)]
    lost = sum(at is None for at in times)
    assert abs(lost / count - 0.01) < 0.003
    # 100 bytes take 40 us; the rest is the delay.
    delays = [1e3 * (at - second) - 0.04 for second, at in enumerate(times) if at is not None]
    assert min(delays) >= 1 - 1e-6 and max(delays) <= 5 + 1e-6
    assert abs(sum(delays) / len(delays) - 3) < 0.05
    # In one direction no packet overtakes another.
    ordered = [carried.arrival(count + 1e-4 * i, 0, 1, 100) for i in range(1000)]
    arrived = [at for at in ordered if at is not None]
    assert arrived == sorted(arrived)


def test_one_sentence_without_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UserError, match="network namespaces need root"), namespaces.network(1, WIFI, 0):
        pass


ECHO = """
import socket
listener = socket.create_server(("0.0.0.0", 9000))
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)
"""


def of_this_project():
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^paradis-\d+-\d+", listed, re.MULTILINE))


@as_root
def test_namespaces_carry_what_is_sent():
    before = of_this_project()
    with namespaces.network(2, Link("slow", delay_ms=20.0), 0) as joined:
        assert of_this_project() - before == set(joined.names)
        server: Any = subprocess.Popen([*joined.prefixes[1], sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
        with server:
            try:
                server.stdout.readline()
                with socket.create_connection((joined.addresses[1], 9000), timeout=120) as connection:
                    started = time.perf_counter()
                    connection.sendall(b"there")
                    assert connection.recv(100) == b"there"
                    # There and back.
                    assert time.perf_counter() - started >= 0.04
                    joined.relay.use(Link("fast"))
                    out, back, lost = joined.relay.carried()
                    size = 200_000
                    connection.sendall(bytes(size))
                    found = 0
                    while found < size:
                        found += len(connection.recv(65536))
                    after = joined.relay.carried()
                    # With headers, and what was sent again.
                    assert size < after[0] - out < 1.5 * size and size < after[1] - back < 1.5 * size
            finally:
                server.kill()
        with pytest.raises(OSError):
            socket.create_connection((joined.addresses[0], 9000), timeout=5)
    assert of_this_project() == before


HOLDER = """
import sys
from benchmarks.networks.links import WIFI
from benchmarks.networks.namespaces import network
if __name__ == "__main__":
    with network(1, WIFI, 0) as joined:
        print(*joined.names, flush=True)
        sys.stdin.read()
"""


@as_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(number, tmp_path):
    program = tmp_path / "holder.py"
    program.write_text(HOLDER)
    holder: Any = subprocess.Popen(
        [sys.executable, program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    with holder:
        (name,) = holder.stdout.readline().decode().split()
        assert name in of_this_project()
        holder.send_signal(number)
        holder.wait(300)
        holder.stdin.close()
        if number == signal.SIGKILL:
            # The next start removes what this one could not.
            assert name in of_this_project() and name in namespaces.remove_stale()
        assert name not in of_this_project()
