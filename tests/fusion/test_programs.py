"""The programs as a person uses them: help, wrong flags, Ctrl-C, predict, local."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fusion
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.local import inputs
from fusion.local.cluster import LocalCluster
from fusion.local.evaluation import evaluate

PACKAGE = Path(fusion.__file__).parent


def one_error(done, status=2):
    assert done.returncode == status, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


# Packages that one program alone wants, and says so where they are missing.
OPTIONAL = {"authority.py": {"cryptography"}, "discovery.py": {"zeroconf"}}


def test_imports_nothing_that_a_board_lacks():
    # aiohttp brings yarl.
    board = {"absl", "aiohttp", "yarl", "numpy", "PIL", "prometheus_client"} | sys.stdlib_module_names
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found = {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found = {(node.module or "").split(".")[0]}
            else:
                continue
            assert found <= board | OPTIONAL.get(path.name, set()), path


@pytest.mark.parametrize("program", ["worker", "coordinator", "predict", "local"])
def test_help(runner, program):
    done = runner(program, "--help")
    assert f"python -m fusion.{program}" in done.stdout
    assert ("--bundle" in done.stdout) == (program != "predict")
    assert ("--token_file" in done.stdout) == (program != "local")


@pytest.mark.parametrize(
    ("program", "options", "said"),
    [
        ("worker", [], "--bundle is missing"),
        ("worker", ["--bundle=nowhere"], "bundle 'nowhere' is not a folder"),
        ("worker", ["--bundle={}", "more"], "unexpected argument 'more'"),
        ("worker", ["--bundle={}", "--device=0"], "legal: --device with --switch"),
        ("worker", ["--bundle={}", "--switch=3x0.5"], "legal: 1.0, 0.5+0.5, 0.75+0.25"),
        ("worker", ["--bundle={}", "--switch=1.0", "--device=1"], "legal: 0 to 0"),
        ("worker", ["--bundle={}", "--precision=int4"], "legal: int8, float32"),
        ("worker", ["--bundle={}", "--tls_cert=x"], "needs both tls_cert and tls_key"),
        ("coordinator", ["--bundle={}"], "--cluster is missing"),
        ("coordinator", ["--bundle={}", "--cluster=none"], "cluster file 'none' cannot be read"),
        ("worker", ["--bundle={}", "--host=127.0.0.300"], "host '127.0.0.300' is no address; legal: "),
        ("worker", ["--bundle={}", "--host=a..b"], "host 'a..b' is no address; legal: "),
        ("worker", ["--bundle={}", "--host="], "host '' is no address; legal: "),
        ("predict", [], "no image is given"),
        ("predict", ["--url=http://a..b", "x.png"], "url is 'http://a..b'; legal: http(s)://host[:port]"),
        ("predict", ["--json=none/out.json", "x.png"], "'none' is no folder"),
        ("local", ["--bundle={}", "--switch=1.0", "--json={}"], "it is a folder"),
        ("predict", ["--url=h:1", "x.png"], "url is 'h:1'; legal: http(s)://host[:port]"),
        ("predict", ["--url=http://127.0.0.1:1", "--timeout_s=0.1", "x"], "while connecting: connection refused"),
        ("local", ["--bundle={}"], "--switch is missing; legal: 1.0, 0.5+0.5, 0.75+0.25"),
        ("local", ["--bundle={}", "--switch=1.0", "--data=none.npz"], "does not exist"),
        ("local", ["--bundle={}", "--switch=1.0", "--data={}/manifest.json"], "not an .npz file"),
        ("local", ["--bundle={}", "--switch=1.0", "--data={}/weights.npz"], "legal: x_test, y_test"),
    ],
)
def test_one_sentence_on_bad_input(bundle, runner, program, options, said):
    done = runner(program, *(option.format(bundle) for option in options))
    assert said in one_error(done)


@pytest.mark.parametrize(
    ("program", "option"),
    [
        ("predict", "--timeout_s=nan"),
        ("predict", "--timeout_s=inf"),
        ("worker", "--max_body_mb=inf"),
        ("worker", "--max_body_mb=nan"),
        ("worker", "--request_timeout_s=1e300"),
        ("worker", "--threads=257"),
        ("coordinator", "--startup_timeout_s=nan"),
        ("coordinator", "--startup_timeout_s=x"),
        ("coordinator", "--connect_timeout_s=-inf"),
        ("coordinator", "--accuracy_loss=-0.1"),
        ("coordinator", "--accuracy_loss=1e9"),
        ("plan", "--accuracy_loss=nan"),
        ("plan", "--accuracy_loss=1%"),
    ],
)
def test_refuses_absurd_numbers(runner, program, option):
    done = runner(program, option)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"error: flag {option}: " in done.stderr
    assert ("[1, 256]" if "threads" in option else "; legal: a number from 0") in done.stderr


def test_port_in_use_is_found_before_the_work(altered, worker, cluster_file, free_port, runner):
    folder = altered(lambda data: None)
    (folder / "slices" / "1.0" / "0.int8.tflite").write_bytes(b"")
    used = worker.url.rsplit(":", 1)[1]
    cluster = cluster_file(f"http://127.0.0.1:{free_port}")
    for program, more in (("worker", []), ("coordinator", [f"--cluster={cluster}"])):
        done = runner(program, f"--bundle={folder}", "--switch=1.0", f"--port={used}", *more)
        assert f"port {used} of 127.0.0.1 is in use; legal: a free port, or 0" in one_error(done)


def test_listens_on_a_name(bundle, start, curl):
    program = start("worker", f"--bundle={bundle}", "--host=localhost", "--switch=1.0")
    assert program.url.startswith("http://localhost:")
    assert curl(f"{program.url}/v2/health/live")[0] == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_servers_stop_cleanly(bundle, worker, start, cluster_file, number):
    cluster = cluster_file(worker.url)
    for program in (
        start("worker", f"--bundle={bundle}", "--switch=1.0"),
        start("coordinator", f"--bundle={bundle}", f"--cluster={cluster}"),
    ):
        status, out, err = program.stop(number)
        assert (status, out) == (128 + number, ""), err
        assert "Traceback" not in err
        assert f"{program.kind} stops: finishing the running requests" in err
        lines = [line for line in err.splitlines() if program.kind in line]
        # A coordinator has told of its device and its plan.
        assert len(lines) > 1 and all(re.match(r"[0-2]\d:[0-5]\d:[0-6]\d (worker|coordinator)", line) for line in lines)


def test_worker_says_what_it_runs(bundle, start):
    program = start("worker", f"--bundle={bundle}", "--runtime=tflite_runtime", "--threads=2")
    said = "worker: 5 slice models of tiny (int8), tflite_runtime 2.14.0, threads: 2"
    assert said in program.stop()[2]


def test_predict(bundle, coordinator, runner, tmp_path):
    samples = json.loads((bundle / "manifest.json").read_text())["samples"]
    labels = ["ant", "bee", "cat", "dög"]
    paths = [bundle / sample["file"] for sample in samples]
    out = tmp_path / "out.json"
    done = runner("predict", f"--url={coordinator.url}", f"--json={out}", *paths)
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    assert {image["switch"] for image in written["images"]} == {"0.5+0.5"}
    lines = done.stdout.splitlines()
    for path, sample, line, row in zip(paths, samples, lines, written["images"], strict=True):
        name, label, confidence, ms, unit, switch = line.split()
        assert (name, label, unit, switch) == (str(path), labels[sample["label"]], "ms", "0.5+0.5")
        assert row["class"] == sample["label"] and row["label"] == label
        powers = np.exp(row["logits"])
        assert row["confidence"] == pytest.approx((powers / powers.sum()).max())
        assert confidence == f"{row['confidence']:.1%}" and float(ms) > 0


def test_predict_goes_on_after_a_bad_image(bundle, coordinator, runner, tmp_path):
    bad = tmp_path / "large.png"
    Image.new("RGB", (9, 9)).save(bad)
    good = bundle / "samples" / "0.png"
    done = runner("predict", f"--url={coordinator.url}", tmp_path / "none.png", good, bad)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [str(good)]
    assert "none.png' does not exist" in done.stderr
    assert "large.png' is 9 x 9 pixels; legal: 6 x 8, the model's input." in done.stderr


def test_predict_wants_a_coordinator(bundle, worker, runner):
    done = runner("predict", f"--url={worker.url}", bundle / "samples" / "0.png")
    said = f"error: server {worker.url}: it serves 5 models; legal: the address of a coordinator."
    assert one_error(done) == said


def test_predict_refuses_an_empty_folder(coordinator, runner, tmp_path):
    done = runner("predict", f"--url={coordinator.url}", tmp_path)
    assert one_error(done).startswith(f"error: folder '{tmp_path}' has no images; legal: files ending in .bmp, ")


def test_local_checks_the_samples(bundle, runner):
    done = runner("local", f"--bundle={bundle}", "--switch=2x0.5")
    assert done.returncode == 0, done.stderr
    assert "switch 0.5+0.5, int8, ai_edge_litert 2." in done.stdout
    assert "accuracy  100.00%" in done.stdout
    assert "worker-1  slice [0.5, 1.0), median invocation" in done.stdout


@pytest.mark.parametrize(("runtime", "steps"), [("auto", 100), ("tflite_runtime", 10)])
def test_local_tells_wrong_samples(altered_outputs, runner, runtime, steps):
    folder = altered_outputs("tiny-1.0-0/int8", 2, steps)
    done = runner("local", f"--bundle={folder}", "--switch=1.0", f"--runtime={runtime}")
    assert "the answers are not those that the bundle expects" in one_error(done, 1)


def test_local_with_data(bundle, data, runner, tmp_path):
    out = tmp_path / "out.json"
    options = ("--precision=float32", "--runtime=tflite_runtime", "--limit=5", f"--json={out}")
    path = f"--data={bundle}/data.npz"
    done = runner("local", f"--bundle={bundle}", "--switch=0.75+0.25", path, *options)
    assert done.returncode == 0, done.stderr
    assert "5/5 images" in done.stderr
    written = json.loads(out.read_text())
    assert (written["images"], written["accuracy"]) == (5, 1.0)
    assert written["runtime"] == "tflite_runtime 2.14.0"
    assert list(written["invoke_ms"]) == ["worker-0", "worker-1"]
    assert written["p95_ms"] >= written["median_ms"] > 0


def test_tolerance_of_the_samples(bundle, reference):
    loaded = manifest.load(bundle)
    entry = loaded.find_switch("0.5+0.5")
    steps = sum(2 * (slice_.files["int8"].output.scale or 0) for slice_ in entry.slices)
    for precision, runtime, steps_, spread in (
        ("float32", "ai_edge_litert", 0, 0),
        ("float32", "tflite_runtime", 0, 0),
        ("int8", "tflite_runtime", steps, 0),
        ("int8", "ai_edge_litert", steps, 0.1),
    ):
        found = inputs.read_samples(loaded, entry, precision, runtime, None)
        assert found.expected is not None
        np.testing.assert_allclose(found.expected, reference(0, 8)[:4], atol=max(steps_, 1e-5))
        largest = 1e-4 * max(1, abs(found.expected).max())
        assert found.tolerance == pytest.approx(steps_ + largest + spread * np.ptp(found.expected))


def test_local_grants_xnnpack_its_rounding(altered_outputs, bundle, runner):
    stored = manifest.load(bundle).read_samples()[1]["tiny-1.0-0/int8"].astype(int)
    # Beyond the strict tolerance, and within the wider one.
    shift = round(0.5 * 0.1 * np.ptp(stored)) + 2
    folder = altered_outputs("tiny-1.0-0/int8", 2, shift if stored[1, 2] + shift < 128 else -shift)
    done = runner("local", f"--bundle={folder}", "--switch=1.0")
    assert done.returncode == 0, done.stderr


def test_local_reads_what_training_reads(bundle, data, tmp_path):
    loaded, path = manifest.load(bundle), tmp_path / "data.npz"
    images, labels = data
    grey = images[..., :1]
    for given, wanted in ((images, images), (grey, grey.repeat(3, -1)), (grey[..., 0], grey.repeat(3, -1))):
        np.savez(path, x_test=given, y_test=labels[:, np.newaxis])
        read = inputs.read_data(str(path), loaded, 5)
        np.testing.assert_array_equal(read.images, wanted[:5])
        assert read.labels is not None
        np.testing.assert_array_equal(read.labels, labels[:5])


def test_local_refuses_images(bundle, data, tmp_path):
    loaded, path = manifest.load(bundle), tmp_path / "data.npz"
    images, labels = data
    for given, said in (
        (np.uint8(1), r"x_test of .* is uint8 \[\]; legal: uint8 \['N', 8, 6, 3\], or grey"),
        (images.astype(np.float32), r"is float32 \[16, 8, 6, 3\]"),
        (images[:, :7], r"is uint8 \[16, 7, 6, 3\]"),
        (images[..., :2], r"is uint8 \[16, 8, 6, 2\]"),
        (images[:0], "legal: one or more images"),
    ):
        np.savez(path, x_test=given, y_test=labels)
        with pytest.raises(UserError, match=said):
            inputs.read_data(str(path), loaded, None)
    bad = (labels.astype(float), labels + 4, labels[np.newaxis], np.tile(labels[:, np.newaxis], 2), labels[:3])
    for given in (np.int64(1), *bad):
        np.savez(path, x_test=images, y_test=given)
        with pytest.raises(UserError, match="legal: 16 class indices from 0 to 3"):
            inputs.read_data(str(path), loaded, 3)


def test_evaluate(bundle, data, reference, ended):
    seen = []
    with LocalCluster(manifest.load(bundle), "0.5+0.5", "float32") as cluster:
        pids = cluster.pids
        images, labels = data
        result = evaluate(cluster.url, images, labels, lambda *done: seen.append(done))
        with pytest.raises(UserError, match=r"images are uint8 \[16, 8, 6\]; legal: uint8"):
            evaluate(cluster.url, images[..., 0])
        with pytest.raises(UserError, match="there are 3 labels; legal: 16"):
            evaluate(cluster.url, images, labels[:3])
    assert len(pids) == 3
    ended(pids)
    np.testing.assert_allclose(result.answers, reference(0, 8), atol=1e-4)
    assert result.accuracy == 1
    assert seen[-1] == (16, 16) and result.p95_ms >= result.median_ms > 0
    assert list(result.invoke_ms) == ["worker-0", "worker-1"] and all(ms > 0 for ms in result.invoke_ms.values())


def test_local_cluster_says_why_a_worker_ended(altered):
    folder = altered(lambda data: None)
    (folder / "slices" / "0.5+0.5" / "1.int8.tflite").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"worker 1 of switch 0.5\+0.5 ended with status 2: .*0 bytes"),
        LocalCluster(manifest.load(folder), "0.5+0.5"),
    ):
        pass


def test_local_cluster_ends_after_an_exception(bundle, ended):
    with pytest.raises(KeyError), LocalCluster(manifest.load(bundle), "1.0") as cluster:
        pids = cluster.pids
        raise KeyError
    ended(pids)


HOLDER = """
import sys
from fusion.bundle import manifest
from fusion.local.cluster import LocalCluster
with LocalCluster(manifest.load(sys.argv[1]), "0.5+0.5") as cluster:
    print(*cluster.pids, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_processes_die_with_their_parent(bundle, ended, number, tmp_path):
    parent: Any = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(bundle)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=PACKAGE.parent,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    with parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3 and all(os.path.exists(f"/proc/{pid}") for pid in pids)
        parent.send_signal(number)
        ended(pids)


def test_ctrl_c_ends_local(bundle, data, ended, tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x_test=np.tile(data[0], (625, 1, 1, 1)), y_test=np.tile(data[1], 625))
    command = [sys.executable, "-m", "fusion.local", f"--bundle={bundle}", "--switch=0.5+0.5"]
    program: Any = subprocess.Popen(
        [*command, f"--data={path}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=PACKAGE.parent,
    )
    with program:
        assert "starting 2 workers" in program.stderr.readline()
        # After a tenth of them.
        assert "10000 images" in program.stderr.readline()
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        assert len(children) == 3
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=300)
    assert program.returncode == 130 and out == ""
    assert err.splitlines()[-1] == "interrupted" and "Traceback" not in err
    ended([int(pid) for pid in children])
