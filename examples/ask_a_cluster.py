"""Asks a running coordinator about images, from Python.

    python -m examples.ask_a_cluster --url=http://127.0.0.1:8000 build/digits/samples/0.png ...

It runs inside a bundle too, where `fusion` lies and TensorFlow does not.
"""

from absl import app, flags

from fusion.asking.client import FusionClient
from fusion.base.paths import define_path
from fusion.base.program import UserError
from fusion.images import reading
from fusion.security.credentials import Credentials

_URL = flags.DEFINE_string("url", "http://127.0.0.1:8000", "The coordinator's address.")
_TOKEN_FILE = define_path("token_file", None, "File with its token, if it asks for one.")


def main(arguments: list[str]) -> None:
    with FusionClient(_URL.value, Credentials(token_file=_TOKEN_FILE.value)) as client:
        for name in arguments[1:]:
            try:
                # The picture that training would have seen in the file, in the model's size.
                answer = client.infer(reading.read(name, client.shape, reading.CROP))
            except UserError as error:  # no picture, refused, or nobody there; the sentence says which
                print(f"{name}: {error}")
                continue
            how = answer.parameters
            lacks = f", without slices {', '.join(answer.missing)}" if answer.degraded else ""
            print(f"{name}: {answer.label}, by switch {how['switch']} on {how['devices']}{lacks}")


if __name__ == "__main__":
    app.run(main)
