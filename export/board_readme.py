"""The README of a bundle: how to run exactly this one on boards."""

from __future__ import annotations

from typing import Any

_TEXT = """# {name}

{architecture}, {classes} classes, input {height}x{width} RGB (raw pixels 0..255, nothing to normalize).
Model id `{model_id}`.

Everything a board needs is in this folder. Python 3.10 or newer:

```sh
python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
```

## One machine, to try it

```sh
.venv/bin/python -m fusion.local --bundle=. --switch={example}
```

starts a worker process per slice and a coordinator, sends the samples through them and compares the answers.

## Boards

A switch of this bundle names one slice per device:

| switch | devices | MAdds of each device (M) | largest file (bytes) |
|---|---|---|---|
{rows}

1. Copy this folder to every board and to the machine that is to answer, which may be one of them, and install as above.
   Make a token once (16 or more characters without spaces) and copy it into each of these folders:

```sh
python3 -c "import secrets; print(secrets.token_hex(16))" > token.txt
```

2. On each board that is to run a slice, start a worker. It serves every slice of the bundle:

```sh
.venv/bin/python -m fusion.worker --bundle=. --host=0.0.0.0 --port=8001 --token_file=token.txt
```

3. On the machine that is to answer, write `cluster.toml`, the boards in the order of the switch's slices, the widest
   first:

```toml
{cluster}
```

   With the workers running, start the coordinator:

```sh
.venv/bin/python -m fusion.coordinator --bundle=. --cluster=cluster.toml --switch={example} --port=8000
```

4. Ask it:

```sh
.venv/bin/python -m fusion.predict --url=http://127.0.0.1:8000 samples/0.png
```

To move to another switch, start the coordinator again with another `--switch`; the workers stay as they are, and boards
that the switch has no slice for stay unused.

Worker and coordinator speak the Open Inference Protocol v2 over HTTP, so `curl http://127.0.0.1:8000/v2` and any client
of that protocol work as well (with a token: `curl -H "Authorization: Bearer $(cat token.txt)" ...`). `--help` of each
program lists its options.
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
        f'[[device]]\nname = "board-{number}"\nurl = "http://192.168.0.{10 + number}:8001"\ntoken_file = "token.txt"'
        for number in range(1, len(example["slices"]) + 1)
    )
    return _TEXT.format(
        name=manifest["name"],
        architecture=manifest["architecture"]["name"],
        classes=len(manifest.get("labels", [])),
        height=height,
        width=width,
        model_id=manifest["model_id"],
        example=example["switch"],
        rows="\n".join(rows),
        cluster=cluster,
    )
