"""A client tells what it was led to that is no coordinator, whatever that answers."""

import contextlib
import http.server
import json
import threading

import pytest

from fusion.asking.client import FusionClient
from fusion.base.program import UserError
from fusion.security.credentials import Credentials


def tensor(name, shape, datatype="UINT8"):
    return {"name": name, "datatype": datatype, "shape": shape}


@contextlib.contextmanager
def serving(metadata):
    """The address of a server with a model of this metadata."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self):
            body = json.dumps([{"name": "m"}] if self.path.endswith("index") else metadata).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815  http.server wants these names

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def model(image, pixels):
    return {"inputs": [tensor("image", image)], "outputs": [tensor("pixels", pixels)], "parameters": {}}


def test_reads_what_a_coordinator_says():
    with serving(model([-1, 24, 32, 3], [-1, 48, 64, 3])) as url, FusionClient(url, Credentials()) as client:
        assert (client.task.name, client.shape, client.scale) == ("super_resolution", (24, 32, 3), 2)


@pytest.mark.parametrize(
    "metadata",
    [
        model([-1, 0, 32, 3], [-1, 48, 64, 3]),
        model([-1, -1, -1, 3], [-1, -1, -1, 3]),
        model([-1, 24, 32, 3], []),
        model([24, 32, 3], [-1, 48, 64, 3]),
        model([-1, 24, 32, 3], [-1, 0, 64, 3]),
        {"inputs": [], "outputs": [tensor("pixels", [-1, 48, 64, 3])], "parameters": {}},
    ],
)
def test_odd_shapes_are_refused(metadata):
    with serving(metadata) as url, pytest.raises(UserError, match="its model 'm' is not a fused one"):
        FusionClient(url, Credentials())


@pytest.mark.parametrize("metadata", [[], {}, {"inputs": None}, {"inputs": [{}]}, "text", None])
def test_what_is_no_metadata_is_refused(metadata):
    with serving(metadata) as url, pytest.raises(UserError, match="its model metadata is not understood"):
        FusionClient(url, Credentials())
