"""`flowsight new`: a system copied under another name runs, and nothing of it says the old one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flowsight import contract
from flowsight.errors import InputError
from flowsight.pipeline import new_system

from .test_end_to_end import clone

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What a new system is made from and put into."""
    for name in ("conf", "src/flowsight/systems"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


@pytest.mark.parametrize("like", contract.names())
def test_the_copy_is_the_same_under_its_name(repository: Path, like: str) -> None:
    kind = contract.find(like).SUBJECT
    written = new_system.new("other", kind=kind, like=like, root=repository)
    code, numbers, tests, listed = written
    own, old = (repository / "src/flowsight/systems" / name for name in ("other", like))
    assert code == own
    names = {path.relative_to(own) for path in own.rglob("*") if path.is_file()}
    assert names == {path.relative_to(old) for path in old.rglob("*") if path.is_file()}
    for path in own.rglob("*.py"):
        text = path.read_text()
        compile(text, str(path), "exec")
        assert not re.search(rf'systems\.{like}\b|"{like}"|results/{like}\b', text), path
    assert len((own / "published.csv").read_text().splitlines()) == 1
    for recipe in ("base", "paper", "small", "sample", "smoke"):
        text = (numbers / f"{recipe}.yaml").read_text()
        was = read(repository / "conf/systems" / like / f"{recipe}.yaml")
        assert f"systems.{like}" not in text
        rows = list(was.get("rows") or {})
        found = read(numbers / f"{recipe}.yaml")
        assert list(found.get("rows") or {}) == [f"other_{row}" for row in rows]
        back = numbers / "back.yaml"
        back.write_text(text.replace("systems.other", f"systems.{like}").replace("other_", ""))
        assert read(back) == was
    lines = (repository / "conf/config.yaml").read_text().splitlines()
    before = (ROOT / "conf/config.yaml").read_text().splitlines()
    assert [line for line in lines if line not in before] == ["  - systems/other: ${recipe}"]
    assert lines.index("  - systems/other: ${recipe}") < lines.index("  - study: none")
    compile((tests / "test_runs.py").read_text(), "test_runs.py", "exec")
    assert listed.name == "config.yaml"


@pytest.mark.parametrize(
    ("name", "kind", "like", "says"),
    [
        ("Sky", "images", "saliency", "small letters, digits and underscores, got 'Sky'"),
        ("class", "images", "saliency", "got 'class'"),
        ("../sky", "images", "saliency", "got '../sky'"),
        ("background", "images", "saliency", "'background', which is there already"),
        ("sky", "images", "salience", "--like as one of background, residual3d, saliency, two_"),
        ("sky", "clips", "saliency", "over clips (residual3d, two_stream), got 'saliency', which"),
        ("sky", "sounds", "saliency", "over sounds (none), got 'saliency', which is over images"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_written(
    repository: Path, name: str, kind: str, like: str, says: str
) -> None:
    before = sorted(repository.rglob("*"))
    with pytest.raises(InputError) as refused:
        new_system.new(name, kind=kind, like=like, root=repository)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert sorted(repository.rglob("*")) == before


def test_files_that_are_there_are_left(repository: Path) -> None:
    (repository / "conf/systems/sky").mkdir()
    with pytest.raises(InputError, match="conf/systems/sky yet, found one"):
        new_system.new("sky", kind="images", like="saliency", root=repository)


@pytest.mark.slow
@pytest.mark.pipeline
def test_its_own_tests_pass(tmp_path: Path) -> None:
    """As its author would: the command, then pytest; the smoke recipe runs twice in it."""
    root = clone(tmp_path)
    for name in ("tests/conftest.py", "tests/test_architecture.py", "tests/test_instances.py"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for library in (ROOT / "src/flowsight/flow").glob("*.so"):
        shutil.copy(library, root / "src/flowsight/flow")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(root / "src"), "FLOWSIGHT_TRACKING": "off"}
    for command in (
        "-m flowsight.cli new sky --kind images --like saliency",
        "-m flowsight.cli compose",
        "-m pytest -p no:xdist tests/systems/sky",
        "-m pytest -p no:xdist tests/test_architecture.py tests/test_instances.py -k "
        "sky or reads or waits or counts or folder",
        "-m ruff check src/flowsight/systems/sky tests/systems/sky",
    ):
        front, _, chosen = command.partition(" -k ")
        arguments = [*front.split(), *(["-k", chosen] if chosen else [])]
        done = subprocess.run(
            [sys.executable, *arguments], cwd=root, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stdout[-3000:], done.stderr[-3000:])
    assert "passed" in done.stdout or "All checks passed" in done.stdout
