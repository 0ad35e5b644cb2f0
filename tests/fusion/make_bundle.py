"""Makes a tiny real bundle: a network with known weights, cut in two slices, and whole.

Run as a program with the bundle's folder as its argument, so that TensorFlow stays out of the tests'
process. The network is: image/255, a 3x3 convolution to 8 channels, ReLU, mean over the pixels, a
dense layer to 4 classes.
"""

import hashlib
import json
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

HEIGHT, WIDTH, CHANNELS, CLASSES = 8, 6, 8, 4
SWITCHES = {"1.0": [(0, 8)], "0.5+0.5": [(0, 4), (4, 8)], "0.75+0.25": [(0, 6), (6, 8)]}
FUSION = Path(__file__).resolve().parents[2] / "fusion"


def main() -> None:
    bundle = Path(sys.argv[1])
    rng = np.random.default_rng(27)
    kernel = rng.normal(0, 1, (3, 3, 3, CHANNELS)).astype(np.float32)
    dense = rng.normal(0, 1, (CHANNELS, CLASSES)).astype(np.float32)
    # Each image has its own tint, so that not all are of one class.
    tints = rng.uniform(0, 1, (16, 1, 1, 3)) ** 2
    images = (rng.integers(0, 256, (16, HEIGHT, WIDTH, 3)) * tints).astype(np.uint8)
    model_id = hashlib.sha256(kernel.tobytes() + dense.tobytes()).hexdigest()
    # The full range of pixels, so that a quantized input is the raw image; else its scale is not 1.
    corner = np.zeros_like(images[:1])
    corner[0, 0, 0] = 255
    calibration = np.concatenate([images, corner])
    switches = []
    logits = [reference(image, kernel, dense) for image in images]
    for switch, cuts in SWITCHES.items():
        slug = switch.replace("+", "_")
        slices = []
        for device, (start, stop) in enumerate(cuts):
            files = {}
            for precision in ("float32", "int8"):
                data = convert(kernel[..., start:stop], dense[start:stop], calibration, precision)
                path = bundle / "slices" / switch / f"{device}.{precision}.tflite"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                files[precision] = {
                    "path": str(path.relative_to(bundle)),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "bytes": len(data),
                    "compressed_bytes": len(zlib.compress(data)),
                    "arena_bytes": HEIGHT * WIDTH * (3 + CHANNELS) * 4,
                    **tensors(data),
                }
            slices.append(
                {
                    "device": device,
                    "start": str(start / CHANNELS),
                    "stop": str(stop / CHANNELS),
                    "model": f"tiny-{slug}-{device}",
                    "madds": HEIGHT * WIDTH * 27 * (stop - start),
                    "parameters": (27 + CLASSES) * (stop - start),
                    "files": files,
                }
            )
        entry = {"switch": switch, "slug": slug, "madds": 1, "accuracy": None, "slices": slices}
        switches.append(entry)
    samples = []
    (bundle / "samples").mkdir()
    for i, image in enumerate(images[:4]):
        Image.fromarray(image).save(bundle / "samples" / f"{i}.png")
        samples.append({"file": f"samples/{i}.png", "label": int(np.argmax(logits[i]))})
    outputs = sample_outputs(bundle, switches, images[:4])
    np.savez(bundle / "samples" / "outputs.npz", images=images[:4], **outputs)
    stored = (bundle / "samples" / "outputs.npz").read_bytes()
    manifest = {
        "schema_version": 2,
        "name": "tiny",
        "model_id": model_id,
        "task": "classification",
        "architecture": {"name": "tiny"},
        "input": {
            "name": "image",
            "shape": [HEIGHT, WIDTH, 3],
            "dtype": "uint8",
            "range": [0, 255],
            "color": "RGB",
        },
        "labels": ["ant", "bee", "cat", "dög"],
        "output": {"name": "logits", "shape": [CLASSES]},
        "fusion": {"rule": "sum"},
        "precisions": ["int8", "float32"],
        "switches": switches,
        "samples": samples,
        "sample_outputs": {
            "path": "samples/outputs.npz",
            "sha256": hashlib.sha256(stored).hexdigest(),
            "bytes": len(stored),
        },
        "packages": {"tensorflow": tf.__version__},
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    labels = [int(np.argmax(answer)) for answer in logits]
    np.savez(bundle / "data.npz", x_test=images, y_test=np.array(labels))
    np.savez(bundle / "weights.npz", kernel=kernel, dense=dense)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(FUSION, bundle / "fusion", ignore=ignored)


def reference(image: np.ndarray, kernel: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """The network's logits by NumPy alone."""
    padded = np.pad(image / 255.0, ((1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))  # type: ignore[call-overload]
    features = np.maximum(np.einsum("hwcij,ijco->hwo", windows, kernel), 0)
    return features.mean(axis=(0, 1)) @ dense


def sample_outputs(bundle: Path, switches: list, images: np.ndarray) -> dict:
    """What TensorFlow's own interpreter gives for the images, on its reference kernels."""
    outputs = {}
    for entry in switches:
        for part in entry["slices"]:
            for precision, file in part["files"].items():
                interpreter = tf.lite.Interpreter(
                    str(bundle / file["path"]),
                    experimental_op_resolver_type=tf.lite.experimental.OpResolverType.BUILTIN_REF,
                )
                run = interpreter.get_signature_runner("serving_default")
                answers = [run(image=image[np.newaxis])["logits"][0] for image in images]
                outputs[f"{part['model']}/{precision}"] = np.stack(answers)
                if precision == "int8":
                    outputs[f"{part['model']}/int8/arm"] = np.stack(answers)
    return outputs


def convert(kernel: np.ndarray, dense: np.ndarray, images: np.ndarray, precision: str) -> bytes:
    """One slice as a static batch-1 .tflite with the signature serving_default, image -> logits."""
    whole = precision == "int8"
    dtype = tf.float32 if whole else tf.uint8

    class Net(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec((1, HEIGHT, WIDTH, 3), dtype, name="image")],
            autograph=False,
        )
        def __call__(self, image):
            scaled = tf.cast(image, tf.float32) / 255.0
            features = tf.nn.relu(tf.nn.conv2d(scaled, kernel, 1, "SAME"))
            return {"logits": tf.reduce_mean(features, [1, 2]) @ dense}

    net = Net()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([net.__call__.get_concrete_function()], net)
    if whole:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ({"image": image[np.newaxis].astype(np.float32)} for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8
    return converter.convert()


def tensors(data: bytes) -> dict:
    """The manifest's entries for a file's input and output."""
    interpreter = tf.lite.Interpreter(model_content=data)
    runner = interpreter.get_signature_runner("serving_default")
    entries = {}
    sides = (("input", runner.get_input_details()), ("output", runner.get_output_details()))
    for side, details in sides:
        ((name, detail),) = details.items()
        scale, zero_point = detail["quantization"]
        entries[side] = {
            "name": name,
            "dtype": np.dtype(detail["dtype"]).name,
            "scale": float(scale) if scale else None,
            "zero_point": int(zero_point) if scale else None,
        }
    return entries


if __name__ == "__main__":
    main()
