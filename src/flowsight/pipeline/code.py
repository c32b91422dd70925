"""Which of our files a stage runs, and a hash of each: what stands in `code/` for DVC to compare.

A stage depends on the import closure of its entry files, found by reading them (nothing is run).
Comments, docstrings and blank lines are left out of the hashes, so that words never train a network
again. What cannot change an output's bytes is left out too, see `NO_BYTES`.
"""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from flowsight import files

PACKAGE = "flowsight"
NO_BYTES = (
    "__init__",
    "cli",
    "contract",
    "errors",
    "params",
    "pipeline",
    "progress",
    "systems",
    "tracking",
)
"""Modules and folders that check, schedule or tell, and compute nothing; of `systems` the folder's
own file. A system's `params.py` is one too: the values themselves are parameters."""


def fingerprints(root: Path, entries: Iterable[Path]) -> dict[str, str]:
    """Hashes of the entry files and of all of the package that they import, directly or not.

    Args:
        root: the repository.
        entries: Python files; of any other kind the bytes count.

    Returns:
        Path below the root -> SHA-256 of the file without comments, docstrings and blank lines,
        sorted.
    """
    found = closure(root, entries)
    return {path.relative_to(root).as_posix(): fingerprint(path) for path in sorted(found)}


def closure(root: Path, entries: Iterable[Path]) -> set[Path]:
    """The entries and what they import of the package, also inside functions; see `NO_BYTES`."""
    source = root / "src"
    seen: set[Path] = set()
    todo = list(entries)
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        if path.suffix != ".py":
            continue
        for name in imports_of(path):
            todo += [file for file in module_files(source, name) if _counts(source, file)]
    return seen


def _counts(source: Path, path: Path) -> bool:
    parts = path.relative_to(source / PACKAGE).with_suffix("").parts
    if parts[-1] == "params":
        return False
    return parts[0] not in NO_BYTES or (parts[0] == "systems" and len(parts) > 2)


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Dotted names imported anywhere in a file, `from a import b` as `a.b`; not those for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for inner in block.body
    }
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and id(node) not in for_types:
            names += [f"{node.module}.{name.name}" for name in node.names]
    return tuple(names)


def module_files(source: Path, dotted: str) -> Iterator[Path]:
    """The file of a module (or of the one that has the name), and its packages' own files."""
    parts = dotted.split(".")
    if parts[0] != PACKAGE:
        return
    for length in range(len(parts), 0, -1):
        base = source.joinpath(*parts[:length])
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                yield path
    # `a.b.c` of a name in the module `a.b` ends there


@cache
def fingerprint(path: Path) -> str:
    """SHA-256 of a file; of Python without comments, docstrings and blank lines."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(_bare(path.read_text(encoding="utf-8")).encode()).hexdigest()


def _bare(text: str) -> str:
    """Python's text without comments, docstrings (of attributes too) and blank lines."""
    lines = text.splitlines()
    for row, start, end in sorted([*_comments(text), *_docstrings(text, lines)], reverse=True):
        lines[row] = lines[row][:start] + lines[row][end:]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _comments(text: str) -> Iterator[tuple[int, int, int]]:
    """(line, first column, end) of each comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0] - 1, token.start[1], token.end[1]


def _docstrings(text: str, lines: list[str]) -> Iterator[tuple[int, int, int]]:
    """(line, first column, end) of each line of a string that stands as a statement."""
    for node in ast.walk(ast.parse(text)):
        if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            continue
        if not isinstance(node.value.value, str) or node.end_lineno is None:
            continue
        first, last = node.lineno - 1, node.end_lineno - 1
        for row in range(first, last + 1):
            start = node.col_offset if row == first else 0
            end = len(lines[row])
            if row == last:  # counted in bytes
                end = len(lines[row].encode()[: node.end_col_offset].decode())
            yield row, start, end


def write(root: Path, out: Path) -> None:
    """Write `<out>/<name>.json` for each entry of `entries`."""
    with files.atomic_dir(out) as folder:
        for name, starts in entries(root).items():
            path = folder / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(fingerprints(root, starts), path)


def entries(root: Path) -> dict[str, list[Path]]:
    """What stages depend on: each stage script, and what parameters choose among.

    Returns:
        `<script>`; `<system>/<verb>`, the verb's script and the system's files of that name
        (a template too), with the printed numbers where they are read; `adapter/<data set>`;
        `engine/<of flow>`.
    """
    package = root / "src" / PACKAGE
    scripts = {path.stem: [path] for path in sorted((root / "stages").glob("*.py"))}
    found = dict(scripts)
    for folder in sorted(path.parent for path in package.glob("systems/*/__init__.py")):
        for verb in [name for name in scripts if (folder / f"{name}.py").is_file()]:
            printed = folder.glob("published.csv") if verb in ("evaluate", "report") else ()
            own = [*sorted(folder.glob(f"{verb}.*")), *printed]
            found[f"{folder.name}/{verb}"] = [*scripts[verb], *own]
    found["page"] += sorted(package.glob("reporting/report.*"))
    for path in sorted(package.glob("datasets/clips/adapters/[a-z]*.py")):
        found[f"adapter/{path.stem}"] = [path]
    for path in sorted(package.glob("flow/tvl1_*.py")):
        found[f"engine/{path.stem.removeprefix('tvl1_')}"] = [path]
    return found
