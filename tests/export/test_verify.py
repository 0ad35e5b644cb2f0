"""Verification passes what is right, records its accuracies, and fails what is not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.bundles import manifest_update
from export.proof import checks, engines
from export.proof.records import SliceCheck, SwitchCheck, Verification
from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.local.cluster import LocalCluster
from paradis_tf.data import datasets

tritonclient = pytest.importorskip("tritonclient.http")

Run = Callable[..., Any]


def flags(exported, bundle: Path) -> list[str]:
    # A network of a few epochs is unsure of itself, so quantization may cost it more than a trained one.
    return [f"--workdir={exported.workdir}", f"--bundle={bundle}", "--max_drop=10"]


def test_it_passes_the_bundle_and_records_accuracies(exported, run_main: Run, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    done = run_main("export.verify", *flags(exported, bundle), f"--json={tmp_path / 'checks.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    verified = json.loads((tmp_path / "checks.json").read_text())
    assert verified["faults"] == []
    runtimes = {check["runtime"] for check in verified["switches"]}
    assert {name.split(" ")[0] for name in runtimes} == {"tflite_runtime", "ai_edge_litert"}
    assert len(runtimes) == 3
    test = datasets.load("digits").test
    for entry in manifest.load(bundle).switches:
        switch = next(s for s in exported.model.switches if str(s) == entry.switch)
        expected = (exported.model(test.images, path=switch)["prediction"].numpy().argmax(1) == test.labels).mean()
        assert entry.accuracy is not None
        assert (entry.accuracy["part"], entry.accuracy["images"]) == ("test", 359)
        assert entry.accuracy["float"] == pytest.approx(expected)
        assert set(entry.accuracy["exported"]) == {"int8", "float32"}
        assert entry.accuracy["exported"]["float32"] == pytest.approx(expected)
        for one in entry.accuracy["live_subsets"]:
            parts = [exported.model.call_cut(test.images, switch.cut(device)).prediction for device in one["devices"]]
            alone = (np.sum(parts, axis=0).argmax(1) == test.labels).mean()
            assert one["float"] == pytest.approx(alone, abs=0.003)
        assert len(entry.accuracy["live_subsets"]) == 2 ** len(entry.slices) - 1
        assert f"| {100 * expected:.2f} |" in (bundle / "README.md").read_text()
    operators = {name for check in verified["slices"] for name in check["operators"] if check["precision"] == "int8"}
    assert operators == {"CONV_2D 3", "DEPTHWISE_CONV_2D 3", "FULLY_CONNECTED 4", "MEAN 2", "QUANTIZE 1"}


def test_runtimes_agree_within_one_quantum_on_their_own_kernels(exported) -> None:
    bundle = manifest.load(exported.bundle)
    images = datasets.load("digits").test.images[:100]
    first = engines.run(bundle, engines.REFERENCE, images).stored
    second = engines.run(bundle, engines.Engine("ai_edge_litert", delegates=False), images).stored
    compared = [key for key in first if key.endswith("/int8")]
    assert len(compared) == 4
    for key in compared:
        assert np.abs(first[key].astype(int) - second[key].astype(int)).max() <= 1
        assert len(np.unique(first[key])) > 10


def test_swapped_slices_are_a_fault(exported, run_main: Run, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    written = json.loads((bundle / "manifest.json").read_text())
    first, second = (written["switches"][1]["slices"][device]["files"]["float32"] for device in (1, 2))
    (bundle / first["path"]).write_bytes((bundle / second["path"]).read_bytes())
    first["sha256"] = hashlib.sha256((bundle / first["path"]).read_bytes()).hexdigest()
    first["bytes"] = second["bytes"]
    (bundle / "manifest.json").write_text(json.dumps(written))
    done = run_main("export.verify", *flags(exported, bundle), "--limit=20")
    assert done.returncode == 1
    where = "switch '0.5+0.25+0.25', device 1, float32 on tflite_runtime 2.14.0, built-in kernels"
    assert f"fault: {where}: differs from Keras" in done.stdout
    assert "20 images tell accuracy roughly; without --limit all 359 do" in done.stdout
    assert json.loads((bundle / "manifest.json").read_text()) == written


def test_a_bundle_that_was_replaced_meanwhile_keeps_its_manifest(exported, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    loaded = manifest.load(bundle)
    before = manifest_update.read(loaded)
    replaced = before.replace(b'"test"', b'"tests"') + b"\n"
    (bundle / "manifest.json").write_bytes(replaced)
    with (
        pytest.raises(UserError, match="was changed meanwhile; verify it again"),
        manifest_update.updated(loaded, before, "verify") as written,
    ):
        written["switches"] = []
    assert (bundle / "manifest.json").read_bytes() == replaced


def check(error: float, apart: float) -> SliceCheck:
    return SliceCheck("1.0", 0, "float32", "r", True, error, 1.0, None, apart, ())


def test_outputs_that_are_no_numbers_are_a_fault() -> None:
    judge: Any = SimpleNamespace(metric="accuracy", per_unit=100.0, unit="percentage points")
    switch = SwitchCheck("1.0", "float32", "r", True, 9, "psnr_y", 1.0, 30.0, math.nan)
    quantized = dataclasses.replace(check(0.1, math.nan), precision="int8", quanta=math.nan, delegates=False)
    found = checks.find_faults([check(1e-5, 0), check(math.nan, 0), quantized], [switch], 0.1, judge)
    assert ["differs from Keras by nan" in one for one in found] == [True, False, False]
    assert ["differs from tflite_runtime by nan quanta" in one for one in found] == [False, True, False]
    assert "psnr" not in found[2] and "accuracy nan, in float 3000.00" in found[2]
    rows = Verification((quantized,), (switch,), {}, ()).as_json()
    assert (rows["slices"][0]["runtime_quanta"], rows["switches"][0]["score"]) == (None, None)
    json.dumps(rows, allow_nan=False)


def test_a_bundle_of_another_training_is_refused(exported, run_main: Run, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    written = json.loads((bundle / "manifest.json").read_text())
    written["model_id"] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(written))
    done = run_main("export.verify", *flags(exported, bundle))
    assert done.returncode == 2
    assert "has model id 000000000000..., and the run's model has" in done.stderr


@pytest.mark.parametrize("fault", ["missing", "truncated", "altered"])
def test_a_damaged_file_is_named(exported, run_main: Run, fault: str, tmp_path: Path) -> None:
    bundle = exported.copy(tmp_path / "bundle")
    file = bundle / "slices" / "1.0" / "0.int8.tflite"
    data = file.read_bytes()
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(data[:-10] if fault == "truncated" else data[:-10] + bytes(10))
    done = run_main("export.verify", *flags(exported, bundle))
    assert done.returncode == 2
    assert "slices/1.0/0.int8.tflite" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_coordinator_answers_as_verify_does(exported) -> None:
    """An unmodified Triton client, binary and JSON tensors, 100 images: the class that verification gets."""
    bundle = manifest.load(exported.bundle)
    entry = bundle.find_switch("0.5+0.25+0.25")
    images = datasets.load("digits").test.images[:100]
    expected = engines.run(bundle, engines.REFERENCE, images).fused(entry, "int8")
    with LocalCluster(bundle, entry.switch, "int8", "tflite_runtime") as cluster:
        client = tritonclient.InferenceServerClient(cluster.url.removeprefix("http://"))
        metadata = client.get_model_metadata("digits")
        assert metadata["parameters"]["model_id"] == bundle.model_id
        for image, logits in zip(images, expected, strict=True):
            for binary in (True, False):
                tensor = tritonclient.InferInput("image", [1, 16, 16, 3], "UINT8")
                tensor.set_data_from_numpy(image[np.newaxis], binary_data=binary)
                wanted = [tritonclient.InferRequestedOutput(name, binary) for name in ("class", "logits")]
                answer = client.infer("digits", [tensor], outputs=wanted)
                assert answer.as_numpy("class")[0] == logits.argmax()
                np.testing.assert_allclose(answer.as_numpy("logits")[0], logits, rtol=1e-6)
        client.close()
