"""`dvc.yaml` as data, checked against DVC's own reading of it."""

from __future__ import annotations

import compileall
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowsight.errors import InputError
from flowsight.pipeline import composing, dvc_yaml

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(params=["dataset=sample", "dataset=weizmann"])
def repository_copy(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The pipeline's files in an empty DVC repository; DVC names stages relative to the folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "params.yaml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    composing.compose([request.param], root=tmp_path)
    return tmp_path


def test_stages_are_those_dvc_sees(repository_copy: Path) -> None:
    from dvc.repo import Repo

    ours = dvc_yaml.load(repository_copy)
    with Repo(str(repository_copy)) as repo:
        theirs = {stage.addressing: stage for stage in repo.index.stages}
        assert set(ours) == set(theirs)
        for name, stage in theirs.items():
            assert ours[name].cmd == stage.cmd
            paths = {str(dep.def_path) for dep in stage.deps} - {"params.yaml"}
            assert set(ours[name].deps) == paths
            assert set(ours[name].outs) == {str(out.def_path) for out in stage.outs}


def test_edges_are_those_dvc_sees(repository_copy: Path) -> None:
    from dvc.repo import Repo

    ours = dvc_yaml.upstream(dvc_yaml.load(repository_copy))
    with Repo(str(repository_copy)) as repo:
        graph = repo.index.graph  # an edge points from a stage to what it needs
        theirs = {
            stage.addressing: {other.addressing for other in graph.successors(stage)}
            for stage in graph.nodes
        }
    assert ours == theirs


def test_every_stage_says_what_it_needs() -> None:
    wanted = {"group", "gpus", "memory_gb", "timeout_min", "queue", "retries"}
    for stage in dvc_yaml.load(ROOT).values():
        assert set(stage.meta) == wanted, stage.name


def test_a_group_without_instances_is_known_by_its_places(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("data: {name: toy}\nsome: {a: {x: 1}}\nnone: {}\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  used:\n    foreach: ${some}\n    do: {cmd: 'x', outs: ['o/${key}']}\n"
        "  empty:\n    foreach: ${none}\n    do:\n      cmd: y ${item.x}\n"
        "      deps:\n        - src/${item.x}.py\n        - in/${data.name}/${ key }/a\n"
        "        - ${data.name}.csv\n        - ${key}\n"
        "      outs: ['out/${data.name}/${key}': {cache: false}]\n"
        "      metrics: [m.json]\n"
        "      meta: {group: '${item.x}', queue: gpu}\n"
    )
    assert list(dvc_yaml.load(tmp_path)) == ["used@a"]
    found = dvc_yaml.load(tmp_path, unused=True)
    assert list(found) == ["used@a", "empty"]
    assert found["empty"].unused and not found["used@a"].unused
    assert found["empty"].deps == ("src", "in/toy", "toy.csv", "")
    assert found["empty"].outs == ("out/toy", "m.json")
    assert found["empty"].meta == {"queue": "gpu"}
    assert found["empty"].from_params


def test_reading_loads_nothing_heavy() -> None:
    code = (
        "import sys; from flowsight.pipeline import dvc_yaml; dvc_yaml.load();"
        "heavy = {'torch', 'dvc', 'pandas', 'numpy', 'mlflow', 'cv2'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def small_repository(tmp_path: Path) -> Path:
    (tmp_path / "params.yaml").write_text("lr: 1\nother: 2\nnames: [a, b]\n")
    (tmp_path / "code.py").write_text("one")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  make:\n    foreach: ${names}\n    do:\n"
        "      cmd: make ${item}\n      outs: ['data/${item}']\n"
        "  fit:\n    cmd: fit ${names[0]} ${names[1]}\n    deps: [code.py, data]\n"
        "    params: [lr]\n    outs: [model]\n    metrics: [{m.json: {cache: true}}]\n"
    )
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  make@a: {outs: [{path: data/a, md5: '1'}]}\n"
        "  make@b: {outs: [{path: data/b, md5: '2'}]}\n"
    )
    return tmp_path


def test_templating(tmp_path: Path) -> None:
    stages = dvc_yaml.load(small_repository(tmp_path))
    assert list(stages) == ["make@a", "make@b", "fit"]
    assert stages["fit"].cmd == "fit a b"
    assert stages["fit"].outs == ("model", "m.json")
    assert dvc_yaml.upstream(stages)["fit"] == {"make@a", "make@b"}


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("params.yaml", "lr: 1", "lr: 3", True),
        ("params.yaml", "other: 2", "other: 3", False),
        ("code.py", "one", "two", True),
        ("dvc.lock", "md5: '2'", "md5: '3'", True),
        ("dvc.yaml", "cmd: fit", "cmd: fit --more", True),
        ("dvc.yaml", "cmd: make", "cmd: remake", False),
    ],
)
def test_stage_key_follows_what_the_stage_reads(
    tmp_path: Path, file: str, old: str, new: str, changes: bool
) -> None:
    root = small_repository(tmp_path)
    before = dvc_yaml.stage_key("fit", root)
    path = root / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (dvc_yaml.stage_key("fit", root) != before) == changes


def test_stage_key_leaves_out_what_python_leaves_behind(tmp_path: Path) -> None:
    root = small_repository(tmp_path)
    text = (root / "dvc.yaml").read_text().replace("[code.py, data]", "[package, data]")
    (root / "dvc.yaml").write_text(text)
    (root / "package").mkdir()
    (root / "package/part.py").write_text("x = 1\n")
    before = dvc_yaml.stage_key("fit", root)
    compileall.compile_dir(root / "package", quiet=1)
    assert list((root / "package/__pycache__").iterdir())
    assert dvc_yaml.stage_key("fit", root) == before
    (root / "package/part.py").write_text("x = 2\n")
    assert dvc_yaml.stage_key("fit", root) != before


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no dvc\.yaml"):
        dvc_yaml.load(tmp_path)
    root = small_repository(tmp_path)
    with pytest.raises(InputError, match="no stage 'nothing'"):
        dvc_yaml.stage_key("nothing", root)
    (root / "params.yaml").write_text("lr: 1\n")
    with pytest.raises(InputError, match="names"):
        dvc_yaml.load(root)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("a/b", "a/b", True), ("a", "a/b", True), ("a/b", "a", True), ("a/b", "a/bc", False)],
)
def test_overlap(one: str, other: str, expected: bool) -> None:
    assert dvc_yaml.overlaps(one, other) == expected


# few names, so that paths meet often; "." holds everything
PATHS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3).map(
    lambda parts: "/".join(parts) or "."
)


# a busy machine is no failure
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.lists(PATHS, max_size=4), st.lists(PATHS, max_size=3)), max_size=8))
def test_edges_are_those_of_all_pairs(reads_and_writes: list[tuple[list[str], list[str]]]) -> None:
    stages = {
        f"s{i}": dvc_yaml.Stage(f"s{i}", "s", str(i), "", tuple(deps), tuple(outs), ())
        for i, (deps, outs) in enumerate(reads_and_writes)
    }
    by_definition = {
        name: {
            other
            for other in stages
            if other != name
            and any(
                dvc_yaml.overlaps(dep, out)
                for dep in stages[name].deps
                for out in stages[other].outs
            )
        }
        for name in stages
    }
    assert dvc_yaml.upstream(stages) == by_definition


def test_text_with_a_colon_between_braces_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pods.yaml"
    path.write_text("{image: registry:5000/flowsight:1.0, gpus: 1}\n")
    assert dvc_yaml.read_yaml(path) == {"image": "registry:5000/flowsight:1.0", "gpus": 1}
