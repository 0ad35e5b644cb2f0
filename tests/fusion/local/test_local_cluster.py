"""Clusters of this machine: workers on cores, killed and started again."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fusion.base.program import UserError
from fusion.bundle import manifest
from fusion.local.cluster import LocalCluster, Python
from fusion.local.cores import Placement
from fusion.local.evaluation import evaluate


def test_workers_on_cores_come_back_on_their_address(bundle, data, reference):
    before = os.sched_getaffinity(0)
    core = max(before)
    images = data[0][:3]
    # `front` is told the workers' addresses; here in the other order.
    placement, swapped = Placement((core,), (), (), ""), lambda urls: list(reversed(urls))
    with LocalCluster(
        manifest.load(bundle), "0.5+0.5", "float32", workers=2, placement=placement, front=swapped
    ) as cluster:
        assert os.sched_getaffinity(0) == before
        workers, urls = cluster.pids[:2], cluster.worker_urls
        assert [os.sched_getaffinity(pid) for pid in workers] == [{core}] * 2
        assert os.sched_getaffinity(cluster.pids[2]) == before
        logits = reference(0, 8)[:3]
        np.testing.assert_allclose(evaluate(cluster.url, images).answers, logits, atol=1e-4)
        cluster.signal(0, signal.SIGKILL)
        os.waitid(os.P_PID, workers[0], os.WEXITED | os.WNOWAIT)
        # A stopped one, too, has to end for its successor.
        cluster.signal(1, signal.SIGSTOP)
        for worker in (0, 1):
            cluster.restart(worker)
        assert cluster.worker_urls == urls and not set(cluster.pids[:2]) & set(workers)
        assert os.sched_getaffinity(cluster.pids[1]) == {core}
        assert soon(lambda: np.allclose(evaluate(cluster.url, images).answers, logits, atol=1e-4))


def test_workers_of_another_python_run_the_runner_of_its_folder(bundle, data, reference, monkeypatch):
    monkeypatch.setenv("OTHER", "of this process")
    monkeypatch.chdir(bundle.parent)
    folder = Path(bundle.name)
    pythons = [Python(), Python(("env", "MARK=1", sys.executable), {"PATH": os.environ["PATH"]}, folder)]
    with LocalCluster(manifest.load(folder), "0.5+0.5", "float32", workers=2, worker_pythons=pythons) as cluster:
        first, second = ({*Path(f"/proc/{pid}/environ").read_text().split("\0")} for pid in cluster.pids[:2])
        assert "OTHER=of this process" in first and "MARK=1" not in first
        # Python itself may add one that says how text is encoded.
        assert {name for name in second if not name.startswith("LC_")} == {f"PATH={os.environ['PATH']}", "MARK=1", ""}
        assert Path(f"/proc/{cluster.pids[1]}/cwd").resolve() == bundle.resolve()
        images = data[0][:3]
        np.testing.assert_allclose(evaluate(cluster.url, images).answers, reference(0, 8)[:3], atol=1e-4)


def soon(call):
    """Whether the call is true within some seconds; a coordinator first has to see that its workers are back."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(UserError):
            if call():
                return True
        time.sleep(0.2)
    return False


def test_a_number_of_workers_or_a_switch(bundle):
    with pytest.raises(UserError, match="a cluster without a switch needs a number of workers"):
        LocalCluster(manifest.load(bundle), None)


def test_nothing_happens_to_workers_that_are_not_started(bundle):
    with pytest.raises(UserError, match="worker 0 is not started; legal: inside the cluster's block"):
        LocalCluster(manifest.load(bundle), None, workers=1).signal(0, signal.SIGKILL)
