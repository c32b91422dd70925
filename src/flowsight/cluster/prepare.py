"""`flowsight prepare`: the parameters of a run, composed once and committed on `runs/<run-id>`."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowsight.cluster import dvcwork, gitwork, processes, workplace
from flowsight.cluster.workplace import Workplace
from flowsight.errors import FlowsightError, InputError
from flowsight.pipeline import dvc_yaml, nodes, running

_MARK = "Flowsight-Prepared"
_SYSTEM = re.compile(r"(\+\+|~)systems\.(?P<system>[^.=]+)(?P<rest>[^=]*)")
_GROUP = re.compile(r"[+~]*(dataset|recipe)=\S+")


def prepare(place: Workplace, run_id: str, *, rev: str, settings: Sequence[str]) -> dict[str, Any]:
    """Compose the run's parameters and push them on its branch.

    The same id with the same settings changes nothing and gives the same answer.

    Args:
        place: the worker's places.
        run_id: names the branch.
        rev: branch, tag or commit to start from.
        settings: Hydra overrides. Without any, the parameters stay as committed. Where only values
            are given, only these change; a group (`dataset=`, `recipe=`) composes anew from
            `conf/`, as `flowsight compose` does, with the other group as committed. `systems=a,b`
            leaves out what belongs to all other systems.

    Returns:
        run_id, rev (commit to work at) and groups (node of the task graph -> its stages).

    Raises:
        InputError: a bad id, revision or setting, or an id that stands for other settings.
        ResourceError: the repository cannot be reached.
    """
    name = workplace.branch(run_id)
    gitwork.fetch(place)
    start = gitwork.resolve(place, rev)
    with gitwork.tree(place, f"prepare/{run_id}-{os.getpid()}", start) as tree:
        old = _prepared(place, name)
        if old is not None:
            _check_same_start(place, run_id, old, start)
            gitwork.git("checkout", "-q", "--detach", old["base"], at=tree)
        _compose(place, tree, settings)
        commit = _commit(tree, run_id, settings)
        if old is not None:
            commit = _check_same_params(place, run_id, old, tree)
        else:
            try:
                gitwork.push(place, tree, name, commit)
            except gitwork.RejectedError:  # somebody else prepared this run in the same moment
                gitwork.fetch(place)
                other = _prepared(place, name)
                if other is None:
                    raise
                commit = _check_same_params(place, run_id, other, tree)
        return {"run_id": run_id, "rev": commit, "groups": groups(tree)}


def groups(tree: Path) -> dict[str, list[str]]:
    """Node (`pipeline.nodes`) -> names of its stages in a run, in the order of `dvc.yaml`."""
    found: dict[str, list[str]] = {}
    stages = dvc_yaml.load(tree)
    for name in dvc_yaml.reached(stages):
        found.setdefault(nodes.node_of(stages[name]), []).append(name)
    return found


def _prepared(place: Workplace, name: str) -> dict[str, str] | None:
    """The run's commit and the one it started from, if it was prepared before."""
    tip = gitwork.tip(place, name)
    if tip is None:
        return None
    path = gitwork.mirror_path(place)
    marks = ("log", "-1", "--first-parent", "--format=%H %P", f"--grep=^{_MARK}: ")
    commit, _, parent = gitwork.git(*marks, tip, at=path).partition(" ")
    if not commit:
        raise InputError(
            f"expected {name} to be made by `flowsight prepare`, but it has no commit of it; "
            "take another run id"
        )
    return {"commit": commit, "base": parent}


def _check_same_start(place: Workplace, run_id: str, old: dict[str, str], start: str) -> None:
    """A run prepared again starts where it did, also when the branch has moved on since."""
    path = gitwork.mirror_path(place)
    if start in (old["commit"], old["base"]):
        return
    if gitwork.git("merge-base", start, old["base"], at=path) != old["base"]:
        raise InputError(
            f"expected run {run_id} to start from {old['base'][:10]} as before, got "
            f"{start[:10]}; take another run id"
        )


def _check_same_params(place: Workplace, run_id: str, old: dict[str, str], tree: Path) -> str:
    committed = gitwork.git("show", f"{old['commit']}:params.yaml", at=gitwork.mirror_path(place))
    if (tree / "params.yaml").read_text(encoding="utf-8").strip() != committed:
        raise InputError(
            f"expected the settings that run {run_id} was prepared with, got others; "
            "take another run id"
        )
    return old["commit"]


def _commit(tree: Path, run_id: str, settings: Sequence[str]) -> str:
    gitwork.git("add", "params.yaml", at=tree)
    said = " ".join(settings) or "parameters as committed"
    message = f"Run {run_id}: {said}\n\n{_MARK}: {json.dumps(list(settings))}"
    # an empty commit marks where the run starts, and that it was prepared
    gitwork.git("commit", "-q", "--allow-empty", "-m", message, at=tree)
    return gitwork.git("rev-parse", "HEAD", at=tree)


def _compose(place: Workplace, tree: Path, settings: Sequence[str]) -> None:
    if not settings:
        return
    committed = dvc_yaml.read_yaml(tree / "params.yaml")
    base = _groups_of(committed, tree)
    given = _given(settings)
    if any(_GROUP.fullmatch(setting) for setting in given):
        chosen = {setting.lstrip("+~").partition("=")[0] for setting in given}
        base = [group for group in base if group.partition("=")[0] not in chosen]
        overrides = [*base, *given]
    else:
        _run_compose(place, tree, base)
        fresh = dvc_yaml.read_yaml(tree / "params.yaml")
        changed = _of_chosen(_differences(fresh, committed), given)
        overrides = [*base, *changed, *given]
    _run_compose(place, tree, overrides)


def _given(settings: Sequence[str]) -> list[str]:
    """The settings as overrides: `systems=a,b` is a list without brackets, for a form's sake."""
    return [re.sub(r"^systems=\[?([^\[\]]*)\]?$", r"systems=[\1]", setting) for setting in settings]


def _of_chosen(changed: Sequence[str], given: Sequence[str]) -> list[str]:
    """Without what is committed of systems that the run leaves out."""
    named = [setting.partition("=")[2] for setting in given if setting.startswith("systems=")]
    if not named:
        return list(changed)
    chosen = named[-1].strip("[]").split(",")

    def counts(override: str) -> bool:
        place = _SYSTEM.match(override)
        if place is None:
            return True
        is_whole_system = place["rest"] == ""
        return place["system"] in chosen and not (override.startswith("~") and is_whole_system)

    return [override for override in changed if counts(override)]


def _groups_of(params: Any, tree: Path) -> list[str]:
    """The groups of `conf/` that committed parameters name, as overrides."""
    named = {"dataset": params.get("dataset", {}).get("name"), "recipe": params.get("recipe")}
    return [
        f"{group}={name}"
        for group, name in named.items()
        if (tree / "conf" / group / f"{name}.yaml").is_file()
    ]


def _differences(fresh: Any, committed: Any, prefix: str = "") -> list[str]:
    """Overrides that turn one tree of values into another; `instances` follow by themselves."""
    found: list[str] = []
    for key in [*committed, *(key for key in fresh if key not in committed)]:
        name = f"{prefix}{key}"
        if name == "instances":
            continue
        if key not in committed:
            found.append(f"~{name}")
        elif isinstance(committed[key], dict) and isinstance(fresh.get(key), dict):
            found += _differences(fresh[key], committed[key], f"{name}.")
        elif key not in fresh or committed[key] != fresh[key]:
            found.append(f"++{name}={_hydra(committed[key])}")
    return found


def _hydra(value: Any) -> str:
    """A value in Hydra's grammar of overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"'{escaped}'"
    return repr(value)


def _run_compose(place: Workplace, tree: Path, overrides: Sequence[str]) -> None:
    """`flowsight compose` with the code of the tree."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "failure.json"
        env = {**dvcwork.environment(place, tree), "FLOWSIGHT_FAILURE": str(note)}
        command = ["python", "-m", "flowsight.cli", "compose", "--", *overrides]
        done = processes.run(command, cwd=tree, env=env, quiet=True)
        if done.code == 0:
            return
        if note.exists():
            left = json.loads(note.read_text())
            raise running.error_of_kind(left["kind"])(left["message"])
    raise FlowsightError(f"cannot compose {' '.join(overrides)}: {' '.join(done.lines[-3:])}")
