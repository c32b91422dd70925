"""`flowsight gather`: the lock of a whole run from the fragments of its stages, proven and kept."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowsight.cluster import dvcwork, fragments, gitwork, processes, stage_run, workplace
from flowsight.cluster.workplace import Workplace
from flowsight.errors import FlowsightError, InputError
from flowsight.pipeline import dvc_yaml
from flowsight.pipeline.dvc_yaml import Stage

MARK = "Flowsight-Gathered"
_VERDICT = re.compile(r"^(?:Stage '(?P<same>[^']+)' didn't change|Running stage '(?P<runs>[^']+)')")


def gather(place: Workplace, run_id: str, *, rev: str) -> dict[str, Any]:
    """Merge the fragments of a run, prove that nothing is left to do, commit `dvc.lock`.

    The lock has the same bytes as after `dvc repro` on one machine. The results to read (what lies
    below `results/`) come to `<FLOWSIGHT_WORK>/results/<run-id>/`.

    Args:
        place: the worker's places.
        run_id: the run.
        rev: its commit, as `prepare` gave it.

    Returns:
        run_id, rev, commit (of `dvc.lock` on the run's branch), stages (their number) and results
        (folder; None where the pipeline writes none).

    Raises:
        InputError: stages that have not run, or a branch that does not go on from `rev`.
        FlowsightError: stages that DVC would run again.
        ResourceError: the repository, the store or the remote cannot be reached.
    """
    name = workplace.branch(run_id)
    with processes.stoppable():
        gitwork.fetch(place)
        rev = gitwork.resolve(place, rev)
        with gitwork.tree(place, f"gather/{run_id}-{os.getpid()}", rev) as tree:
            every = dvc_yaml.load(tree)
            stages = {name: every[name] for name in dvc_yaml.reached(every)}
            # a run of few systems has not made what the others read
            targets = [dvc_yaml.LAST] if len(stages) < len(every) else []
            dvcwork.set_up(place, tree)
            entries = _all_entries(place, run_id, rev, stages)
            with dvcwork.one_process(place, tree):
                _merge(place, tree, entries, targets)
                stage_run.check_consistent(place, tree, entries, stages)
                results = _bring_results(place, tree, stages, run_id)
            commit = _commit(place, tree, name, run_id, rev)
    return {
        "run_id": run_id,
        "rev": rev,
        "commit": commit,
        "stages": len(entries),
        "results": None if results is None else str(results),
    }


def _all_entries(
    place: Workplace, run_id: str, rev: str, stages: Mapping[str, Stage]
) -> dict[str, Any]:
    found = {name: fragments.load(place, run_id, name) for name in stages}
    wanting = [name for name, one in found.items() if one is None or one.rev != rev]
    if wanting:
        raise InputError(
            f"expected all {len(stages)} stages of run {run_id} to be done, found nothing of "
            f"{', '.join(wanting)}; run them with `flowsight run-stage`"
        )
    return {name: one.entry for name, one in found.items() if one is not None}


def _merge(
    place: Workplace, tree: Path, entries: Mapping[str, Any], targets: Sequence[str]
) -> None:
    """Write the merged lock, entries that were not there in the order in which DVC runs stages.

    Raises:
        FlowsightError: DVC would run something.
    """
    committed = (tree / "dvc.lock").read_bytes() if (tree / "dvc.lock").is_file() else None
    dvcwork.write_lock(tree, entries, add=True)
    order = _prove(place, tree, entries, targets)
    if committed is None:
        (tree / "dvc.lock").unlink()
    else:
        (tree / "dvc.lock").write_bytes(committed)
    dvcwork.write_lock(tree, {name: entries[name] for name in order}, add=True)


def _prove(
    place: Workplace, tree: Path, entries: Mapping[str, Any], targets: Sequence[str]
) -> Sequence[str]:
    done = dvcwork.dvc(place, tree, "repro", "--allow-missing", "--dry", *targets)
    if done.code:
        raise FlowsightError(f"dvc repro --dry failed: {dvcwork.last_error(done)}")
    verdicts = [match for line in done.lines if (match := _VERDICT.match(line))]
    again = [match["runs"] for match in verdicts if match["runs"]]
    if again:
        raise FlowsightError(
            f"expected nothing left to do, but DVC would run {', '.join(again)} again; their "
            "inputs changed after they ran: run them with `flowsight run-stage --force`"
        )
    order = [match["same"] for match in verdicts if match["same"] in entries]
    unseen = [name for name in entries if name not in order]
    if unseen:
        raise FlowsightError(f"dvc repro --dry said nothing of {', '.join(unseen)}")
    return order


def _bring_results(
    place: Workplace, tree: Path, stages: Mapping[str, Stage], run_id: str
) -> Path | None:
    outs = [out for one in stages.values() for out in one.outs if Path(out).parts[0] == "results"]
    if not outs:
        return None
    dvcwork.transfer(place, tree, "pull", *outs)
    target = place.home / "results" / run_id
    shutil.rmtree(target, ignore_errors=True)
    # not hard links: who edits a figure must not edit DVC's cache
    shutil.copytree(tree / "results", target)
    print(f"results: {target}", file=sys.stderr)
    return target


def _commit(place: Workplace, tree: Path, name: str, run_id: str, rev: str) -> str:
    lock = (tree / "dvc.lock").read_bytes()
    for _ in range(3):
        tip = gitwork.tip(place, name) or rev
        if gitwork.git("merge-base", tip, rev, at=tree) != rev:
            raise InputError(
                f"expected {name} to go on from {rev[:10]}, but it stands elsewhere; was the run "
                "prepared?"
            )
        gitwork.git("checkout", "-q", "--force", "--detach", tip, at=tree)
        (tree / "dvc.lock").write_bytes(lock)
        gitwork.git("add", "dvc.lock", at=tree)
        marks = ("log", "-1", f"--grep=^{MARK}: ", "--format=%H", f"{rev}..{tip}")
        gathered = gitwork.git(*marks, at=tree)
        if gathered and not gitwork.git("status", "--porcelain", "-uno", at=tree):
            return gathered  # before, with the same outcome
        message = f"Run {run_id}: dvc.lock of all stages\n\n{MARK}: {rev}"
        gitwork.git("commit", "-q", "--allow-empty", "-m", message, at=tree)
        try:
            gitwork.push(place, tree, name)
        except gitwork.RejectedError:
            gitwork.fetch(place)
            continue
        return gitwork.git("rev-parse", "HEAD", at=tree)
    raise gitwork.RejectedError(f"{name} moves all the time; who else pushes to it?")
