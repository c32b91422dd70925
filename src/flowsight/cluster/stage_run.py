"""`flowsight run-stage`: one stage of a run in a clone of its own, results to the common store.

The order makes a kill harmless at any point: outputs go to the DVC remote first, the fragment that
tells of them last. Until then the stage counts as not done, and doing it again is free where its
outputs are in DVC's run cache.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowsight.cluster import (
    dvcwork,
    fragments,
    gitwork,
    lease,
    memory,
    processes,
    workplace,
)
from flowsight.cluster.fragments import Fragment
from flowsight.cluster.workplace import Workplace
from flowsight.errors import FlowsightError, InputError, MemoryLimitError
from flowsight.pipeline import dvc_yaml, gpus
from flowsight.pipeline.dvc_yaml import Stage


def run_stage(
    place: Workplace, name: str, *, rev: str, run_id: str, force: bool = False, keep: bool = False
) -> dict[str, Any]:
    """Bring one stage of a run up to date and publish it.

    Args:
        place: the worker's places.
        name: stage, as `train@spatial-1`.
        rev: commit of the run, as `prepare` gave it.
        run_id: the run.
        force: run its command even if nothing changed.
        keep: leave the work tree if it fails, to look at.

    Returns:
        stage, outcome (`ran`, `restored` from another run's cache, `unchanged`), seconds and
        micro_batch (None: the stage's own).

    Raises:
        InputError: no such stage, or an upstream stage has not run yet.
        ResourceError: worth another try: a connection, memory, a kill.
        GateError: the stage refused.
    """
    begun = time.monotonic()
    workplace.check_run_id(run_id)
    with processes.stoppable():
        rev = gitwork.resolve(place, rev)
        _check_name(name)

        def published() -> bool:
            found = None if force else fragments.load(place, run_id, name)
            return found is not None and found.rev == rev

        outcome, micro_batch = "unchanged", None
        with lease.held(place, run_id, name, is_done=published) as mine:
            if mine:
                micro_batch = memory.remembered(place, run_id, name)
                outcome = _work(place, name, rev, run_id, force, keep, micro_batch)
        seconds = round(time.monotonic() - begun, 2)
        print(f"{name}: {outcome} in {seconds:g} s", file=sys.stderr)
        return {
            "stage": name,
            "outcome": outcome,
            "seconds": seconds,
            "micro_batch": micro_batch,
        }


def _check_name(name: str) -> None:
    if "/" in name or name.startswith((".", "-")):
        raise InputError(f"expected a stage as train@spatial-1, got {name!r}")


def _work(
    place: Workplace,
    name: str,
    rev: str,
    run_id: str,
    force: bool,
    keep: bool,
    micro_batch: int | None,
) -> str:
    with gitwork.tree(place, f"{run_id}/{name}", rev, keep=keep) as tree:
        stages = dvc_yaml.load(tree)
        if name not in stages:
            raise InputError(f"expected a stage of dvc.yaml at {rev[:10]}, got {name!r}")
        stage = stages[name]
        dvcwork.set_up(place, tree)
        upstream = _upstream_entries(place, run_id, rev, stages, name)
        own = None if force else dvcwork.read_lock(tree).get(name)
        try:
            with dvcwork.one_process(place, tree):
                outcome = _bring_up(place, tree, stage, upstream, own, micro_batch, force)
        except MemoryLimitError as error:
            size = memory.halve(place, run_id, stage, tree, used=micro_batch, message=str(error))
            raise MemoryLimitError(f"{error}; the next try takes a micro-batch of {size}") from None
        entry = dvcwork.read_lock(tree)[name]
        fragments.publish(place, run_id, Fragment(name, rev, entry))
        memory.forget(place, run_id, name)
        return outcome


def _upstream_entries(
    place: Workplace, run_id: str, rev: str, stages: Mapping[str, Stage], name: str
) -> dict[str, Any]:
    """Lock entries of the stages whose outputs this one reads.

    Raises:
        InputError: some have not run yet in this run.
    """
    entries: dict[str, Any] = {}
    wanting = []
    needed = dvc_yaml.upstream(stages)[name]
    for other in (stage for stage in stages if stage in needed):
        found = fragments.load(place, run_id, other)
        if found is None or found.rev != rev:
            wanting.append(other)
        else:
            entries[other] = found.entry
    if wanting:
        raise InputError(
            f"expected the stages before {name} to be done in run {run_id}, found nothing of "
            f"{', '.join(wanting)}; run them first: flowsight run-stage {wanting[0]} --rev "
            f"{rev[:10]} --run-id {run_id}"
        )
    return entries


def _fits(place: Workplace, tree: Path, own: Mapping[str, Any], stage: Stage) -> bool:
    """Whether the committed entry of a stage was made from what it would read now.

    DVC does not look at inputs that are not there, so a stale entry would hide a change.
    """
    then = _hashes([own], "deps")
    absent = [dep for dep in stage.deps if not (tree / dep).exists()]
    if any(dep not in then for dep in absent):
        return False
    if not absent:
        return True
    now = dvcwork.listing(place, tree)
    return all(dvcwork.hash_at(now, dep) == then[dep] for dep in absent)


def _hashes(entries: Any, key: str) -> dict[str, str]:
    return {item["path"]: item.get("md5", "") for entry in entries for item in entry.get(key, [])}


def _bring_up(
    place: Workplace,
    tree: Path,
    stage: Stage,
    upstream: Mapping[str, Any],
    own: Mapping[str, Any] | None,
    micro_batch: int | None,
    force: bool,
) -> str:
    """Run or restore the stage and push it; `ran`, `restored` or `unchanged`."""
    dvcwork.write_lock(tree, upstream)
    if own is not None and _fits(place, tree, own, stage):
        dvcwork.write_lock(tree, {stage.name: own}, add=True)
        if dvcwork.holds(place, tree, stage.name) and dvcwork.is_stored(place, tree, stage.name):
            dvcwork.transfer(place, tree, "push", stage.name)
            return "unchanged"
        dvcwork.write_lock(tree, upstream)
    targets = inputs(tree, stage, upstream)
    if targets:
        print(f"{stage.name}: fetching {', '.join(targets)}", file=sys.stderr)
        dvcwork.transfer(place, tree, "pull", *targets)
    dvcwork.bring_engine(tree, stage)
    variables = {} if micro_batch is None else {"FLOWSIGHT_MICRO_BATCH": str(micro_batch)}
    with gpus.lent(int(stage.meta.get("gpus", 0)), stage.name) as lent:
        variables |= lent.variables
        done = dvcwork.repro(
            place, tree, stage.name, locks=lent.locks, variables=variables, force=force
        )
    dvcwork.transfer(place, tree, "push", "--run-cache", stage.name)
    return dvcwork.outcome(done)


def check_consistent(
    place: Workplace, tree: Path, entries: Mapping[str, Any], stages: Mapping[str, Stage]
) -> None:
    """Check that each stage has read what the stages before it have published.

    Raises:
        FlowsightError: naming those that read something else.
    """
    now = dvcwork.listing(place, tree)
    outs = _hashes(entries.values(), "outs")
    stale = []
    for name, stage in stages.items():
        then = _hashes([entries[name]], "deps")
        absent = [dep for dep in stage.deps if not (tree / dep).exists()]
        if any((outs.get(dep) or dvcwork.hash_at(now, dep)) != then.get(dep) for dep in absent):
            stale.append(name)
    if stale:
        raise FlowsightError(
            f"expected every stage to have read what the others published, but {', '.join(stale)} "
            "read something older; run them again with `flowsight run-stage --force`"
        )


def inputs(tree: Path, stage: Stage, upstream: Mapping[str, Any]) -> list[str]:
    """What to fetch of upstream stages' outputs and tracked data: no more than the stage reads.

    A folder that several stages write into is no output itself, so DVC cannot fetch it by its
    name: the outputs in it are named.
    """
    outs = [out for entry in upstream.values() for out in _hashes([entry], "outs")]
    wanted = {
        dep
        for dep in stage.deps
        if not (tree / dep).exists() and not any(dvc_yaml.overlaps(dep, out) for out in outs)
    }
    for dep in stage.deps:
        for out in outs:
            if dvc_yaml.overlaps(dep, out):
                wanted.add(out if len(Path(out).parts) >= len(Path(dep).parts) else dep)
    return sorted(
        path for path in wanted if not any(Path(other) in Path(path).parents for other in wanted)
    )
