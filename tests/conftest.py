"""What the tests share: real data where it is at hand, and a clean environment."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flowsight.contract import Folders, Job
from flowsight.params import config

ROOT = Path(__file__).resolve().parents[1]

# nobody's test run reports home, and no test writes runs into the repository's store
os.environ.update(
    DVC_NO_ANALYTICS="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    GX_ANALYTICS_ENABLED="False",
    DO_NOT_TRACK="1",
)
os.environ.setdefault("FLOWSIGHT_TRACKING", "off")


# Slow tests of these folders are a pass of their own (`make test-workers`): they wait for servers
# and for each other's leases more than they compute, so two run side by side.
WORKERS = ("cluster", "cluster_services")
# What `make test` leaves out (`make test-services`), for its minutes: whole servers of MLflow and
# Airflow, whose parts other tests cover, and a cluster that runs all of the sample.
SERVICES = (
    *("registry", "serving/test_server", "serving/test_finished_run", "dags/test_stack"),
    "cluster_services/test_whole_sample",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(root).as_posix() if root in item.path.parents else ""
        if not item.get_closest_marker("slow"):
            continue
        if place.startswith(SERVICES):
            item.add_marker("services")
        elif place.startswith(tuple(f"{folder}/" for folder in WORKERS)):
            item.add_marker("workers")
    # the longest first, so that the others fill the second core meanwhile
    items.sort(key=lambda item: item.path.parent.name != "cluster_services")


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


def job_of(
    system: str, block: Any, row: str, out: Path, *, split: str = "1", **folders: Path
) -> Job:
    """What a stage of a row is called with: the committed parameters, one thread, one system."""
    params = config.load(ROOT / "params.yaml")
    return Job(
        system=system,
        row_name=row,
        split=split,
        params=replace(params, systems={system: block}, threads=1),
        folders=Folders(folders),
        out=out,
    )


@dataclass(frozen=True)
class Toy:
    """Two classes that anything can tell apart: red clips move up, blue ones move down."""

    manifest: Path
    split: Path
    frames: Path
    flow: Path
    maps: Path
    clip_ids: tuple[str, ...]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Packs of 16 clips (10 train, 3 val, 3 test), 7 frames of 48 x 36 px."""
    import numpy as np

    from flowsight.video import pack

    root = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    clip_ids = [f"{('Up', 'Down')[i % 2]}/clip_{i:02d}" for i in range(16)]
    subsets = ["train"] * 10 + ["val"] * 3 + ["test"] * 3
    rows, height, width, num_frames = [], 36, 48, 7
    for i, clip_id in enumerate(clip_ids):
        rows.append(f"{clip_id},{clip_id.split('/')[0]},{num_frames},{i % 2}")
        frames = rng.integers(60, 120, (num_frames, height, width, 3)).astype(np.uint8)
        frames[..., 2 * (i % 2)] += 60
        fields = rng.integers(108, 148, (num_frames - 1, 2, height, width)).astype(np.uint8)
        fields[:, 1] += (20, 236)[i % 2]  # v +- 20, wrapping
        maps = rng.integers(0, 256, (num_frames, 5, 6)).astype(np.uint8)
        jpegs = [(pack.frame_name(k), pack.encode_jpeg(f, 95)) for k, f in enumerate(frames)]
        meta = {"size": [width, height], "num_frames": num_frames, "num_fields": num_frames - 1}
        pack.write_pack(root / f"frames/{i % 2}/{clip_id}.zip", jpegs, meta)
        jpegs = [
            (name, pack.encode_jpeg(component, 95))
            for k, field in enumerate(fields)
            for name, component in zip(pack.flow_names(k), field, strict=True)
        ]
        pack.write_pack(root / f"flow/{i % 2}/{clip_id}.zip", jpegs, meta)
        pack.write_maps(root / f"maps/{clip_id}.zip", maps, {})
    manifest = root / "manifest"
    manifest.mkdir()
    text = "\n".join(["clip_id,label,num_frames,shard", *rows])
    (manifest / "clips.csv").write_text(text + "\n")
    (manifest / "classes.csv").write_text("index,label\n0,Up\n1,Down\n")
    lines = [f"{clip},{subset}" for clip, subset in zip(clip_ids, subsets, strict=True)]
    (root / "1.csv").write_text("\n".join(["clip_id,subset", *sorted(lines)]) + "\n")
    paths = (root / "frames", root / "flow", root / "maps")
    return Toy(manifest, root / "1.csv", *paths, tuple(clip_ids))
