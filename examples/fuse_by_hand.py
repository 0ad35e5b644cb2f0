"""Runs the slices of a switch from a bundle and adds their outputs: NumPy and a TFLite runtime, nothing of ours.

    python -m examples.fuse_by_hand --bundle=build/digits --switch=0.5+0.5 --image=build/digits/samples/0.png

It is what workers and a coordinator do, without the network in between, and what to do in another language.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter

_BUNDLE = flags.DEFINE_string("bundle", None, "The bundle's folder.", required=True)
_SWITCH = flags.DEFINE_string("switch", "0.5+0.5", "The switch to run.")
_IMAGE = flags.DEFINE_string("image", None, "An image of the model's size.", required=True)


def main(_: list[str]) -> None:
    bundle = Path(_BUNDLE.value).expanduser()
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    switch = next(entry for entry in manifest["switches"] if entry["switch"] == _SWITCH.value)
    precision = manifest["precisions"][0]
    picture = Image.open(Path(_IMAGE.value).expanduser()).convert("RGB")
    image = np.asarray(picture)[np.newaxis]  # raw pixels, nothing to normalize

    logits = np.zeros(manifest["output"]["shape"])
    for slice_ in switch["slices"]:  # one device each; here one after the other
        file = slice_["files"][precision]
        output = file["output"]
        runner = Interpreter(model_path=str(bundle / file["path"])).get_signature_runner()
        stored = runner(image=image)[output["name"]][0].astype(np.float64)
        partial = stored if output["scale"] is None else output["scale"] * (stored - output["zero_point"])
        print(f"slice [{slice_['start']}, {slice_['stop']}): {np.round(partial, 2)}")
        logits += partial
    label = manifest["labels"][int(np.argmax(logits))]
    print(f"sum: {np.round(logits, 2)}\n{label}")


if __name__ == "__main__":
    app.run(main)
