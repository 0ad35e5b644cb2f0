"""What planning is for: a slow device among others does not keep an answer waiting."""

import contextlib
import json
import socket
import socketserver
import threading
import time

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


def test_the_plan_spares_a_slow_device(bundle, worker, start, cluster_file, curl):
    """Both devices have all slices; the one that the file names first answers 300 ms later."""
    body = json.dumps({"inputs": [IMAGE]}).encode()
    with Slow(worker.url) as slow:
        whole = start("worker", f"--bundle={bundle}", "--threads=1")
        cluster = cluster_file(slow.url, whole.url)
        coordinator = start("coordinator", f"--bundle={bundle}", "--deadline_ms=5000", f"--cluster={cluster}")
        for _ in range(5):
            status, _, answer = curl(f"{coordinator.url}/v2/models/tiny/infer", body=body)
            assert status == 200 and set(json.loads(answer)["parameters"]["devices"].split(",")) == {"pi-1"}
