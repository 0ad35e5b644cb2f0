"""What planning is for: with a slow device among them, the devices answer sooner than by the order of the file."""

import contextlib
import json
import socket
import socketserver
import statistics
import threading
import time

import pytest

IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [7] * 144}
DELAY_S = 0.3


class Slow(socketserver.ThreadingTCPServer):
    """Passes on what a server is asked at once, and what it answers later."""

    daemon_threads = True

    def __init__(self, url):
        host, port = url.removeprefix("http://").split(":")
        super().__init__(("127.0.0.1", 0), self.pass_on)
        self.target = host, int(port)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever)

    def pass_on(self, asking, address, server):
        with socket.create_connection(self.target) as answering:
            threading.Thread(target=self.copy, args=(asking, answering, 0.0), daemon=True).start()
            self.copy(answering, asking, DELAY_S)

    @staticmethod
    def copy(source, target, delay_s):
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 16):
                time.sleep(delay_s)
                target.sendall(part)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self._thread.join()
        self.server_close()


@pytest.fixture
def measured(curl):
    """measured(coordinator) -> the devices of its answers, and the median of what they took, in seconds."""

    def measure(program):
        devices, took = set(), []
        for _ in range(5):
            began = time.perf_counter()
            status, _, body = curl(f"{program.url}/v2/models/tiny/infer", body=json.dumps({"inputs": [IMAGE]}).encode())
            took.append(time.perf_counter() - began)
            assert status == 200, body
            devices.add(json.loads(body)["parameters"]["devices"])
        return devices, statistics.median(took)

    return measure


def test_the_plan_beats_the_order_of_the_file(bundle, worker, start, cluster_file, measured):
    """One device answers 300 ms later. In the order of the file it has the first half, since the other device has but
    the second; of two devices that have all slices, the planner takes the fast one for both."""
    options = (f"--bundle={bundle}", "--deadline_ms=5000")
    whole = start("worker", f"--bundle={bundle}", "--threads=1")
    second_half = start("worker", f"--bundle={bundle}", "--threads=1", "--switch=0.5+0.5", "--device=1")
    with Slow(whole.url) as slow:
        naive = start(
            "coordinator", *options, "--switch=0.5+0.5", f"--cluster={cluster_file(slow.url, second_half.url)}"
        )
        naive_devices, naive_s = measured(naive)
        naive.stop()
        cluster = cluster_file(slow.url, worker.url)
        planned_devices, planned_s = measured(start("coordinator", *options, f"--cluster={cluster}"))
    assert naive_devices == {"pi-0,pi-1"} and not any("pi-0" in one for one in planned_devices)
    assert planned_s < naive_s
