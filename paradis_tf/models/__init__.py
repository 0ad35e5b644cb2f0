"""Architecture families, each written once over `paradis_tf.operations`."""

from __future__ import annotations

import dataclasses
from typing import Any

from paradis_tf.base import registry
from paradis_tf.builders.architecture import Architecture
from paradis_tf.models.i_resnext import IResNeXt
from paradis_tf.models.mobilenet_v1 import MobileNetV1
from paradis_tf.models.resnet import ResNet
from paradis_tf.models.wdsr import WDSR

ARCHITECTURES: dict[str, type[Any]] = {family.name: family for family in (MobileNetV1, ResNet, IResNeXt, WDSR)}


def create(name: str, **options: Any) -> Architecture:
    """The architecture of that name with these options.

    Raises:
      UserError: an unknown name or option, or an option out of range; the legal ones are listed.
    """
    return registry.create("architecture", ARCHITECTURES, _options, name, options)


def _options(family: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(family)]
