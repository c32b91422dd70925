"""`dvc.yaml` as data: stages, what they read and write, and a key of their inputs.

DVC stays the one place where the pipeline is declared. This module reads the same file for those
who must not import DVC (it costs a second) or need more than DVC tells: Airflow's DAGs, lineage,
tests, and the scratch folder of a training that may have to go on. Stdlib and ruamel only.

Understood of DVC's templating: `${a.b}`, `${a[0]}`, `foreach` over a list, a dict or `${...}`,
`${item}`, `${item.x}`, `${key}`. Not used here, so not read: `matrix`, `vars`, several files.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from flowsight.errors import InputError

_REFERENCE = re.compile(r"\$\{([^}]+)\}")
_WRITTEN = ("outs", "metrics", "plots")
LAST = "page"
"""The stage that reads, directly or not, all that a run is for."""


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline, templating resolved."""

    name: str
    """`train@spatial-1`, as DVC calls it."""
    group: str
    """`train`: the key in `dvc.yaml`."""
    key: str | None
    """`spatial-1`; None for a stage that is not one of many."""
    cmd: str
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    """Outputs, metrics and plots."""
    params: tuple[str, ...]
    """Dotted keys of `params.yaml`."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What it needs to run: group, gpus, memory_gb, timeout_min, queue, retries."""
    desc: str = ""
    from_params: bool = False
    """Whether parameters say which instances there are (`foreach: ${...}`)."""
    unused: bool = False
    """Whether it stands for a group that the parameters give no instance, or none of its system."""
    system: str = ""
    """Whose it is, if a system's (`item.system`)."""


def read_yaml(path: Path) -> Any:
    """A YAML file as plain values (ruamel, as DVC reads it)."""
    from ruamel.yaml import YAML, YAMLError

    text = path.read_text(encoding="utf-8")
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:  # the parser in C stumbles over `:` in a plain text between braces
        return YAML(typ="safe", pure=True).load(text)


def load(root: Path | str = ".", *, unused: bool = False) -> dict[str, Stage]:
    """Every stage of `<root>/dvc.yaml`, in the file's order.

    Args:
        root: folder of `dvc.yaml` and `params.yaml`.
        unused: also the groups that these parameters give no instance, each as one stage under
            the group's name, and `<group>@<system>` for a system that has instances of it by other
            parameters (`instances.verbs`). What an instance decides is unknown, so its paths end
            before it: `checkpoints/${key}` is `checkpoints`, which overlaps with whatever an
            instance of other parameters would write.

    Raises:
        InputError: a file is missing or a reference names nothing.
    """
    root = Path(root)
    for name in ("dvc.yaml", "params.yaml"):
        if not (root / name).is_file():
            raise InputError(
                f"expected a flowsight repository in {root.resolve()}, found no {name}"
            )
    declared, params = read_yaml(root / "dvc.yaml")["stages"], read_yaml(root / "params.yaml")
    stages: dict[str, Stage] = {}
    for group, entry in declared.items():
        found = {stage.name: stage for stage in _expand(group, entry, params)}
        if unused:
            found |= _unused_of(group, entry, params, {stage.system for stage in found.values()})
        stages |= found
    return stages


def _unused_of(
    group: str, entry: Mapping[str, Any], params: Mapping[str, Any], used: set[str]
) -> dict[str, Stage]:
    """Stages for the systems that have none of a group now, or for the group itself."""
    systems = (params.get("instances") or {}).get("verbs", {}).get(group)
    if systems is None:
        return {} if used else {group: _unused(group, entry["do"], params)}
    names = {f"{group}@{system}": system for system in systems if system not in used}
    return {
        name: replace(_unused(group, entry["do"], params), name=name, system=system)
        for name, system in names.items()
    }


def _unused(group: str, entry: Mapping[str, Any], params: Mapping[str, Any]) -> Stage:
    places = {
        kind: [_known_part(_path(place), params) for place in entry.get(kind, [])]
        for kind in ("deps", *_WRITTEN)
    }
    meta = {k: v for k, v in entry.get("meta", {}).items() if "${" not in str(v)}
    known = {**places, "cmd": "", "meta": meta, "desc": entry.get("desc", "")}
    return replace(_stage(group, None, known, params), from_params=True, unused=True)


def _known_part(path: str, params: Mapping[str, Any]) -> str:
    """A path up to the first folder or file that an instance names."""
    beginning, *instance = re.split(r"\$\{\s*(?:item|key)\b", path, maxsplit=1)
    known = str(_resolve(beginning, params))
    return known.rpartition("/")[0] if instance else known


def _expand(group: str, entry: Mapping[str, Any], params: Mapping[str, Any]) -> Iterator[Stage]:
    if "foreach" not in entry:
        yield _stage(group, None, entry, params)
        return
    items = _resolve(entry["foreach"], params)
    contexts = (
        [(key, {"item": item, "key": key}) for key, item in items.items()]
        if isinstance(items, Mapping)
        else [(item, {"item": item}) for item in items]
    )
    for key, context in contexts:
        stage = _stage(group, str(key), entry["do"], {**params, **context})
        system = context["item"].get("system", "") if isinstance(context["item"], Mapping) else ""
        yield replace(stage, from_params=isinstance(entry["foreach"], str), system=system)


def _stage(
    group: str, key: str | None, entry: Mapping[str, Any], context: Mapping[str, Any]
) -> Stage:
    entry = _resolve(entry, context)
    written = [place for kind in _WRITTEN for place in entry.get(kind, [])]
    return Stage(
        name=group if key is None else f"{group}@{key}",
        group=group,
        key=key,
        cmd=entry["cmd"],
        deps=tuple(entry.get("deps", [])),
        outs=tuple(_path(out) for out in written),
        params=tuple(entry.get("params", [])),
        meta=entry.get("meta", {}),
        desc=entry.get("desc", ""),
    )


def _path(out: Any) -> str:
    """An output with options is written `path: {options}`."""
    return next(iter(out)) if isinstance(out, Mapping) else out


def _resolve(value: Any, context: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {_resolve(k, context): _resolve(v, context) for k, v in value.items()}
    if isinstance(value, list):
        return [_resolve(item, context) for item in value]
    if not isinstance(value, str):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return look_up(context, whole[1])
    return _REFERENCE.sub(lambda match: str(look_up(context, match[1])), value)


def look_up(values: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key, `a.b` or `a.b[0]`.

    Raises:
        InputError: no such key.
    """
    found: Any = values
    for part in re.split(r"\.|(?=\[)", dotted.strip()):
        try:
            found = found[int(part[1:-1]) if part.startswith("[") else part]
        except (KeyError, IndexError, TypeError):
            raise InputError(
                f"dvc.yaml names `{dotted}`, which params.yaml does not have"
            ) from None
    return found


def overlaps(one: str, other: str) -> bool:
    """Whether two paths are the same or one lies in the other."""
    a, b = Path(one).parts, Path(other).parts
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]


def upstream(stages: Mapping[str, Stage]) -> dict[str, set[str]]:
    """For each stage the stages whose outputs it reads: those with a path that overlaps.

    A look-up by the beginnings of paths, not a comparison of all with all: a thousand stages take
    milliseconds, which matters to those who read this at every turn (Airflow's DAGs).
    """
    writers: dict[tuple[str, ...], set[str]] = {}  # path -> who writes exactly this
    inside: dict[tuple[str, ...], set[str]] = {}  # path -> who writes this or something in it
    for stage in stages.values():
        for out in stage.outs:
            parts = _parts(out)
            writers.setdefault(parts, set()).add(stage.name)
            for beginning in _beginnings(parts):
                inside.setdefault(beginning, set()).add(stage.name)
    found: dict[str, set[str]] = {}
    for stage in stages.values():
        sources: set[str] = set()
        for parts in map(_parts, stage.deps):
            sources |= inside.get(parts, set())
            sources.update(*(writers.get(above, ()) for above in _beginnings(parts)))
        found[stage.name] = sources - {stage.name}
    return found


def reached(stages: Mapping[str, Stage], targets: Sequence[str] = ()) -> list[str]:
    """Stages of a run: the targets and all that they read, in the order of `dvc.yaml`.

    Args:
        stages: all of them.
        targets: names of stages or of their groups; none: `LAST`, where there is such a stage, else
            every one. So data that no system of these parameters looks at is not made.
    """
    before = upstream(stages)
    wanted = set(targets) or ({LAST} & stages.keys()) or set(stages)
    todo = [name for name, stage in stages.items() if {name, stage.group} & wanted]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += before[name]
    return [name for name in stages if name in found]


@cache
def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).parts


def _beginnings(parts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """() , (a,), (a, b), ... up to the path itself."""
    return (parts[:length] for length in range(len(parts) + 1))


def stage_key(name: str, root: Path | str = ".") -> str:
    """A hash of all that goes into a stage: command, parameters and content of what it reads.

    Same key, same output. What upstream stages wrote is taken from `dvc.lock` (hashed once, by
    DVC); other files are hashed here. Used as the name of a training's scratch folder and as a tag
    of its runs.

    Raises:
        InputError: no such stage.
    """
    root = Path(root)
    stages = load(root)
    if name not in stages:
        raise InputError(f"no stage {name!r} in dvc.yaml")
    stage, params = stages[name], read_yaml(root / "params.yaml")
    locked = _locked_outs(root)
    content = {
        "cmd": stage.cmd,
        "params": {key: look_up(params, key) for key in stage.params},
        "deps": {dep: _content_hash(root, dep, locked) for dep in stage.deps},
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _locked_outs(root: Path) -> dict[str, str]:
    path = root / "dvc.lock"
    lock = (read_yaml(path) if path.is_file() else None) or {}
    return {
        out["path"]: out["md5"]
        for entry in lock.get("stages", {}).values()
        for out in entry.get("outs", [])
        if "md5" in out
    }


def _content_hash(root: Path, dep: str, locked: Mapping[str, str]) -> str:
    if dep in locked:
        return locked[dep]
    inside = {out: md5 for out, md5 in locked.items() if Path(dep) in Path(out).parents}
    if inside:
        return hashlib.sha256(json.dumps(inside, sort_keys=True).encode()).hexdigest()
    digest = hashlib.sha256()
    path = root / dep
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        # what Python leaves beside its files is nobody's input (`.dvcignore`)
        if file.is_file() and "__pycache__" not in file.parts:
            digest.update(file.relative_to(root).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
