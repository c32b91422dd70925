"""`flowsight reproduce`: a model's pipeline again, at its commit; is it the same?"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsight.cluster import dvcwork, gitwork, processes
from flowsight.errors import FlowsightError, InputError
from flowsight.pipeline import dvc_yaml, running
from flowsight.registry import lineage, locks
from flowsight.registry.store import Registry
from flowsight.serving import origin

_MODEL_MD5 = "md5."


@dataclass(frozen=True)
class Report:
    """What came out."""

    reference: str
    commit: str
    ran: tuple[str, ...]
    """Stages whose command ran; the others came from DVC's cache."""
    stages: int
    """All that lead to the model's results."""
    same: tuple[str, ...]
    """Checkpoints and outputs that are the same to the bit."""
    different: tuple[str, ...]
    """One line each."""

    def lines(self) -> list[str]:
        """For people."""
        how = f"{len(self.ran)} of {self.stages} stages ran, the rest came from DVC's cache"
        head = f"{self.reference} at commit {self.commit[:12]}: {how}"
        if not self.different:
            return [head, f"bit-identical: {len(self.same)} checkpoints, outputs and metrics"]
        return [head, f"DIFFERENT in {len(self.different)}:", *(f"  {d}" for d in self.different)]


def reproduce(
    registry: Registry,
    reference: str,
    root: Path,
    *,
    use_cache: bool = True,
    keep: Path | None = None,
) -> Report:
    """Run a model's pipeline in a work tree at its commit and compare.

    Args:
        registry: where the model is.
        reference: `models:/name@alias` or `models:/name/3`.
        root: a repository that has the commit; its DVC cache is used.
        use_cache: take stages that ran before from DVC's cache; else every command runs again.
        keep: leave the work tree in this folder; None: it is removed.

    Raises:
        InputError: the model comes from another repository, or its data are not here.
        FlowsightError: of the kind that a failing stage reported.
    """
    version = lineage.parse(registry, reference)
    run = registry.run(version)
    commit = version.tags.get("git_commit", "")
    if version.tags.get("repository") != locks.repository_id(root):
        raise InputError(
            f"expected a model of this repository, but {reference} was trained in another one "
            f"({version.tags.get('repository', 'unknown')[:12]}); go there"
        )
    commit = locks.check_commit(root, commit)
    system = version.tags.get("system", version.name)
    with processes.stoppable(), _tree(root, commit, keep) as tree:
        before = locks.declared(tree)
        target = version.tags.get("stage", f"evaluate@{system}")
        needed = locks.leading_to(before, [f"results/{system}"])
        ran = _run(tree, root, target, use_cache)
        found = _compare(tree, before, needed, version.tags, run.data.metrics, system)
    return Report(reference, commit, tuple(ran), len(needed), *found)


@contextmanager
def _tree(root: Path, commit: str, keep: Path | None) -> Iterator[Path]:
    folder = keep or Path(tempfile.mkdtemp(prefix="flowsight-reproduce-"))
    tree = folder.resolve() / commit[:12]
    if tree.exists():
        raise InputError(f"expected {tree} to be free, found something; remove it or name another")
    folder.mkdir(parents=True, exist_ok=True)
    gitwork.git("worktree", "add", "-q", "--detach", str(tree), commit, at=root)
    try:
        _share_cache(root, tree)
        yield tree
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
            gitwork.git("worktree", "prune", at=root)
        else:
            print(f"left the work tree {tree}", file=sys.stderr)


def _share_cache(root: Path, tree: Path) -> None:
    from dvc.config import Config

    local = root / ".dvc" / "config.local"
    if local.is_file():
        content = Config(str(root / ".dvc")).load_one("local")
        with Config(str(tree / ".dvc"), validate=False).edit("local") as config:
            config.update(content)
    cache = Config(str(root / ".dvc"))["cache"].get("dir") or root.resolve() / ".dvc" / "cache"
    with Config(str(tree / ".dvc")).edit("local") as config:
        config["cache"]["dir"] = str(cache)
        # never links into the cache: a stage that runs again must not write through them
        config["cache"]["type"] = ["reflink", "copy"]


def _environment(tree: Path) -> dict[str, str]:
    paths = (str(tree / "src"), os.environ.get("PYTHONPATH", ""))
    return {
        **running.environment(),
        "FLOWSIGHT_TRACKING": "off",
        "FLOWSIGHT_SCRATCH": str(tree.parent / "scratch"),
        "DVC_SITE_CACHE_DIR": str(tree / ".dvc" / "tmp" / "site"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }


def _run(tree: Path, root: Path, target: str, use_cache: bool) -> list[str]:
    """Bring the target up to date; the stages whose commands ran."""
    stages = dvc_yaml.load(tree)
    if target not in stages:
        raise InputError(f"expected the stage {target} in dvc.yaml of the commit, found none")
    flow = next((stage for stage in stages.values() if stage.group == "flow"), None)
    if flow is not None:
        dvcwork.bring_engine(tree, flow)
    env = _environment(tree)
    _bring_tracked(tree, env)
    command = ["dvc", "--wait-for-lock", "repro", target]
    if not use_cache:
        command += ["--force", "--no-run-cache"]
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "failure.json"
        done = processes.run(command, cwd=tree, env={**env, "FLOWSIGHT_FAILURE": str(note)})
        if done.code:
            left = json.loads(note.read_text()) if note.exists() else None
            raise dvcwork.failure(done, left)
    mark = "Running stage '"
    return [line[len(mark) :].partition("'")[0] for line in done.lines if line.startswith(mark)]


def _bring_tracked(tree: Path, env: Mapping[str, str]) -> None:
    """Data sets and weights that `.dvc` files track: from the cache, or from the remote."""
    tracked = [str(file.relative_to(tree)) for file in sorted(tree.glob("data/*/*.dvc"))]
    if not tracked:
        return
    if processes.run(["dvc", "checkout", *tracked], cwd=tree, env=env, quiet=True).code:
        done = processes.run(["dvc", "pull", *tracked], cwd=tree, env=env, quiet=True)
        if done.code:
            said = dvcwork.last_error(done)
            raise InputError(f"expected {', '.join(tracked)} in DVC's cache or remote: {said}")


def _compare(
    tree: Path,
    before: locks.Lock,
    needed: list[str],
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
    system: str,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Same and different: every output of the stages, the registered weights, the metrics."""
    same: list[str] = []
    different: list[str] = []
    old = locks.outs({name: before[name] for name in needed})
    for path, md5 in old.items():
        got = origin.md5(tree / path) if (tree / path).exists() else "nothing"
        (same if got == md5 else different).append(_difference(path, md5, got))
    data = tags.get("dataset", "")
    for tag, md5 in sorted(tags.items()):
        if tag.startswith(_MODEL_MD5):
            name = tag.removeprefix(_MODEL_MD5)
            file = tree / f"checkpoints/{data}/{name}-{tags.get('split', '')}/model.pt"
            got = origin.md5(file) if file.is_file() else "nothing"
            (same if got == md5 else different).append(_difference(f"weights {name}", md5, got))
    new: dict[str, Any] = json.loads((tree / f"results/{system}/metrics.json").read_text())
    for name, value in sorted(new.items()):
        was = metrics.get(name, math.nan)
        (same if was == value else different).append(_difference(f"metric {name}", was, value))
    return tuple(same), tuple(different)


def _difference(what: str, was: object, now: object) -> str:
    return what if was == now else f"{what}: was {was}, now {now}"


def check_reproduced(report: Report) -> None:
    """Fail where something differs.

    Raises:
        FlowsightError: naming how much.
    """
    if report.different:
        raise FlowsightError(
            f"{report.reference} did not come out the same: {len(report.different)} of "
            f"{len(report.different) + len(report.same)} differ, first {report.different[0]}"
        )
