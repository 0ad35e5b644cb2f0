"""The choice of the runtime, and a slice file on each of them against NumPy."""

import dataclasses
import hashlib
import sys

import numpy as np
import pytest

from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.rules.sum import Sum
from fusion.runtime import choosing as runtime
from fusion.runtime.interpreters import SliceInterpreter

NAMES = ["ai_edge_litert", "tflite_runtime"]


def hide(monkeypatch, *names):
    for name in names:
        monkeypatch.setitem(sys.modules, f"{name}.interpreter", None)


def test_auto_prefers_the_one_whose_xnnpack_runs_int8(monkeypatch):
    assert runtime.choose("auto").name == "ai_edge_litert"
    hide(monkeypatch, "ai_edge_litert")
    assert runtime.choose("auto").name == "tflite_runtime"
    assert str(runtime.choose("auto")) == "tflite_runtime 2.14.0"


def test_says_what_is_installed(monkeypatch):
    with pytest.raises(UserError, match="'tpu' is unknown; legal: auto, ai_edge_litert, tflite_r"):
        runtime.choose("tpu")
    hide(monkeypatch, "tflite_runtime")
    with pytest.raises(UserError, match="is not installed; installed: ai_edge_litert"):
        runtime.choose("tflite_runtime")
    hide(monkeypatch, "ai_edge_litert")
    with pytest.raises(UserError, match="no runtime is installed; legal: pip install"):
        runtime.choose("auto")


def test_refuses_numpy_2_before_tflite_runtime_dies_of_it(monkeypatch):
    monkeypatch.setattr(np, "__version__", "2.1.0")
    assert runtime.choose("auto").name == "ai_edge_litert"
    with pytest.raises(UserError, match="cannot run with NumPy 2.1.0; legal: numpy<2"):
        runtime.choose("tflite_runtime")


def interpreter(bundle, precision, name="auto", threads=1, change=lambda file: file, data=None):
    loaded = manifest.load(bundle)
    file = change(loaded.find_switch("0.5+0.5").slices[1].files[precision])
    if data is not None:
        path = loaded.path(file.path)
        path.write_bytes(data)
        file = dataclasses.replace(file, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    return SliceInterpreter(loaded, file, runtime.choose(name), threads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_runs_a_slice(bundle, data, reference, name, precision):
    run = interpreter(bundle, precision, name, threads=2)
    output = manifest.load(bundle).find_switch("0.5+0.5").slices[1].files[precision].output
    stored = np.stack([run(image) for image in data[0]])
    assert (stored.dtype.name, stored.shape[1:]) == (output.dtype, (4,))
    logits = Sum().contribution(output, stored)
    near = 1e-5 if output.scale is None else 4 * output.scale
    np.testing.assert_allclose(logits, reference(4, 8), atol=near)
    assert np.ptp(logits) > 10 * near


def test_answers_do_not_change_afterwards(bundle, data):
    run = interpreter(bundle, "int8")
    first = run(data[0][0])
    kept = first.copy()
    assert (run(255 - data[0][0]) != kept).any()
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("output", {"scale": 0.5}),
        ("output", {"zero_point": 1}),
        ("output", {"dtype": "uint8"}),
        ("output", {"scale": None, "zero_point": None}),
        ("input", {"zero_point": 3}),
        ("input", {"name": "picture"}),
    ],
)
def test_refuses_a_file_unlike_its_manifest(bundle, part, change):
    def alter(file):
        return dataclasses.replace(file, **{part: dataclasses.replace(getattr(file, part), **change)})

    with pytest.raises(UserError, match=f"1.int8.tflite'.* {part}.*its manifest says"):
        interpreter(bundle, "int8", change=alter)


@pytest.mark.parametrize("name", NAMES)
def test_refuses_what_is_no_model(altered, name):
    with pytest.raises(UserError, match="1.int8.tflite' cannot be loaded by"):
        interpreter(altered(lambda data: None), "int8", name, data=b"not a model at all, not a model at all")


def test_refuses_no_threads(bundle):
    with pytest.raises(UserError, match="threads is 0; legal: 1 or more"):
        interpreter(bundle, "int8", threads=0)


def test_a_runtime_too_old_for_an_operator_is_named(bundle, monkeypatch):
    def refuse(**options):
        raise ValueError(
            "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'. An older version of this builtin might "
            "be supported."
        )

    chosen = runtime.choose("tflite_runtime")
    monkeypatch.setattr(chosen.module, "Interpreter", refuse)
    said = "needs operator FULLY_CONNECTED version 12, which tflite_runtime 2.14.0 is too old for; install a newer"
    with pytest.raises(UserError, match=said):
        interpreter(bundle, "int8", "tflite_runtime")
