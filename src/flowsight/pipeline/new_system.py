"""A new system from one there is: its folder, its numbers, its tests, its line."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowsight import contract, files
from flowsight.errors import InputError
from flowsight.pipeline import dvc_yaml

_NAME = re.compile(r"[a-z][a-z0-9_]*")
README = """# {name}

What it is, in one sentence. Its paper: authors, title, where, year.

The files of this folder are those of `{like}` with another name: they run, and say nothing new yet.

## What the paper leaves open, and what was chosen

| the paper | here | why |
|---|---|---|

## Rows

Which networks there are, and how they differ: `conf/systems/{name}/`. What each number means:
`params.py`.
"""
TESTS = '''"""The system alone on generated data, with its shortest recipe: it runs, and repeats."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowsight import contract
from flowsight.params import config
from flowsight.pipeline import composing, dvc_yaml

ROOT = Path(__file__).resolve().parents[3]
SYSTEM = "{name}"


@pytest.mark.parametrize("recipe", ["sample", "smoke", "small", "paper"])
def test_every_recipe_composes(tmp_path: Path, recipe: str) -> None:
    for name in ("conf", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    params = composing.compose([f"systems=[{{SYSTEM}}]", f"recipe={{recipe}}"], root=tmp_path)
    assert list(params.systems) == [SYSTEM]
    assert params == config.load(tmp_path / "params.yaml")
    found = {{stage.system for stage in dvc_yaml.load(tmp_path).values()}}
    assert found == {{"", SYSTEM}}


@pytest.mark.slow
@pytest.mark.pipeline
def test_it_runs_alone_and_repeats(tmp_path: Path) -> None:
    for name in ("conf", "stages", "src", "dvc.yaml", ".dvc/config", ".dvcignore", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    params = composing.compose([f"systems=[{{SYSTEM}}]", "recipe=smoke"], root=tmp_path)
    metrics = [repro(tmp_path, *more) for more in ([], ["--force"])]
    assert metrics[0] == metrics[1]
    for row in params.system(SYSTEM).rows:
        assert any(name.split("/")[0] == row for name in metrics[0]), f"no number of {{row}}"
    assert contract.find(SYSTEM).data(params).name


def repro(root: Path, *more: str) -> dict[str, float]:
    command = [sys.executable, "-m", "flowsight.cli", "repro", *more, f"report@{{SYSTEM}}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads((root / f"results/{{SYSTEM}}/metrics.json").read_text())
'''


def new(name: str, *, kind: str, like: str, root: Path | str = ".") -> list[Path]:
    """Write a system's files, each from one of a system that there is.

    Names of rows belong to one system, so the copy's begin with its name. Printed numbers are not
    copied, for they are another paper's.

    Args:
        name: of the new system, also of its folders.
        kind: of data, `clips`, `scenes` or `images`; must be that of `like`.
        like: the system to copy.
        root: the repository.

    Returns:
        What was written: folders of code, numbers and tests, and the list with the new line.

    Raises:
        InputError: a name that cannot be or is taken, or a system of another kind.
    """
    root = Path(root)
    _check(name, kind, like, root)
    code, numbers, tests = _folders(name, root)
    names = {row: f"{name}_{row}" for row in _rows(like, root)}
    for path in _sources(root / "src/flowsight/systems" / like):
        inside = path.relative_to(root / "src/flowsight/systems" / like)
        _write(code / inside, _code(path, name, like))
    for path in sorted((root / "conf/systems" / like).glob("*.yaml")):
        _copy_numbers(path, numbers / path.name, name, like, names)
    _write(tests / "test_runs.py", TESTS.format(name=name))
    listed = root / "conf/config.yaml"
    _write(listed, _with_line(listed.read_text(encoding="utf-8"), name))
    return [code, numbers, tests, listed]


def _check(name: str, kind: str, like: str, root: Path) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InputError(f"expected a name of small letters, digits and underscores, got {name!r}")
    kinds = {system: contract.find(system).SUBJECT for system in contract.names()}
    if name in kinds:
        raise InputError(f"expected a name of its own, got {name!r}, which is there already")
    if like not in kinds:
        raise InputError(f"expected --like as one of {', '.join(kinds)}, got {like!r}")
    if kinds[like] != kind:
        fitting = ", ".join(system for system, own in kinds.items() if own == kind) or "none"
        raise InputError(
            f"expected --like as a system over {kind} ({fitting}), got {like!r}, which is over "
            f"{kinds[like]}"
        )
    for folder in _folders(name, root):
        if folder.exists():
            raise InputError(f"expected no {folder} yet, found one; move it away or take a name")


def _folders(name: str, root: Path) -> tuple[Path, Path, Path]:
    return (
        root / "src/flowsight/systems" / name,
        root / "conf/systems" / name,
        root / "tests/systems" / name,
    )


def _sources(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def _code(path: Path, name: str, like: str) -> str:
    """A file's text with the other name where the name is meant, and no other word of it."""
    if path.name == "README.md":
        return README.format(name=name, like=like)
    text = path.read_text(encoding="utf-8")
    if path.name == "published.csv":
        return text.splitlines()[0] + "\n"
    return re.sub(rf'(?<=systems\.){like}\b|(?<="){like}(?=")|(?<=results/){like}\b', name, text)


def _rows(like: str, root: Path) -> set[str]:
    """Those of every recipe."""
    paths = (root / "conf/systems" / like).glob("*.yaml")
    return {row for path in paths for row in (dvc_yaml.read_yaml(path).get("rows") or {})}


def _copy_numbers(source: Path, out: Path, name: str, like: str, names: dict[str, str]) -> None:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 4096  # lines stay as they are
    yaml.representer.add_representer(
        type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    content = yaml.load(source.read_text(encoding="utf-8"))
    rows: Any = content.get("rows") or {}
    for place, row in enumerate(list(rows)):
        rows.insert(place, names[row], rows.pop(row))
    with files.atomic_file(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        yaml.dump(_renamed(content, name, like, names), file)


def _renamed(value: Any, name: str, like: str, names: dict[str, str]) -> Any:
    """The same tree with rows and references to them under their new names, in place."""
    if isinstance(value, dict):
        for key, old in list(value.items()):
            new = _renamed(old, name, like, names)
            if new is not old:  # what a merge key brings in stays there
                value[key] = new
    elif isinstance(value, list):
        for place, old in enumerate(value):
            value[place] = _renamed(old, name, like, names)
    elif isinstance(value, str):
        text = re.sub(
            rf"systems\.{like}\.rows\.(\w+)",
            lambda found: f"systems.{name}.rows.{names.get(found[1], found[1])}",
            value,
        )
        text = re.sub(rf"systems\.{like}\b", f"systems.{name}", text)
        text = names.get(text, text)
        return value if text == value else text
    return value


def _with_line(listed: str, name: str) -> str:
    """`conf/config.yaml` with the system's line behind those of the others."""
    lines = listed.splitlines(keepends=True)
    last = max(k for k, line in enumerate(lines) if line.startswith("  - systems/"))
    lines.insert(last + 1, f"  - systems/{name}: ${{recipe}}\n")
    return "".join(lines)


def _write(path: Path, text: str) -> None:
    with files.atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
