"""Prints what each switch or level of a config costs: multiply-adds, parameters and activation bytes, per device and
in all.

    python -m paradis_tf.profile --config=paradis_tf/configs/digits_mobilenet_v1.py
    python -m paradis_tf.profile --config=paradis_tf/configs/defaults.py --image_size=224 --classes=1000

Counts are per image and come from shapes alone; nothing is trained. Of super-resolution the image is the
low-resolution one, a training patch unless --image_size says otherwise; what is done once, with the sum of the slices'
outputs, is the line `tail`. Of a triangular network `step` is what a level adds to the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from fusion.base import columns
from fusion.base.files import check_json_target, results, write_json
from fusion.base.paths import define_path
from fusion.base.program import UserError
from paradis_tf.base import program
from paradis_tf.paths import heading_of, path_named, paths_of

_CONFIG = program.define_config("The experiment; see paradis_tf/configs/.")
_IMAGE_SIZE = flags.DEFINE_integer("image_size", 0, "Side of the image in pixels; 0 takes the dataset's.")
_CLASSES = flags.DEFINE_integer("classes", 0, "Number of classes; 0 takes the dataset's.")
_LAYERS = flags.DEFINE_string("layers", "", "Also print every layer of the devices of this switch or level.")
_JSON = define_path("json", "", "File to write the table to as JSON.")
_SIZES = {
    "digits": (16, 10),
    "cifar10": (32, 10),
    "cifar100": (32, 100),
    "fashion_mnist": (28, 10),
    "imagenette64": (64, 10),
}


def rows(architecture: Any, paths: Sequence[Any]) -> list[dict[str, Any]]:
    """One dict per path: totals, which count the tail, the largest device, the devices, and the tail; of a triangular
    level its step, too."""
    from paradis_tf.builders.cost import cut_cost, path_costs, tail_cost

    table = []
    tail = tail_cost(architecture)
    for path in paths:
        devices: list[dict[str, Any]] = [
            {
                "slice": str(cut.slice),
                "madds": cost.madds,
                "kernel_parameters": cost.kernel_parameters,
                "parameters": cost.parameters,
                "largest_activation_bytes": cost.largest_activation_bytes,
            }
            for cut, cost in zip(path.cuts, path_costs(architecture, path), strict=True)
        ]
        row: dict[str, Any] = {
            "switch": str(path),
            "madds_total": sum(device["madds"] for device in devices) + tail.madds,
            "madds_largest": max(device["madds"] for device in devices),
            "kernel_parameters": sum(device["kernel_parameters"] for device in devices) + tail.kernel_parameters,
            "parameters": sum(device["parameters"] for device in devices) + tail.parameters,
            "devices": devices,
            "tail": {"madds": tail.madds, "parameters": tail.parameters},
        }
        for step in getattr(path, "steps", ())[-1:]:
            cost = cut_cost(architecture, step)
            row["step"] = {"madds": cost.madds, "parameters": cost.parameters}
        table.append(row)
    return table


def main(argv: list[str]) -> None:
    check_json_target(_JSON.value)
    config = program.config_of(_CONFIG)
    options = _of_data(config)
    # With the layers, whose costs stand beside them, TensorFlow is loaded.
    with program.loading():
        from paradis_tf import models
    architecture = models.create(**dict(config.model), **options)
    paths = paths_of(config)
    listed = path_named(_LAYERS.value, paths, config.grid) if _LAYERS.value else None
    table = rows(architecture, paths)
    with results() as write:
        if _JSON.value:
            write(write_json, _JSON.value, table)
        _print(architecture, options, table)
        if listed is not None:
            _print_layers(architecture, listed)


def _print(architecture: Any, options: dict[str, Any], table: list[dict[str, Any]]) -> None:
    size = "x".join(map(str, architecture.image_shape[:2]))
    what = f"{options['classes']} classes" if "classes" in options else f"scale {options['scale']}"
    print(f"{architecture.name}, {size}, {what}; per image, activations int8\n")
    header = (
        heading_of(row["switch"] for row in table),
        "slice",
        "MAdds (M)",
        "kernel parameters",
        "with batch norm",
        "largest activation (bytes)",
    )
    lines: list[tuple] = []
    for row in table:
        summed = len(row["devices"]) > 1 or row["tail"]["madds"] > 0
        lines.append(
            (
                row["switch"],
                "total" if summed else row["devices"][0]["slice"],
                f"{row['madds_total'] / 1e6:.2f}",
                f"{row['kernel_parameters']:,}",
                f"{row['parameters']:,}",
                "" if summed else f"{row['devices'][0]['largest_activation_bytes']:,}",
            )
        )
        for device in row["devices"] if summed else []:
            lines.append(
                (
                    "",
                    device["slice"],
                    f"{device['madds'] / 1e6:.2f}",
                    f"{device['kernel_parameters']:,}",
                    f"{device['parameters']:,}",
                    f"{device['largest_activation_bytes']:,}",
                )
            )
        for name in ("step", "tail"):
            part = row.get(name, {"madds": 0})
            if part["madds"]:
                lines.append(("", name, f"{part['madds'] / 1e6:.2f}", "", f"{part['parameters']:,}", ""))
    print(columns.render(header, lines))


def _of_data(config: Any) -> dict[str, Any]:
    """What the architecture takes from the data, without reading it."""
    if _IMAGE_SIZE.value < 0 or _CLASSES.value < 0:
        raise UserError(f"--image_size={_IMAGE_SIZE.value} and --classes={_CLASSES.value}; both are 0 or more.")
    if config.dataset.name == "sr":
        size = _IMAGE_SIZE.value or config.dataset.patch_size
        return {"image_shape": (size, size, 3), "scale": config.dataset.scale}
    known_size, known_classes = _SIZES.get(config.dataset.name, (0, 0))
    size = _IMAGE_SIZE.value or config.dataset.image_size or known_size
    classes = _CLASSES.value or config.dataset.classes or known_classes
    if not size or not classes:
        raise UserError(
            f"dataset {config.dataset.name!r} does not say its shape without being read; --image_size or --classes is "
            "missing."
        )
    return {"image_shape": (size, size, 3), "classes": classes}


def _print_layers(architecture: Any, path: Any) -> None:
    from paradis_tf.builders.cost import cut_cost

    for cut in path.cuts:
        lines = [
            (layer.name, layer.kind, f"{layer.madds:,}", f"{layer.kernel_parameters + layer.norm_parameters:,}")
            for layer in cut_cost(architecture, cut).layers
        ]
        print(f"\nslice {cut.slice}\n{columns.render(('layer', 'kind', 'MAdds', 'parameters'), lines)}")


if __name__ == "__main__":
    program.run(main)
