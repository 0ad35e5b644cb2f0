"""Super-resolution: the high-resolution image of a low-resolution one."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import keras

from fusion.base.program import UserError
from paradis_tf.tasks.image_quality import BEST_PSNR, LUMA_WEIGHTS
from paradis_tf.tasks.task import Task

_PEAK = 255.0


class SuperResolution(Task):
    """Images (batch, height, width, 3) in float pixels against those of uint8, 0..255.

    Losses are mean absolute errors in units of the whole range: of pixels divided by 255. A teacher's image takes the
    truth's place. The features are those before the last convolution, a map as large as the low-resolution image.

    Args:
      border: pixels that the metric leaves out on each side, 0 or more; by custom the scale.

    Raises:
      UserError: an option out of range.

    Source: L1 as in Lim et al. 2017 and WDSR; the distillation loss is a reconstruction of ParaDiS, which does not say
    whether its switches learn from the widest one's image or from the truth.
    """

    name: ClassVar[str] = "super_resolution"
    metric: ClassVar[str] = "psnr_y"
    output: ClassVar[str] = "residual"
    enlarges: ClassVar[bool] = True

    def __init__(self, border: int = 2) -> None:
        if not isinstance(border, int) or isinstance(border, bool) or not 0 <= border <= 64:
            raise UserError(f"super_resolution: border is {border!r}; it is a whole number from 0 to 64.")
        self.border = border

    def loss(self, targets: Any, prediction: Any) -> Any:
        error = keras.ops.cast(prediction, "float32") - keras.ops.cast(targets, "float32")
        return keras.ops.mean(keras.ops.abs(error)) / _PEAK

    def distillation_loss(self, prediction: Any, taught: Any, temperature: float = 1.0) -> Any:
        return self.loss(taught, prediction)

    def sum_distance(self, summed: Any, taught: Any) -> Any:
        return keras.ops.mean(keras.ops.abs(summed - taught))

    def check(self, architecture: Any) -> None:
        side = architecture.image_shape[0] * architecture.scale
        if 2 * self.border >= side:
            raise UserError(
                f"config.loss.border is {self.border}, and patches have {side}x{side} high-resolution pixels "
                f"(config.dataset.patch_size * scale); it is less than {side / 2:g}."
            )

    def new_metric(self, name: str) -> keras.Metric:
        return MeanPSNR(self.border, name=name)

    def text(self, value: float) -> str:
        return f"{value:.2f} dB"

    def get_config(self) -> dict[str, Any]:
        return {"border": self.border}


@keras.saving.register_keras_serializable(package="paradis_tf")
class MeanPSNR(keras.metrics.MeanMetricWrapper):
    """Mean over images of the PSNR of the Y channel, in dB; 100 for images that are equal.

    Args:
      border: pixels left out on each side.
      name: of the metric.

    `update_state(targets, prediction)` takes pixels (batch, height, width, 3), 0..255; predictions are rounded to 8
    bits first. Source: as `paradis_tf.tasks.image_quality.psnr`, in tensors.
    """

    def __init__(self, border: int, name: str = "psnr_y", **kwargs: Any) -> None:
        super().__init__(_psnr_y, name=name, border=border, **kwargs)
        self.border = border

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "border": self.border}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MeanPSNR:
        return cls(**config)


def _psnr_y(targets: Any, prediction: Any, border: int) -> Any:
    image = keras.ops.clip(keras.ops.round(keras.ops.cast(prediction, "float32")), 0.0, _PEAK)
    difference = keras.ops.cast(targets, "float32") - image
    if border:
        difference = difference[:, border:-border, border:-border]
    # The luma's offset cancels out.
    weights = keras.ops.convert_to_tensor(LUMA_WEIGHTS, "float32")
    error = keras.ops.mean(keras.ops.square(keras.ops.sum(difference * weights, axis=-1)), axis=(1, 2))
    least = _PEAK**2 / 10 ** (BEST_PSNR / 10)
    return 10 / math.log(10) * keras.ops.log(_PEAK**2 / keras.ops.maximum(error, least))
