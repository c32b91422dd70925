"""A running cluster for the tests of this folder."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster_processes import Services
from cluster_topology import postgres_bin


@pytest.fixture(scope="session")
def needs_services() -> None:
    """PostgreSQL and Redis, or a skip with a reason (a failure where everything must be there)."""
    import os

    absent = [name for name in ("redis-server", "psql", "git") if shutil.which(name) is None]
    if postgres_bin() is None:
        absent.append("PostgreSQL (initdb)")
    if not absent:
        return
    what = f"the cluster test needs {', '.join(absent)}: apt-get install postgresql redis-server"
    if os.environ.get("FLOWSIGHT_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} (FLOWSIGHT_REQUIRE_ALL=1)")
    pytest.skip(what)


@pytest.fixture(scope="module")
def services(needs_services: None) -> Iterator[Services]:
    """Processes in a folder of their own; all are gone afterwards, whatever happened."""
    # not tmp_path: PostgreSQL's user must be able to enter it
    folder = Path(tempfile.mkdtemp(prefix="flowsight-cluster-"))
    folder.chmod(0o755)
    running = Services(folder)
    try:
        yield running
    finally:
        running.close()
        shutil.rmtree(folder, ignore_errors=True)
