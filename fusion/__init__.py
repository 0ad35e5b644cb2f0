"""The runner: what answers and asks on boards, and all that it takes there.

It is copied whole into every bundle, so it imports neither TensorFlow nor Keras nor anything of the rest, and its
modules import each other relatively: `fusion` in the repository is `fusion` inside a bundle. Its rooms, from the ground
up, each of which imports only those before it:

  base          how programs begin and end, files, paths and outputs, what an image file means, tables for the terminal
  bundle        what a bundle holds: its manifest, its tasks
  protocol      the Open Inference Protocol: messages and tensors
  security      tokens and TLS
  images        image files as a model's input; tiles
  runtime       the TFLite runtimes, and a slice's or tail's interpreter
  cluster       the cluster file, and devices that announce themselves
  rules         from the slices' outputs to the answer
  serving       the HTTP server
  asking        the HTTP client
  worker        the program that serves slices on one device
  coordinator   the program that sends an image to the workers of a switch, and fuses
  local         a cluster of this machine's processes
  predict       the program that asks a coordinator about images
  bench         the program that measures a cluster
  certificates  the program that makes keys, certificates and tokens
  systemd       the program that writes systemd units

`plan` shows which switch a coordinator would choose, and why; `selftest` checks a bundle on the machine that runs it.
"""

from .base import starting

starting.begin()
