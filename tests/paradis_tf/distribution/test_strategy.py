"""TF_CONFIG is checked before TensorFlow sees it, and the strategy is chosen from it and from the devices."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from fusion.base.program import UserError
from paradis_tf.distribution.peers import meet
from paradis_tf.distribution.strategy import TrainingCluster, choose, cluster_of

TWO = {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}


def text(cluster: Any, task: Any) -> str:
    return json.dumps({"cluster": cluster, "task": task})


@pytest.mark.parametrize("value", [None, "", "  ", "{}", '{"cluster": {}, "task": {}}'])
def test_without_a_cluster_one_machine_trains(value: str | None) -> None:
    assert cluster_of(value) is None


def test_workers_are_numbered_with_the_chief_first() -> None:
    found = cluster_of(text(TWO, {"type": "worker", "index": 1}))
    assert found == TrainingCluster(("10.0.0.1:2222", "10.0.0.2:2222"), 1)
    assert found.peers == ("10.0.0.1:2222",)
    jobs = {"worker": ["b:1", "[::1]:65535"], "chief": ["a:1"]}
    assert cluster_of(text(jobs, {"type": "worker", "index": 1})) == TrainingCluster(("a:1", "b:1", "[::1]:65535"), 2)
    assert cluster_of(text(jobs, {"type": "chief", "index": 0})) == TrainingCluster(("a:1", "b:1", "[::1]:65535"), 0)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("{", "TF_CONFIG is not JSON"),
        ("[1]", "TF_CONFIG: cluster is null"),
        (text(["a:1"], {}), 'TF_CONFIG: cluster is ["a:1"]'),
        (text({"ps": ["a:1"]}, {}), "no other kind of task"),
        (text({"worker": "a:1"}, {}), 'TF_CONFIG: cluster.worker is "a:1"; legal: a list of addresses'),
        (text({"worker": ["a"]}, {}), 'TF_CONFIG: an address of cluster.worker is "a"; legal: host:port'),
        (text({"worker": ["a:70000"]}, {}), 'an address of cluster.worker is "a:70000"'),
        (text({"worker": [7]}, {}), "an address of cluster.worker is 7"),
        (text({"worker": ["a:1", "a:1"]}, {}), "a different address for each task"),
        (text({"chief": ["a:1", "b:1"]}, {}), "legal: one address"),
        (text(TWO, None), "TF_CONFIG: task is null"),
        (text(TWO, {"type": "chief", "index": 0}), "of a type that the cluster has: worker"),
        (text(TWO, {"type": "worker", "index": 2}), "TF_CONFIG: task.index is 2; legal: from 0 to 1"),
        (text(TWO, {"type": "worker", "index": "0"}), 'TF_CONFIG: task.index is "0"'),
        (text(TWO, {"type": "worker"}), "TF_CONFIG: task.index is null"),
    ],
)
def test_a_wrong_cluster_is_refused_in_one_sentence(value: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        cluster_of(value)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_strategy_follows_from_machines_and_devices() -> None:
    two = TrainingCluster(("a:1", "b:1"), 0)
    one = TrainingCluster(("a:1",), 0)
    assert [choose("auto", [], None, gpus) for gpus in (0, 1, 2)] == ["single", "single", "mirrored"]
    assert choose("auto", ["CPU:0", "CPU:1"], None, 0) == "mirrored"
    assert choose("auto", [], two, 8) == "multi_worker"
    assert choose("auto", [], one, 0) == "single"
    assert choose("single", [], None, 8) == "single"


@pytest.mark.parametrize(
    ("name", "devices", "cluster", "sentence"),
    [
        ("fast", [], None, "--strategy=fast is unknown; legal: auto, single, mirrored, multi_worker"),
        ("multi_worker", [], None, "--strategy=multi_worker needs TF_CONFIG with two workers"),
        (
            "single",
            [],
            TrainingCluster(("a:1", "b:1"), 0),
            "--strategy=single was asked for, and TF_CONFIG names several",
        ),
        ("single", ["GPU:0"], None, "--devices=GPU:0 goes with --strategy=mirrored, and it is single"),
        ("mirrored", ["GPU:0", "GPU:0"], None, "--devices=GPU:0,GPU:0 names a device twice"),
    ],
)
def test_a_strategy_that_does_not_fit_is_refused(
    name: str, devices: list[str], cluster: TrainingCluster | None, sentence: str
) -> None:
    with pytest.raises(UserError) as caught:
        choose(name, devices, cluster, 1)
    assert sentence in str(caught.value)


def free_ports(count: int) -> list[int]:
    with socket.create_server(("127.0.0.1", 0)) as first:
        return [first.getsockname()[1], *(free_ports(count - 1) if count > 1 else [])]


def test_a_peer_that_is_not_there_is_named() -> None:
    own, other = free_ports(2)
    cluster = TrainingCluster((f"127.0.0.1:{own}", f"127.0.0.1:{other}"), 0)
    with pytest.raises(UserError, match=f"worker 1 at 127.0.0.1:{other} was not there within 0.3 s"):
        meet(cluster, 0.3)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"worker 0 cannot listen on 127.0.0.1:{port}: "):
            meet(TrainingCluster((f"127.0.0.1:{port}", "127.0.0.1:1"), 0), 5)
