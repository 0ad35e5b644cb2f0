"""What planning is for: a slow device among others does not keep an answer waiting."""

import contextlib
import json
import socket
import socketserver
import threading
import time

IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [7] * 144}
DELAY_S = 2.0


class Slow(socketserver.ThreadingTCPServer):
    """Passes on what a server is asked at once, and what it answers to inferences later."""

    daemon_threads = True

    def __init__(self, url):
        host, port = url.removeprefix("http://").split(":")
        super().__init__(("127.0.0.1", 0), self.pass_on)
        self.target = host, int(port)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever)

    def pass_on(self, asking, address, server):
        inference = threading.Event()

        def asked(part):
            if b"/infer " in part:
                inference.set()

        def answered(part):
            if inference.is_set():
                inference.clear()
                time.sleep(DELAY_S)

        with socket.create_connection(self.target) as answering:
            threading.Thread(target=self.copy, args=(asking, answering, asked), daemon=True).start()
            self.copy(answering, asking, answered)

    @staticmethod
    def copy(source, target, before):
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 16):
                before(part)
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


class Stuck(Slow):
    """Passes on all but inferences, and nothing after one."""

    @staticmethod
    def copy(source, target, before):
        with contextlib.suppress(OSError):
            is_stuck = False
            while part := source.recv(1 << 16):
                is_stuck |= b"/infer " in part
                if not is_stuck:
                    target.sendall(part)


def test_a_start_beside_a_device_that_is_not_measured_in_time(bundle, start, cluster_file, curl):
    """The half that is there has to do once the time for a whole switch is over."""
    options = [f"--bundle={bundle}", "--switch=0.5+0.5"]
    workers = [start("worker", *options, f"--device={i}") for i in (0, 1)]
    with Stuck(workers[1].url) as stuck:
        cluster = cluster_file(workers[0].url, stuck.url)
        coordinator = start("coordinator", *options, f"--cluster={cluster}", "--startup_timeout_s=0")
        status, _, answer = curl(
            f"{coordinator.url}/v2/models/tiny/infer", body=json.dumps({"inputs": [IMAGE]}).encode()
        )
        assert (status, json.loads(answer)["parameters"]["devices"]) == (200, "pi-0,")
        # It was there all the time.
        found = {one["name"]: one["state"] for one in json.loads(curl(f"{coordinator.url}/status")[2])["devices"]}
        assert found["pi-0"] == "up" and found["pi-1"] != "down"
        coordinator.stop()


def test_the_plan_spares_a_slow_device(bundle, worker, start, cluster_file, curl):
    """Both devices have both halves; the one that the file names first answers two seconds later."""
    body = json.dumps({"inputs": [IMAGE]}).encode()
    with Slow(worker.url) as slow:
        whole = start("worker", f"--bundle={bundle}", "--threads=1")
        cluster = cluster_file(slow.url, whole.url)
        coordinator = start("coordinator", f"--bundle={bundle}", "--switch=0.5+0.5", f"--cluster={cluster}")
        for _ in range(5):
            status, _, answer = curl(f"{coordinator.url}/v2/models/tiny/infer", body=body)
            assert status == 200 and set(json.loads(answer)["parameters"]["devices"].split(",")) == {"pi-1"}
