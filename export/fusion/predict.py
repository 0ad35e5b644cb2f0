"""Asks a running coordinator what some images show.

  python -m export.fusion.predict --url=http://127.0.0.1:8000 image.png ...

One line per image: file, label, confidence and milliseconds. An image must have the model's size
and be RGB or 8-bit grey. If one cannot be used the others are still predicted, and the exit status
is 2.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from absl import flags

from . import images
from .client import FusionClient
from .files import check_json_target, write_json
from .fuse import softmax
from .program import LONGEST_S, UserError, define_float, run
from .security import Credentials

_URL = flags.DEFINE_string("url", "http://127.0.0.1:8000", "The coordinator's address.")
_JSON = flags.DEFINE_string("json", None, "Also writes the answers to this file.")
_TIMEOUT_S = define_float("timeout_s", 30, "Seconds to wait for the coordinator.", 0.001, LONGEST_S)
_TOKEN_FILE = flags.DEFINE_string("token_file", None, "File with the coordinator's bearer token.")
_TLS_CA = flags.DEFINE_string("tls_ca", None, "PEM certificates that the coordinator's must come from.")
_TLS_CERT = flags.DEFINE_string("tls_cert", None, "PEM certificate to show to the coordinator.")
_TLS_KEY = flags.DEFINE_string("tls_key", None, "Unencrypted PEM private key of --tls_cert.")


def main(arguments: list[str]) -> int:
    """Predicts each image named in `arguments`; returns the exit status."""
    if not arguments:
        raise UserError("no image is given; legal: one or more image files.")
    check_json_target(_JSON.value)
    credentials = Credentials(_TOKEN_FILE.value, _TLS_CA.value, _TLS_CERT.value, _TLS_KEY.value)
    rows: list[dict[str, Any]] = []
    status = 0
    width = max(len(path) for path in arguments)
    with FusionClient(_URL.value, credentials, _TIMEOUT_S.value) as client:
        for path in arguments:
            try:
                image = images.read(path, client.shape)
            except UserError as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                status = 2
                continue
            started = time.perf_counter()
            answer = client.infer(image)
            ms = (time.perf_counter() - started) * 1e3
            confidence = float(softmax(answer.logits)[answer.index])
            print(f"{path:{width}}  {answer.label}  {confidence:6.1%}  {ms:.1f} ms", flush=True)
            rows.append(
                {
                    "file": path,
                    "class": answer.index,
                    "label": answer.label,
                    "confidence": confidence,
                    "ms": ms,
                    "logits": answer.logits.tolist(),
                }
            )
        if _JSON.value:
            model = {"name": client.name, **client.model_parameters}
            write_json(_JSON.value, {"url": _URL.value, "model": model, "images": rows})
    return status


if __name__ == "__main__":
    run(main, takes_arguments=True)
