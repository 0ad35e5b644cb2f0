"""The README of a bundle: how to run exactly this one on boards."""

from __future__ import annotations

from typing import Any

_TEXT = """# {name}

{architecture}, {classes} classes, input {height}x{width} RGB (raw pixels 0..255, nothing to normalize).
Model id `{model_id}`.

Everything a board needs is in this folder:

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt

## One machine, to try it

    .venv/bin/python -m fusion.local --bundle=. --switch={example}

starts a worker process per slice and a coordinator, sends the samples through them and compares the answers.

## Boards

A switch of this bundle names one slice per device:

| switch | devices | MAdds of each device (M) | largest file (bytes) |
|---|---|---|---|
{rows}

1. Copy this folder to every board and install as above.
2. On each board that is to run a slice, start a worker. It serves every slice of the bundle. A worker that other
   machines can reach needs a token (any secret line of text in a file) or TLS:

       .venv/bin/python -m fusion.worker --bundle=. --host=0.0.0.0 --port=8001 --token_file=token.txt

3. On the machine that is to answer, list the boards in `cluster.toml`, in the order of the switch's slices
   (the widest slice first):

{cluster}

   and start the coordinator:

       .venv/bin/python -m fusion.coordinator --bundle=. --cluster=cluster.toml --switch={example} --port=8000

4. Ask it:

       .venv/bin/python -m fusion.predict --url=http://127.0.0.1:8000 samples/0.png

Worker and coordinator speak the Open Inference Protocol v2 over HTTP, so `curl http://127.0.0.1:8000/v2` and any
client of that protocol work as well. `--help` of each program lists its options.
"""


def render(manifest: dict[str, Any]) -> str:
    """The text for a manifest, in Markdown."""
    example = max(manifest["switches"], key=lambda entry: len(entry["slices"]))
    height, width, _ = manifest["input"]["shape"]
    rows = []
    for entry in manifest["switches"]:
        madds = ", ".join(f"{part['madds'] / 1e6:.2f}" for part in entry["slices"])
        largest = max(file["bytes"] for part in entry["slices"] for file in part["files"].values())
        rows.append(f"| `{entry['switch']}` | {len(entry['slices'])} | {madds} | {largest:,} |")
    cluster = "\n\n".join(
        f'       [[device]]\n       name = "board-{number}"\n       url = "http://192.168.0.{10 + number}:8001"\n'
        '       token_file = "token.txt"'
        for number in range(1, len(example["slices"]) + 1)
    )
    return _TEXT.format(
        name=manifest["name"],
        architecture=manifest["architecture"]["name"],
        classes=len(manifest["labels"]),
        height=height,
        width=width,
        model_id=manifest["model_id"],
        example=example["switch"],
        rows="\n".join(rows),
        cluster=cluster,
    )
