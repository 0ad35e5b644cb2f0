"""The README of a bundle: how to run exactly this one on boards."""

from __future__ import annotations

from typing import Any

from fusion.bundle.tasks import TASKS

_TEXT = """# {name}

{architecture}, {what}, input {height}x{width} RGB (raw pixels 0..255, nothing to normalize).
Model id `{model_id}`.

Everything a board needs is in this folder. Python 3.10 or newer:

```sh
python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
```

## A board, to check it

```sh
.venv/bin/python -m fusion.selftest
```

checks the runtime, the files and what they give for the samples, and times every slice. It needs only NumPy, absl-py
and a TFLite runtime of the packages above.

## One machine, to try it

```sh
.venv/bin/python -m fusion.local --bundle=. --switch={example}
```

starts a worker process per slice and a coordinator, sends the samples through them and compares the answers.

## Boards

A switch of this bundle names one slice per device:

{switches}

`{precision}` is what the programs run unless told otherwise by `--precision`; there are files of {precisions}.

1. Copy this folder to every board and to the machine that is to answer, which may be one of them, and install as above.
   Make a token once (16 or more characters without spaces) and copy it into each of these folders:

```sh
(umask 077; python3 -c "import secrets; print(secrets.token_hex(16))" > token.txt)
```

2. On each board that is to run a slice, start a worker. It serves every slice of the bundle:

```sh
.venv/bin/python -m fusion.worker --bundle=. --host=0.0.0.0 --port=8001 --token_file=token.txt
```

   It takes all cores for an invocation; where several programs share a machine, give each its part by `--threads`.

3. On the machine that is to answer, write `cluster.toml`, which names the boards:

```toml
{cluster}
```

   Start the coordinator. It measures the boards and decides which of them runs which slice:

```sh
.venv/bin/python -m fusion.coordinator --bundle=. --cluster=cluster.toml --port=8000
```

4. Ask it:

```sh
.venv/bin/python -m fusion.predict --url=http://127.0.0.1:8000 samples/0.png
.venv/bin/python -m fusion.plan --url=http://127.0.0.1:8000 --explain
```

{asking}{moving}Worker and coordinator speak the Open Inference Protocol v2 over HTTP, so
`curl http://127.0.0.1:8000/v2` and any client of that protocol work as well (with a token:
`curl -H "Authorization: Bearer $(cat token.txt)" ...`). `--help` of each program lists its options.

## Day by day

```sh
{day}
.venv/bin/python -m fusion.predict --watch=inbox                     # images as they appear in a folder
.venv/bin/python -m fusion.predict --loop --every_s=5 snapshot.jpg   # a file that a camera writes again and again
```

**Status page**: the coordinator's address, opened in a browser, shows the plan, the devices and the last answers; the
same is JSON at `/status`, and at `/metrics` for Prometheus. For browsers of other machines start the coordinator with
`--host=0.0.0.0 --token_file=token.txt`; the page asks for the token.

**On a network that others use too**, run with TLS on both sides. On a machine with the package `cryptography`,

```sh
python -m fusion.certificates --cluster=cluster.toml --coordinator=192.168.0.10 --tokens
```

makes certificates and tokens for all machines, a cluster file that uses them, and `certificates/start.txt`, the
commands for each machine, and those that show the status to `curl` and to a browser, which both need a certificate
then. What this protects and what it does not is in `docs/security.md` of ParaDiS-TF, which made this bundle.

**With the machine** worker and coordinator start as systemd services:

```sh
sudo .venv/bin/python -m fusion.systemd --kind=worker --user=$USER --target=/etc/systemd/system -- \\
    --host=0.0.0.0 --port=8001 --token_file=token.txt
sudo .venv/bin/python -m fusion.systemd --kind=coordinator --user=$USER --cluster=cluster.toml \\
    --target=/etc/systemd/system -- --port=8000
```

## The files

Each `.tflite` file has the signature `serving_default`, of batch 1: input `image`, uint8 (1, {height}, {width}, 3), the
raw pixels; output `{output}`, {output_shape}, the slice's part of it. Where the output is int8, its real value is
scale * (stored - zero point).

{fusion}

{files}

`manifest.json` has all of this with SHA-256 sums, `labels.txt` the classes in order, if there are any, `samples/` a few
images and what each file gives for them.
"""


def render(manifest: dict[str, Any]) -> str:
    """The text for a manifest, in Markdown."""
    example = max(manifest["switches"], key=lambda entry: len(entry["slices"]))
    height, width, _ = manifest["input"]["shape"]
    task = TASKS[manifest["task"]]
    classifies, loss = task.has_classes, task.difference_text(task.accuracy_loss / task.accuracy_scale)
    output = manifest["output"]
    shape = f"({', '.join(str(size) for size in (1, *output['shape']))})"
    cluster = "\n\n".join(
        f'[[device]]\nname = "board-{number}"\nurl = "http://192.168.0.{10 + number}:8001"\ntoken_file = "token.txt"'
        for number in range(1, len(example["slices"]) + 1)
    )
    asking = (
        ""
        if classifies
        else "It cuts an image of any size in overlapping tiles of the model's and writes the enlarged one to "
        "`0_x{}.png`.\n\n".format(manifest["fusion"]["scale"])
    )
    fusion = (
        "The answer is the sum over the slices of a switch."
        if classifies
        else "The sum over the slices of a switch goes, with the image, through the tail (inputs `image` and `summed`, "
        f"{shape},\nfloat32; output `pixels`, float32, 0..255, not clipped), which the coordinator runs."
    )
    day = (
        ".venv/bin/python -m fusion.predict --resize=crop --jsonl=answers.jsonl pictures   # a folder, to the bottom"
        if classifies
        else ".venv/bin/python -m fusion.predict --target=enlarged pictures                # a folder, to the bottom"
    )
    moving = (
        f"It runs the fastest switch within `--deadline_ms` that loses at most {loss} of accuracy against the most\n"
        "accurate one (`--accuracy_loss`), and moves to another by itself when boards fail, are slow or join;\n"
        "`--switch=` fixes one.\n\n"
        if len(manifest["switches"]) > 1
        else ""
    )
    return _TEXT.format(
        name=manifest["name"],
        architecture=manifest["architecture"]["name"],
        what=f"{len(manifest['labels'])} classes" if classifies else f"enlarges {manifest['fusion']['scale']} times",
        height=height,
        width=width,
        model_id=manifest["model_id"],
        example=example["switch"],
        switches=_switches(manifest),
        precision=manifest["precisions"][0],
        precisions=", ".join(manifest["precisions"]),
        cluster=cluster,
        asking=asking,
        moving=moving,
        day=day,
        output=output["name"],
        output_shape=shape,
        fusion=fusion,
        files=_files(manifest),
    )


def _switches(manifest: dict[str, Any]) -> str:
    measured = next((entry["accuracy"] for entry in manifest["switches"] if entry["accuracy"]), None)
    columns = ["switch", "devices", "MAdds of each device (M)", "largest file (bytes)"]
    if measured:
        name = "accuracy (%)" if measured["metric"] == "accuracy" else "PSNR-Y (dB)"
        columns += [f"{name} on {measured['images']} {measured['part']} images, Keras", *manifest["precisions"]]
    rows = []
    for entry in manifest["switches"]:
        madds = ", ".join(f"{slice_['madds'] / 1e6:.2f}" for slice_ in entry["slices"])
        largest = max(slice_["files"][manifest["precisions"][0]]["bytes"] for slice_ in entry["slices"])
        row = [f"`{entry['switch']}`", str(len(entry["slices"])), madds, f"{largest:,}"]
        accuracy = entry["accuracy"]
        if accuracy:
            per_unit = 100 if accuracy["metric"] == "accuracy" else 1
            scores = [accuracy["float"], *(accuracy["exported"][precision] for precision in manifest["precisions"])]
            row += [f"{per_unit * score:.2f}" for score in scores]
        rows.append(row)
    return _table(columns, rows)


def _files(manifest: dict[str, Any]) -> str:
    columns = ["file", "channels", "model", "bytes", "compressed", "parameters", "output", "scale", "zero point"]
    rows = []
    for entry in manifest["switches"]:
        for slice_ in entry["slices"]:
            for file in slice_["files"].values():
                output = file["output"]
                quantization = ["", ""] if output["scale"] is None else [repr(output["scale"]), output["zero_point"]]
                row = [
                    f"`{file['path']}`",
                    f"[{slice_['start']}, {slice_['stop']})",
                    slice_["model"],
                    f"{file['bytes']:,}",
                ]
                row += [f"{file['compressed_bytes']:,}", f"{slice_['parameters']:,}", output["dtype"], *quantization]
                rows.append([str(value) for value in row])
    tail = manifest["fusion"].get("tail")
    if tail:
        # Its channels, parameters and output are not those of a slice.
        rows.append([f"`{tail['path']}`", "", "the tail", f"{tail['bytes']:,}", "", "", "float32", "", ""])
    return _table(columns, rows)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
