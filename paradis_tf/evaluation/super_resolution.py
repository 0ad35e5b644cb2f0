"""Quality of the images that a super-resolution network's switches give, beside bicubic enlargement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from fusion.base import columns
from paradis_tf.builders.architecture import Outputs
from paradis_tf.builders.cost import path_costs, tail_cost
from paradis_tf.cuts import Path
from paradis_tf.data.pairs.bicubic import enlarge
from paradis_tf.data.parts import ImagePairs
from paradis_tf.evaluation.live_subsets import live_subsets
from paradis_tf.supernet import Supernet
from paradis_tf.switches import Switch
from paradis_tf.tasks.image_quality import luma, psnr, scores, to_8_bits

SCORES = ("psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb")


class Upscaler:
    """A switch of a super-resolution network, on whole images of any size.

    Args:
      model: the trained supernet.
      switch: the switch to run.
    """

    def __init__(self, model: Supernet, switch: Switch) -> None:
        self.switch = switch
        images = tf.TensorSpec((1, None, None, 3), tf.uint8)
        maps = tf.TensorSpec((1, None, None, None), tf.float32)

        # The open sides keep it at one trace for all images.
        @tf.function(input_signature=[images])
        def parts(image: tf.Tensor) -> list[tf.Tensor]:
            return [tf.cast(model.call_cut(image, cut).prediction, tf.float32) for cut in switch.cuts]

        @tf.function(input_signature=[images, maps])
        def fused(image: tf.Tensor, summed: tf.Tensor) -> tf.Tensor:
            # The features play no part in the answer.
            return model.fuse(image, [Outputs(summed, summed)])["prediction"]

        # Traced here: TensorFlow takes one function for each switch for one that is traced again and again, and warns.
        self._parts = parts.get_concrete_function()
        self._fused = fused.get_concrete_function()

    def __call__(self, low: np.ndarray) -> np.ndarray:
        """The answer of all devices: uint8 (height, width, 3) to uint8 (height * scale, width * scale, 3)."""
        return self.subsets(low, [tuple(range(self.switch.devices))])[0]

    def subsets(self, low: np.ndarray, subsets: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """The answers when only these devices answer, one for each subset; every slice runs once."""
        image = tf.constant(low[np.newaxis])
        parts = self._parts(image)
        answers = [self._fused(image, tf.add_n([parts[device] for device in live])) for live in subsets]
        return [to_8_bits(answer.numpy()[0]) for answer in answers]


def measure(
    model: Supernet, part: ImagePairs, report: Callable[[str], None], validation: Any = None
) -> dict[Path, dict[str, Any]]:
    """By switch: the mean over the images of each of `SCORES`, and

    `sets`: by set of images, `images` and the means over them; `bicubic`: what bicubic enlargement has, in the same
    form; `madds_per_pixel` and `madds_per_pixel_largest`: multiply-adds for each low-resolution pixel, of all devices
    and the tail, and of the device with most; `live_subsets`: for each set of devices that may answer, `devices` and
    `psnr_y`, the tail running in each case.

    Args:
      model: the trained supernet.
      part: the images to judge it by, whole, one by one.
      report: is told what is being done.
      validation: plays no part.
    """
    report("evaluating bicubic enlargement")
    pairs = list(zip(part.low, part.high, strict=True))
    bicubic = _summary(part, [scores(high, enlarge(low, part.scale), part.scale) for low, high in pairs])
    measured: dict[Path, dict[str, Any]] = {}
    for switch in model.switches:
        report(f"evaluating switch {switch}")
        upscale = Upscaler(model, switch)
        subsets = list(live_subsets(switch.devices))
        whole, live = [], np.zeros(len(subsets))
        for low, high in pairs:
            answers = upscale.subsets(low, subsets)
            whole.append(scores(high, answers[0], part.scale))
            truth = luma(high)
            live += [psnr(truth, luma(answer), part.scale) for answer in answers]
        costs = [cost.madds for cost in path_costs(model.architecture, switch)]
        pixels = model.architecture.image_shape[0] * model.architecture.image_shape[1]
        measured[switch] = {
            **_summary(part, whole),
            "bicubic": bicubic,
            "madds_per_pixel": (sum(costs) + tail_cost(model.architecture).madds) // pixels,
            "madds_per_pixel_largest": max(costs) // pixels,
            "live_subsets": [
                {"devices": list(devices), "psnr_y": float(total / len(pairs))}
                for devices, total in zip(subsets, live, strict=True)
            ],
        }
    return measured


def quality_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Evaluated rows as a table for each set of images, bicubic enlargement first."""
    header = (
        "",
        "devices",
        "kMAdds a pixel",
        "largest device (k)",
        "PSNR-Y (dB)",
        "SSIM-Y",
        "PSNR-RGB (dB)",
        "SSIM-RGB",
    )
    texts = []
    for name, of_set in rows[0]["sets"].items():
        lines = [("bicubic", "", "", "", *_texts(rows[0]["bicubic"]["sets"][name]))]
        for row in rows:
            madds = (f"{row[key] / 1e3:.1f}" for key in ("madds_per_pixel", "madds_per_pixel_largest"))
            lines.append((row["switch"], row["devices"], *madds, *_texts(row["sets"][name])))
        texts.append(f"{name}, {of_set['images']} images\n{columns.render(header, lines)}")
    return "\n\n".join(texts)


def _texts(means: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(f"{means[key]:.{2 if key.startswith('psnr') else 4}f}" for key in SCORES)


def _summary(part: ImagePairs, by_image: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    sets = {}
    for name in part.sets:
        of_set = [image for image, full in zip(by_image, part.names, strict=True) if full.rpartition("/")[0] == name]
        sets[name] = {"images": len(of_set), **_means(of_set)}
    return {**_means(by_image), "sets": sets}


def _means(by_image: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([image[key] for image in by_image])) for key in SCORES}
