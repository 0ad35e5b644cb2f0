"""Which devices and machines a training runs on: the --strategy flag and TF_CONFIG."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import Any

from fusion.base.program import UserError

STRATEGIES = ("auto", "single", "mirrored", "multi_worker")
_JOBS = ("chief", "worker")
_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}, '
    "with another index on each machine"
)


@dataclass(frozen=True)
class TrainingCluster:
    """The machines of a training, as TF_CONFIG names them.

    Attributes:
      addresses: `host:port` of each worker; the first one is the chief, which alone writes files.
      index: which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def peers(self) -> tuple[str, ...]:
        """The addresses of the others."""
        return tuple(address for place, address in enumerate(self.addresses) if place != self.index)


def cluster_of(text: str | None) -> TrainingCluster | None:
    """The cluster that a value of TF_CONFIG describes; None if it is empty or names no cluster.

    Raises:
      UserError: it is not JSON, or is no cluster of workers that this process belongs to.
    """
    if not text or not text.strip():
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"TF_CONFIG is not JSON ({error}); it is written like {_EXAMPLE}.") from None
    jobs = values.get("cluster") if isinstance(values, dict) else None
    if isinstance(values, dict) and not jobs:
        return None
    if not isinstance(jobs, dict) or not set(jobs) <= set(_JOBS):
        raise _wrong("cluster", jobs, f"the addresses under {' and '.join(map(repr, _JOBS))}, no other kind of task")
    for job, addresses in jobs.items():
        _check_addresses(job, addresses)
    everyone = [address for job in _JOBS for address in jobs.get(job, ())]
    if len(set(everyone)) < len(everyone):
        raise _wrong("cluster", jobs, "a different address for each task")
    return TrainingCluster(tuple(everyone), everyone.index(_own_address(values.get("task"), jobs)))


def _own_address(task: Any, jobs: dict[str, list[str]]) -> str:
    if not isinstance(task, dict) or task.get("type") not in jobs:
        raise _wrong("task", task, f"of a type that the cluster has: {', '.join(jobs)}")
    index, job = task.get("index"), task["type"]
    if type(index) is not int or not 0 <= index < len(jobs[job]):
        raise _wrong("task.index", index, f"from 0 to {len(jobs[job]) - 1}, as the cluster has {len(jobs[job])} {job}s")
    return jobs[job][index]


def _wrong(key: str, value: Any, legal: str) -> UserError:
    return UserError(f"TF_CONFIG: {key} is {json.dumps(value)}; legal: {legal}. It is written like {_EXAMPLE}.")


def _check_addresses(job: str, addresses: Any) -> None:
    if not isinstance(addresses, list) or not addresses:
        raise _wrong(f"cluster.{job}", addresses, "a list of addresses")
    for address in addresses:
        match = (
            re.fullmatch(r"(?:[^\s:/]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", address) if isinstance(address, str) else None
        )
        if match is None or not 0 < int(match[1]) < 65536:
            raise _wrong(f"an address of cluster.{job}", address, "host:port")
    if job == "chief" and len(addresses) > 1:
        raise _wrong("cluster.chief", addresses, "one address")


def choose(name: str, devices: list[str], cluster: TrainingCluster | None, gpus: int) -> str:
    """What `auto` stands for here, or the name itself, checked.

    Args:
      name: one of `STRATEGIES`.
      devices: what --devices names; empty if it was not given.
      cluster: the machines of TF_CONFIG.
      gpus: how many GPUs this machine has.

    Returns:
      `single`, `mirrored` or `multi_worker`.

    Raises:
      UserError: a strategy that TF_CONFIG or --devices do not go with.
    """
    if name not in STRATEGIES:
        raise UserError(f"--strategy={name} is unknown; legal: {', '.join(STRATEGIES)}.")
    several = cluster is not None and len(cluster.addresses) > 1
    if name == "auto":
        name = "multi_worker" if several else "mirrored" if devices or gpus > 1 else "single"
    if name == "multi_worker" and not several:
        raise UserError(
            f"--strategy=multi_worker needs TF_CONFIG with two workers or more; it is written like {_EXAMPLE}."
        )
    if name != "multi_worker" and several:
        raise UserError(f"--strategy={name} was asked for, and TF_CONFIG names several workers; unset it.")
    if devices and name != "mirrored":
        raise UserError(f"--devices={','.join(devices)} goes with --strategy=mirrored, and it is {name}.")
    if name == "mirrored" and len(set(devices)) < len(devices):
        raise UserError(f"--devices={','.join(devices)} names a device twice.")
    return name


def environment_cluster() -> TrainingCluster | None:
    """The cluster of this process's TF_CONFIG.

    Raises:
      UserError: as `cluster_of`.
    """
    return cluster_of(os.environ.get("TF_CONFIG"))
