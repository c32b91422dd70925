"""The simulation on graphs small enough to schedule by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    path = ROOT / "benchmarks/cluster_simulation.py"
    spec = importlib.util.spec_from_file_location("cluster_simulation", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# a (3 s) and b (1 s) before c (2 s, on a GPU); d (4 s) on its own
SECONDS = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}
EDGES: dict[str, set[str]] = {"a": set(), "b": set(), "c": {"a", "b"}, "d": set()}
QUEUE = {"a": "cpu", "b": "cpu", "c": "gpu", "d": "cpu"}


@pytest.mark.parametrize(("cpu", "expected"), [(1, 10.0), (2, 6.0), (3, 5.0)])
def test_makespan_by_hand(simulation: ModuleType, cpu: int, expected: float) -> None:
    """Longest way first. One: a 0-3, d 3-7, b 7-8, c 8-10. Two: b 3-4, c 4-6. Three: c 3-5."""
    rest = simulation.longest_ways(SECONDS, EDGES)
    assert rest == {"a": 5.0, "b": 3.0, "c": 2.0, "d": 4.0}
    workers = {"cpu": cpu, "gpu": 1}
    assert simulation.simulate(SECONDS, EDGES, QUEUE, workers, rest) == expected


def test_critical_path(simulation: ModuleType) -> None:
    rest = simulation.longest_ways(SECONDS, EDGES)
    assert simulation.critical_path(rest, EDGES) == ["a", "c"]


def test_the_graph_of_a_thousand_stages_is_read(simulation: ModuleType, tmp_path: Path) -> None:
    """488 shards of frames and flow; three splits of four streams and of six networks over time;
    static-camera videos and images beside them; each system's part of the report."""
    stages, reading = simulation.read_graph(tmp_path, 488)
    assert len(stages) == 2 * 488 + 3 * (10 + 15) + 10 + 6 + 6 + 4
    assert reading["edges"] > 40_000  # what it takes is the benchmark's to say, and test_nodes'


def test_barriers_only_add_waiting(simulation: ModuleType, tmp_path: Path) -> None:
    from flowsight.pipeline import dvc_yaml

    stages, _ = simulation.read_graph(tmp_path, 3)
    edges = dvc_yaml.upstream(stages)
    barriers = simulation.with_barriers(stages, edges)
    assert all(edges[name] <= barriers[name] for name in stages)
    assert barriers["train@spatial-1"] >= {"flow@0", "flow@1", "flow@2", "validate@splits"}
    assert "flow@0" not in edges["train@spatial-1"]
