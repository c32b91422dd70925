"""`dvc.yaml` as a task graph, checked against DVC's own reading of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowsight import contract
from flowsight.errors import InputError
from flowsight.pipeline import composing, dvc_yaml, nodes
from flowsight.pipeline.dvc_yaml import Stage

ROOT = Path(__file__).resolve().parents[1]


def stage(name: str, reads: str = "", section: str = "data", **more: object) -> Stage:
    """A stage that writes a folder of its name and reads those of others."""
    group, _, key = name.partition("@")
    deps, meta = tuple(reads.split()), {"group": section, **more}
    return Stage(
        name=name,
        group=group,
        key=key or None,
        cmd="",
        deps=deps,
        outs=(name.replace("@", "/"),),
        params=(),
        meta={k: v for k, v in meta.items() if k not in ("from_params", "unused", "system")},
        from_params=bool(more.get("from_params")),
        unused=bool(more.get("unused")),
        system=str(more.get("system", "")),
    )


def build(*stages: Stage) -> dict[str, nodes.Node]:
    return nodes.build({each.name: each for each in stages})


def ancestors(before: dict[str, set[str]], name: str) -> set[str]:
    found = set(before[name])
    for other in before[name]:
        found |= ancestors(before, other)
    return found


def test_edges_are_those_dvc_sees() -> None:
    from dvc.repo import Repo

    ours = nodes.build(dvc_yaml.load(ROOT))
    node_of = {name: node.name for node in ours.values() for name in node.stages}
    assert set(node_of) == set(dvc_yaml.load(ROOT))  # each stage in one node, none twice
    theirs: dict[str, set[str]] = {name: set() for name in ours}
    with Repo(str(ROOT)) as repo:
        graph = repo.index.graph  # an edge points from a stage to what it needs
        for one, other in graph.edges:
            theirs[node_of[one.addressing]].add(node_of[other.addressing])
    before = {name: set(node.upstream) for name, node in ours.items()}
    for name in ours:
        assert before[name] <= theirs[name]
        assert ancestors(before, name) == ancestors(theirs, name), name


def test_nodes_of_this_repository() -> None:
    found = nodes.load(ROOT)
    assert {"validate@manifest", "validate@clips", "validate@splits"} <= set(found)
    assert found["validate@clips"].upstream == ("flow", "frames")
    assert found["frames"].mapped and not found["validate@clips"].mapped
    assert found["train@two_stream"].needs == nodes.Needs(
        gpus=1, memory_gb=16, timeout_min=2880, queue="gpu", retries=3
    )
    assert found["train@two_stream"].stages == ("train@spatial-1", "train@temporal-1")
    assert found["train@two_stream"].section == "two_stream"
    systems = set(contract.names())
    for name, node in found.items():
        ours = {before.partition("@")[2] for before in node.upstream} & systems
        assert ours <= {node.section} or name == "page", f"{name} waits for {ours}"
    assert found["validate@clips"].task_id == "validate-clips"
    order = list(found)
    for name, node in found.items():
        assert all(order.index(before) < order.index(name) for before in node.upstream)


def test_the_graph_fits_every_study(tmp_path: Path) -> None:
    """A run's parameters may bring groups that the committed ones leave empty, and their edges."""
    drawn = nodes.load(ROOT)
    turns = drawn["alternate@two_stream"]
    assert turns.mapped and turns.stages == ()
    assert turns.section == "two_stream"
    assert turns.needs.queue == "gpu" and turns.needs.gpus == 1
    before = {name: set(node.upstream) for name, node in drawn.items()}
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    studies = sorted(path.stem for path in (ROOT / "conf/study").glob("*.yaml"))
    composing.compose([f"study=[{','.join(studies)}]"], root=tmp_path)
    run = nodes.build(dvc_yaml.load(tmp_path))
    assert set(run) == set(drawn), "every verb of a system has instances in some study"
    for name, node in run.items():
        assert set(node.upstream) <= ancestors(before, name), name
    for system in contract.names():  # and the other way: the rest is not known yet
        composing.compose([f"systems=[{system}]"], root=tmp_path)
        few = {name: set(node.upstream) for name, node in nodes.load(tmp_path).items()}
        assert few.keys() == run.keys()
        for name, node in run.items():
            assert set(node.upstream) <= ancestors(few, name), (system, name)


def test_a_stage_more_is_a_node_more(tmp_path: Path) -> None:
    added = (
        "\n  count:\n    cmd: wc -l data/splits/sample/1.csv\n"
        "    deps: ['data/splits/${dataset.name}']\n    outs: [counted]\n"
    )
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text() + added)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    before, after = nodes.load(ROOT), nodes.load(tmp_path)
    assert set(after) - set(before) == {"count"}
    assert after["count"].upstream == ("splits",)
    assert after["count"].needs == nodes.Needs()  # without meta it still runs
    assert {name: node for name, node in after.items() if name != "count"} == before


def test_longer_ways_make_edges_superfluous() -> None:
    found = build(stage("a"), stage("b", "a"), stage("c", "a b"), stage("d", "c a"))
    assert {name: node.upstream for name, node in found.items()} == {
        "a": (),
        "b": ("a",),
        "c": ("b",),
        "d": ("c",),
    }


def test_a_cycle_of_mapped_groups_is_refused() -> None:
    stages = [
        stage("check@first", "raw", from_params=True),
        stage("make", "check/first"),
        stage("check@second", "make", from_params=True),
    ]
    with pytest.raises(InputError, match=r"without a cycle, got .*check.*write the foreach"):
        build(*stages)
    written_out = build(*[dvc_yaml.replace(one, from_params=False) for one in stages])
    assert written_out["check@second"].upstream == ("make",)


def test_instances_share_a_queue_and_ask_for_the_most() -> None:
    one = stage("fit@a", from_params=True, gpus=1, memory_gb=2, queue="gpu")
    two = stage("fit@b", from_params=True, gpus=2, memory_gb=1, queue="gpu", section="other")
    node = build(one, two)["fit"]
    assert node.needs == nodes.Needs(gpus=2, memory_gb=2, queue="gpu")
    assert node.section == nodes.SEVERAL
    cpu = stage("fit@c", from_params=True, queue="cpu")
    with pytest.raises(InputError, match=r"one meta\.queue for all of fit, got cpu, gpu"):
        build(one, cpu)


def test_a_node_a_system() -> None:
    """And one for a system that has no instance now; of what it reads only its own is believed."""
    found = build(
        stage("raw"),
        stage("fit@x-1", "raw", from_params=True, system="x"),
        stage("fit@x-2", "raw", from_params=True, system="x"),
        stage("fit@y", "raw fit", from_params=True, unused=True, system="y"),
        stage("show@y", "fit", from_params=True, unused=True, system="y"),
        stage("page", "show fit/x-1"),
    )
    assert found["fit@x"].stages == ("fit@x-1", "fit@x-2")
    assert (found["fit@y"].stages, found["fit@y"].upstream) == ((), ("raw",))
    assert found["show@y"].upstream == ("fit@y",)
    assert found["page"].upstream == ("fit@x", "show@y")
    assert [found[name].section for name in ("fit@x", "fit@y", "raw")] == ["x", "y", "data"]


def test_sections_never_wait_for_each_other() -> None:
    found = build(
        stage("a", section="data"),
        stage("b", "a", section="net"),
        stage("c", "b", section="data"),
        stage("d", "c", section="data"),
        stage("e", "a", section="data"),
        stage("f", "d e", section="net"),
    )
    sections = {name: node.section for name, node in found.items()}
    assert sections == {
        "a": "data",
        "b": "net",
        "e": "data",
        "c": "data 2",
        "d": "data 2",
        "f": "net 2",
    }


def test_instances_find_their_node() -> None:
    groups = {"validate": ["validate@clips"], "frames": ["frames@0", "frames@1"]}
    assert nodes.assign(groups, ["validate@clips", "frames", "flow"]) == {
        "validate@clips": ["validate@clips"],
        "frames": ["frames@0", "frames@1"],
        "flow": [],
    }
    with pytest.raises(InputError, match=r"got new@1: the run's revision has another dvc\.yaml"):
        nodes.assign({"new": ["new@1"]}, ["frames"])


def test_reading_takes_work_in_proportion_to_the_stages(tmp_path: Path) -> None:
    # calls, not seconds: `benchmarks/dags.py` prints those of a thousand stages
    calls_in(write_chain(tmp_path / "first", groups=1))  # imports are not counted
    few, many = (calls_in(write_chain(tmp_path / str(n), groups=n)) for n in (10, 40))
    assert many < 4.5 * few
    found = nodes.load(tmp_path / "40")
    assert len(found) == 40
    assert found["group39"].upstream == ("group38",)


def write_chain(root: Path, groups: int) -> Path:
    """Groups of 25 instances, each reading the one before."""
    lines = ["stages:"]
    for i in range(groups):
        dep = f"out/{i - 1}/${{item}}" if i else "raw"
        lines += [f"  group{i}:", "    foreach: ${shards}", "    do:", "      cmd: run"]
        lines += [f"      deps: ['{dep}', src/code.py]", f"      outs: ['out/{i}/${{item}}']"]
    root.mkdir()
    (root / "dvc.yaml").write_text("\n".join(lines) + "\n")
    (root / "params.yaml").write_text(f"shards: {list(range(25))}\n")
    return root


def calls_in(root: Path) -> int:
    """Function calls, Python's and built-in, that reading a folder's stages makes."""
    count = 0

    def note(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        nodes.load(root)
    finally:
        sys.setprofile(before)
    return count


def test_reading_loads_nothing_heavy_and_no_lock() -> None:
    code = (
        "import sys; opened = [];"
        "sys.addaudithook(lambda e, a: opened.append(str(a[0])) if e == 'open' else None);"
        "from flowsight.pipeline import nodes; nodes.load();"
        "heavy = {'torch', 'dvc', 'pandas', 'numpy', 'mlflow', 'cv2'} & set(sys.modules);"
        "assert not heavy, heavy; assert any('dvc.yaml' in name for name in opened);"
        "assert not [name for name in opened if name.endswith('dvc.lock')]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
