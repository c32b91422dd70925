"""What the tests share: real data where it is at hand, and a clean environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# nobody's test run reports home, and no test writes runs into the repository's store
os.environ.update(
    DVC_NO_ANALYTICS="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    GX_ANALYTICS_ENABLED="False",
    DO_NOT_TRACK="1",
)
os.environ.setdefault("FLOWSIGHT_TRACKING", "off")


def missing(what: str) -> None:
    """Skip with a reason; where everything must be there (CI) fail instead."""
    if os.environ.get("FLOWSIGHT_REQUIRE_ALL") == "1":
        pytest.fail(f"{what} (FLOWSIGHT_REQUIRE_ALL=1)")
    pytest.skip(what)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real sample data."""
    folder = Path(os.environ.get("FLOWSIGHT_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        missing(f"real data not found in {folder}; set FLOWSIGHT_SHARED")
    return folder.resolve()


@pytest.fixture(scope="session")
def chromium_path() -> str:
    """A Chromium to open pages with."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("no chromium on PATH; install it to test the report in a browser")
    return str(found)
