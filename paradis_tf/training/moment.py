"""A step of a training: what changes in the course of it, and what is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True)
class Moment:
    """One step, by its number alone, so that a resumed run does what an undisturbed one would.

    Attributes:
      step: its number, an integer tensor or variable.
      total_steps: steps of the whole training; with 0 what changes in its course keeps its first value.
      seed: of what is drawn, 0 or more.
      places: entries of a step.
    """

    step: Any
    total_steps: int
    seed: int
    places: int

    def now(self, course: tuple[float, float]) -> Any:
        """What changes linearly, in this step."""
        first, last = course
        if first == last or not self.total_steps:
            return first
        return first + (last - first) * tf.cast(self.step, tf.float32) / self.total_steps

    def seed_of(self, place: int) -> tf.Tensor:
        """Of what the entry at a place draws; int32 (2,)."""
        return tf.stack([tf.cast(self.step, tf.int32), (place + self.seed * self.places) % 2**31])

    def draw(self, count: int, place: int) -> tf.Tensor:
        """One of so many, each as likely as the others, for the entry at a place; an int32 scalar."""
        return tf.random.stateless_uniform([], self.seed_of(place), maxval=count, dtype=tf.int32)
