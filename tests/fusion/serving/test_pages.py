"""The server in this process: pages of its owner, and what a model's refusal says in its head."""

import asyncio
import io
import json

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from fusion.base import waiting
from fusion.protocol import oip
from fusion.protocol.oip import OipError, TensorSpec
from fusion.serving import server
from fusion.serving.connections import Connections
from fusion.serving.inference import ServedModel
from fusion.serving.metrics import Metrics

TOKEN = "0123456789abcdef"
IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 2], "data": [7, 9]}


class Model(ServedModel):
    """Gives back what it is sent, or `error`; answers after `seconds`."""

    name, platform, max_batch = "echo", "none", 5_000_000
    inputs = (TensorSpec("image", "UINT8", (-1, 2)),)
    outputs = (TensorSpec("image", "UINT8", (-1, 2)),)

    def __init__(self, error=None, seconds=0.0):
        self.error, self.seconds = error, seconds

    def parameters(self):
        return {}

    async def not_ready(self):
        return None

    async def infer(self, request, arrived, decoded):
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return [(self.outputs[0], request.inputs["image"])], {}


def serve(model, visit, pages=None, timeout_s=60, max_body_mb=64):
    """The result of `visit(session)` with a session of a server of the model, which asks for the token."""

    async def main():
        made = server.Server("coordinator", [model], Metrics(), TOKEN, max_body_mb, timeout_s, pages)
        connections = Connections(made.answer, 9)
        listener = await asyncio.get_running_loop().create_server(connections, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {TOKEN}"}) as session:
                return await visit(session)
        finally:
            listener.close()
            await connections.stop(1)

    return asyncio.run(main())


def test_pages_are_behind_the_token():
    async def status(request):
        return web.json_response({"name": "x"})

    async def visit(session):
        async with session.get("/status") as answer:
            assert (answer.status, await answer.json()) == (200, {"name": "x"})
        async with session.get("/status", headers={"Authorization": "Bearer wrong"}) as answer:
            assert answer.status == 401
        async with session.post("/status") as answer:
            assert answer.status == 405
        async with session.head("/v2/health/live") as answer:
            assert answer.status == 200
        async with session.get("/other") as answer:
            said = "path '/other' is unknown; legal: /v2 and what lies below it, /metrics, /, /status."
            assert (answer.status, await answer.json()) == (404, {"error": said})

    serve(Model(), visit, {"/": status, "/status": status})


def test_headers_of_a_refusal():
    async def visit(session):
        async with session.post("/v2/models/echo/infer", json={"inputs": [IMAGE]}) as answer:
            return answer.status, answer.headers["Retry-After"], await answer.json()

    error = OipError(503, "busy.", {"Retry-After": "7"})
    assert serve(Model(error), visit) == (503, "7", {"error": "busy."})


def test_a_model_that_takes_too_long():
    async def visit(session):
        async with session.post("/v2/models/echo/infer", json={"inputs": [IMAGE]}) as answer:
            return answer.status, (await answer.json())["error"]

    assert serve(Model(seconds=30), visit, timeout_s=2) == (504, "model 'echo' did not answer within 2 s.")


def test_large_json_is_decoded_aside_and_has_an_end():
    async def visit(session):
        statuses = []
        for count in (100_000, 1_000_000):
            message = {"inputs": [IMAGE | {"shape": [count, 2], "data": [7] * (2 * count)}]}
            sent = io.BytesIO(json.dumps(message).encode())
            async with session.post("/v2/models/echo/infer", data=sent) as answer:
                statuses.append((answer.status, await answer.json()))
        return statuses

    (first, answered), (second, refused) = serve(Model(), visit)
    assert first == 200 and answered["outputs"][0]["data"] == [7] * 200_000
    assert second == 413 and refused["error"].endswith("legal: at most 4 MB; larger tensors can be sent in binary.")


def test_bodies_that_arrive_at_once_have_a_limit_together():
    head = (
        "POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 1000000\r\n\r\n"
    )

    async def visit(session):
        host, port = session._base_url.host, session._base_url.port
        clients = [await asyncio.open_connection(host, port) for _ in range(5)]
        for _, writer in clients:
            writer.write((head % TOKEN).encode() + b" " * 900_000)
            await writer.drain()
        answers = [asyncio.ensure_future(reader.readuntil(b"\r\n\r\n")) for reader, _ in clients]
        done, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        for (_, writer), answer in zip(clients, answers, strict=True):
            answer.cancel()
            writer.transport.abort()
        status = 503
        # Until it has seen that the others are gone.
        while status == 503:
            async with session.post("/v2/models/echo/infer", json={"inputs": [IMAGE]}) as answer:
                status = answer.status
        return status, len(waiting), [found.result()[:12] for found in done]

    assert serve(Model(), visit, max_body_mb=1) == (200, 4, [b"HTTP/1.1 503"])


def test_timeout_of_a_request():
    for value, seconds in ((1, 1e-6), (2_500_000, 2.5), (10**400, 86_400)):
        assert oip.timeout_s({"timeout": value}) == pytest.approx(seconds)
    assert oip.timeout_s({}) is None


def test_binary_tensors_are_not_copied():
    images = np.arange(4, dtype=np.uint8).reshape(2, 2)
    head = oip.request_json(Model.inputs[0], images.shape, ["image"], {})
    body = head + images.tobytes()
    found = oip.decode_request(body, str(len(head)), "m", "1", Model.inputs, Model.outputs, 2).inputs["image"]
    np.testing.assert_array_equal(found, images)
    assert np.shares_memory(found, np.frombuffer(body, np.uint8))


def test_within():
    async def main():
        async def slow():
            await asyncio.sleep(30)

        assert await waiting.within(30, asyncio.sleep(0, "x")) == "x"
        with pytest.raises(asyncio.TimeoutError):
            await waiting.within(0.01, slow())
        # It is no cancelling of whoever waits, which stays one.
        task = asyncio.ensure_future(waiting.within(30, slow()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(KeyError):
            await waiting.within(30, fails())

    async def fails():
        raise KeyError

    asyncio.run(main())
