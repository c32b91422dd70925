"""The committed pipeline as it is, all of the sample, on two workers: the committed `dvc.lock`.

For its minutes it is not in `make test`.
"""

from __future__ import annotations

import time

import pytest
from cluster_processes import Services, until
from cluster_story import ENDED, ROOT, bare_repository, failures, git
from cluster_topology import Cluster

from flowsight.pipeline import dvc_yaml

pytestmark = [pytest.mark.slow, pytest.mark.pipeline, pytest.mark.timeout(3600)]


def test_two_workers_make_the_committed_lock(services: Services) -> None:
    folder = services.folder
    cluster = Cluster(services=services, folder=folder, repo=bare_repository(folder, {}))
    cluster.start_all({"one": "default,cpu,gpu", "two": "default,cpu,gpu"})
    until(lambda: cluster.unpause("retrain"), "retrain to be parsed", timeout_sec=300)
    begin = time.monotonic()
    cluster.trigger("retrain", "whole", {})
    until(
        lambda: cluster.run_state("retrain", "whole") in ENDED,
        "the run to end",
        timeout_sec=3000,
        every_sec=2,
    )
    print(f"\n{len(dvc_yaml.load(ROOT))} stages in {time.monotonic() - begin:.0f} s")
    assert cluster.run_state("retrain", "whole") == "success", failures(cluster, "whole")
    # prepare writes params.yaml anew, from the same choices
    assert git("show", "runs/whole:params.yaml", at=cluster.repo) == (
        ROOT / "params.yaml"
    ).read_text(encoding="utf-8")
    assert git("show", "runs/whole:dvc.lock", at=cluster.repo) == (ROOT / "dvc.lock").read_text(
        encoding="utf-8"
    )
