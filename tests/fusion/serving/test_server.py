"""Worker and coordinator as any Open Inference Protocol client sees them: tritonclient and curl."""

import gzip
import json
import zlib

import numpy as np
import pytest
import tritonclient.http as triton

SLICE = "tiny-0.5_0.5-0"


@pytest.fixture(params=["worker", "coordinator"])
def server(request):
    """(url, model name) of each kind of server."""
    program = request.getfixturevalue(request.param)
    return program.url, SLICE if request.param == "worker" else "tiny"


def client(url):
    return triton.InferenceServerClient(url.removeprefix("http://"))


def ask(url, model, images, binary, outputs, **more):
    image = triton.InferInput("image", list(images.shape), "UINT8")
    image.set_data_from_numpy(images, binary_data=binary)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs]
    with client(url) as session:
        return session.infer(model, [image], outputs=wanted or None, **more)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_client_of_a_worker(worker, data, bundle, reference, binary):
    answer = ask(worker.url, SLICE, data[0][:3], binary, ["logits"], request_id="seven")
    with client(worker.url) as session:
        metadata = session.get_model_metadata(SLICE)
        assert session.is_server_live() and session.is_server_ready()
        assert session.is_model_ready(SLICE) and not session.is_model_ready("other")
    said = metadata["parameters"]
    stored = answer.as_numpy("logits")
    assert (stored.dtype, stored.shape) == (np.int8, (3, 4))
    logits = said["output_scale"] * (stored.astype(float) - said["output_zero_point"])
    np.testing.assert_allclose(logits, reference(0, 4)[:3], atol=4 * said["output_scale"])
    response = answer.get_response()
    assert response["id"] == "seven"
    assert response["parameters"]["invoke_ms"] > 0
    assert response["parameters"]["queue_ms"] > 0
    for key in ("model_id", "file_sha256"):
        assert response["parameters"][key] == said[key]


@pytest.mark.parametrize("binary", [True, False])
def test_triton_client_of_a_coordinator(coordinator, data, reference, binary):
    images = data[0][:4]
    answer = ask(coordinator.url, "tiny", images, binary, ["logits", "class", "label"])
    logits = answer.as_numpy("logits")
    assert (logits.dtype, logits.shape) == (np.float32, (4, 4))
    np.testing.assert_allclose(logits, reference(0, 8)[:4], atol=0.2)
    classes = answer.as_numpy("class")
    assert classes.dtype == np.int64
    np.testing.assert_array_equal(classes, logits.argmax(1))
    names = ["ant", "bee", "cat", "dög"]
    labels = [x if isinstance(x, str) else x.decode() for x in answer.as_numpy("label")]
    assert labels == [names[i] for i in classes]
    only = ask(coordinator.url, "tiny", images, binary, ["class"])
    assert [output["name"] for output in only.get_response()["outputs"]] == ["class"]
    everything = ask(coordinator.url, "tiny", images, binary, [])
    assert len(everything.get_response()["outputs"]) == 3


def test_fused_logits_are_the_sum_of_the_slices(worker, coordinator, data):
    """By hand from the workers' own answers, bit for bit."""
    total = np.zeros((4, 4))
    for name in (SLICE, "tiny-0.5_0.5-1"):
        with client(worker.url) as session:
            said = session.get_model_metadata(name)["parameters"]
        stored = ask(worker.url, name, data[0][:4], True, ["logits"]).as_numpy("logits")
        total += (stored.astype(float) - said["output_zero_point"]) * said["output_scale"]
    answer = ask(coordinator.url, "tiny", data[0][:4], True, ["logits"])
    np.testing.assert_array_equal(answer.as_numpy("logits"), total.astype(np.float32))


def test_timeline(coordinator, data):
    answer = ask(coordinator.url, "tiny", data[0][:1], True, [], parameters={"timeline": True})
    said = answer.get_response()["parameters"]
    # A device that is slow for the moment gets nothing to do.
    assert said["switch"] == "0.5+0.5" and set(said["devices"].split(",")) <= {"pi-0", "pi-1"}
    timeline = json.loads(said["timeline"])
    assert timeline["switch"] == "0.5+0.5"
    assert ",".join(device["device"] for device in timeline["devices"]) == said["devices"]
    for i, device in enumerate(timeline["devices"]):
        assert device["slice"] == i and device["url"].startswith("http://")
        assert timeline["decode_ms"] <= device["sent_ms"] < device["received_ms"]
        spent = device["received_ms"] - device["sent_ms"]
        assert 0 < device["queue_ms"] + device["invoke_ms"] < spent
    assert timeline["fuse_ms"] > 0
    without = ask(coordinator.url, "tiny", data[0][:1], True, [])
    assert "timeline" not in without.get_response()["parameters"]


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_compressed_requests(server, data, packed):
    url, model = server
    plain = ask(url, model, data[0][:1], True, ["logits"]).as_numpy("logits")
    answer = ask(url, model, data[0][:1], True, ["logits"], request_compression_algorithm=packed)
    np.testing.assert_array_equal(answer.as_numpy("logits"), plain)


def test_every_path_by_curl(server, curl):
    url, model = server
    kind = "worker" if model == SLICE else "coordinator"
    said = {}
    paths = ("", "/health/live", "/health/ready", f"/models/{model}", f"/models/{model}/ready")
    for path in (*paths, f"/models/{model}/versions/1", f"/models/{model}/versions/1/ready"):
        status, headers, body = curl(f"{url}/v2{path}")
        assert (status, headers["content-type"]) == (200, "application/json; charset=utf-8")
        said[path] = json.loads(body)
    assert said[""]["name"] == f"paradis-tf-fusion-{kind}"
    assert "binary_tensor_data" in said[""]["extensions"]
    assert said["/health/live"] == {"live": True}
    assert said["/health/ready"] == {"ready": True}
    assert said[f"/models/{model}/ready"] == {"name": model, "ready": True}
    metadata = said[f"/models/{model}"]
    assert metadata == said[f"/models/{model}/versions/1"]
    assert (metadata["name"], metadata["versions"]) == (model, ["1"])
    image = {"name": "image", "datatype": "UINT8", "shape": [-1, 8, 6, 3]}
    assert metadata["inputs"] == [image]
    datatype = "INT8" if kind == "worker" else "FP32"
    assert metadata["outputs"][0] == {"name": "logits", "datatype": datatype, "shape": [-1, 4]}
    for method in ("GET", "POST"):
        status, _, body = curl(f"{url}/v2/repository/index", "-X", method)
        names = {entry["name"]: entry["state"] for entry in json.loads(body)}
        assert status == 200 and names[model] == "READY"
        assert len(names) == (5 if kind == "worker" else 1)


def test_worker_metadata_says_what_runs(worker, curl, bundle):
    said = json.loads(curl(f"{worker.url}/v2/models/{SLICE}")[2])["parameters"]
    manifest = json.loads((bundle / "manifest.json").read_text())
    file = manifest["switches"][1]["slices"][0]["files"]["int8"]
    assert said["runtime"].startswith("ai_edge_litert 2.")
    assert (said["threads"], said["precision"]) == (1, "int8")
    assert (said["switch"], said["device"]) == ("0.5+0.5", 0)
    assert (said["model_id"], said["file_sha256"]) == (manifest["model_id"], file["sha256"])
    assert said["output_scale"] == pytest.approx(file["output"]["scale"])
    assert said["output_zero_point"] == file["output"]["zero_point"]


def test_metrics(server, curl, data):
    url, model = server
    ask(url, model, data[0][:1], True, [])
    curl(f"{url}/v2/models/{model}/infer", body=b"{")
    status, headers, body = curl(f"{url}/metrics")
    text = body.decode()
    assert status == 200 and headers["content-type"].startswith("text/plain")
    for line in (
        f'fusion_requests_total{{model="{model}",status="200"}}',
        f'fusion_requests_total{{model="{model}",status="400"}}',
        f'fusion_request_seconds_count{{model="{model}"}}',
        f'fusion_invoke_seconds_count{{model="{SLICE}"}}'
        if model == SLICE
        else 'fusion_device_seconds_count{device="pi-1"}',
    ):
        assert line in text
        assert float(text.split(line)[1].split()[0]) >= 1


GOOD = {"name": "image", "datatype": "UINT8", "shape": [1, 8, 6, 3], "data": [0] * 144}


@pytest.mark.parametrize(
    ("options", "body", "status", "said"),
    [
        ([], b"{", 400, "not JSON"),
        ([], b"", 400, "not JSON"),
        ([], {"inputs": []}, 400, "input 'image' is missing; the model's inputs: image"),
        ([], {"inputs": [GOOD | {"shape": [5, 8, 6, 3]}]}, 400, "a batch of 1 to 4"),
        ([], {"inputs": [GOOD | {"datatype": "FP32"}]}, 400, "legal: UINT8"),
        ([], {"inputs": [GOOD], "outputs": [{"name": "x"}]}, 400, "the model's outputs: logits"),
        (["-H", "Inference-Header-Content-Length: x"], b"{}", 400, "decimal number"),
        ([], b" " * 20_000, 413, "has 20000 bytes; legal: at most 0.01 MB"),
        (["-H", "Transfer-Encoding: chunked"], b" " * 20_000, 413, "legal: at most 0.01 MB"),
        (["-H", "Content-Encoding: gzip"], gzip.compress(b" " * 900_000), 413, "too large"),
        (["-H", "Content-Encoding: gzip"], b"plain", 400, "not as its content encoding says"),
        (["-H", "Content-Encoding: deflate"], zlib.compress(b"{")[:-3], 400, "not as its content encoding says"),
        (["-H", "Content-Encoding: br"], b"{}", 415, "'br' is not supported; legal: gzip, deflate"),
        (["-X", "DELETE"], b"", 405, "method DELETE is not allowed"),
    ],
)
def test_refuses_a_request(server, curl, options, body, status, said):
    url, model = server
    sent = json.dumps(body).encode() if isinstance(body, dict) else body
    got, headers, answer = curl(f"{url}/v2/models/{model}/infer", *options, body=sent)
    error = json.loads(answer)
    assert (got, list(error)) == (status, ["error"]), answer
    assert said in error["error"]
    assert headers["content-type"].startswith("application/json")
    assert curl(f"{url}/v2/health/ready")[0] == 200


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v2/models/other", "model 'other' is not served here; served: "),
        ("/v2/models/other/ready", "model 'other' is not served here; served: "),
        ("/v2/models/{}/versions/2", "version '2' of model '{}' is unknown; legal: 1."),
        ("/v1/models", "path '/v1/models' is unknown; legal: /v2 "),
        ("/v2/models/{}/config", "is unknown; legal: /v2 "),
        ("/../etc/passwd", "path '/../etc/passwd' is unknown"),
    ],
)
def test_unknown_things(server, curl, path, said):
    url, model = server
    status, _, body = curl("--path-as-is", url + path.format(model))
    assert status == 404
    assert said.format(model) in json.loads(body)["error"]


def test_timeline_must_be_boolean(coordinator, curl):
    sent = json.dumps({"inputs": [GOOD], "parameters": {"timeline": "yes"}}).encode()
    status, _, body = curl(f"{coordinator.url}/v2/models/tiny/infer", body=sent)
    said = json.loads(body)["error"]
    assert (status, said) == (400, "parameter 'timeline' of the request is \"yes\"; legal: true or false.")
