"""What networks here take for granted of Keras, whatever the keras.json in a user's home says for other projects."""

from __future__ import annotations

from typing import Any


def settle(keras: Any) -> None:
    """Sets the defaults of `keras`, or of `tf_keras`, as they are without a keras.json. The backend is set earlier, in
    `paradis_tf/__init__.py`, as Keras chooses it when it is imported."""
    keras.backend.set_floatx("float32")
    keras.backend.set_epsilon(1e-7)
    keras.backend.set_image_data_format("channels_last")
