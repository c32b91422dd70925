"""Stages side by side on one machine: what DVC, which runs one after the other, leaves to others.

Each stage is a `dvc repro --single-item` of its own as soon as the stages it reads are done. DVC
allows that in one workspace: its lock is free while a command runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flowsight import pipeline

_POLL_SEC = 0.1


@dataclass
class Job:
    """A stage at work."""

    stage: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    begun: float = field(default_factory=time.monotonic)


def wanted(
    targets: Sequence[str], *, force: bool, root: Path, env: Mapping[str, str]
) -> dict[str, set[str]]:
    """Stages that changed or read one that did, each with those of them that it waits for.

    Args:
        targets: stages to bring up to date, with all they read; none: all.
        force: take unchanged stages for changed.
        root: the repository.
        env: the whole environment of DVC.

    Raises:
        subprocess.CalledProcessError: DVC cannot read the pipeline; it has said why.
    """
    command = ["env", "dvc", "status", "--json", *(["--with-deps", *targets] if targets else [])]
    done = subprocess.run(command, cwd=root, env=dict(env), stdout=subprocess.PIPE, check=True)
    said = [line for line in done.stdout.decode().splitlines() if line.startswith("{")]
    stages = pipeline.load(root)
    before = pipeline.upstream(stages)
    reached = _with_upstream(targets, before) if targets else set(stages)
    changed = reached if force else set(json.loads(said[-1])) if said else set()
    # a changed stage may give its readers something new: DVC looks at them when it is done
    affected = {name for name in reached if changed & _with_upstream([name], before)}
    return {
        name: _with_upstream(before[name], before) & affected for name in stages if name in affected
    }


def _with_upstream(names: Sequence[str] | set[str], before: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [other for name in names for other in before if other == name or _of(other, name)]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += before[name]
    return found


def _of(stage: str, target: str) -> bool:
    """Whether a stage is one of the target's instances (`train` stands for `train@spatial-1`)."""
    return stage.startswith(f"{target}@")


def run(
    waiting: dict[str, set[str]],
    start: Callable[[str, IO[bytes]], subprocess.Popen[bytes]],
    *,
    jobs: int,
    logs: Path,
) -> tuple[str, int, Path] | None:
    """Run stages, at most `jobs` at once; after a failure no more are begun.

    Args:
        waiting: stage -> the stages it waits for, as `wanted` gives them.
        start: starts a stage whose output goes to the file.
        jobs: how many at once.
        logs: folder for `<stage>.log`, what each printed.

    Returns:
        None, or the stage that failed first, its exit code and its log.
    """
    logs.mkdir(parents=True, exist_ok=True)
    total, begun = len(waiting), time.monotonic()
    left = {name: set(needed) for name, needed in waiting.items()}
    active: list[Job] = []
    failed: tuple[str, int, Path] | None = None
    try:
        while active or (left and failed is None):
            while failed is None and len(active) < jobs and (name := _ready(left)) is not None:
                del left[name]
                output = (logs / f"{name}.log").open("wb")
                active.append(Job(name, start(name, output), output))
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                job.output.close()
                code = job.process.returncode
                if code and failed is None:
                    failed = job.stage, code, logs / f"{job.stage}.log"
                for needed in left.values():
                    needed.discard(job.stage)
                _tell(job, code, total - len(left) - len(active), total, begun)
            time.sleep(_POLL_SEC)
    finally:
        for job in active:  # Ctrl-C
            job.process.terminate()
            job.process.wait()
            job.output.close()
    return failed


def _ready(left: Mapping[str, set[str]]) -> str | None:
    return next((name for name, needed in left.items() if not needed), None)


def _tell(job: Job, code: int, done: int, total: int, begun: float) -> None:
    now = time.monotonic()
    remaining = (now - begun) / done * (total - done)
    how = f"failed with {code}" if code else f"{now - job.begun:.0f} s"
    end = f"about {remaining / 60:.0f} min left" if done < total else "all done"
    print(f"{job.stage}: {how} ({done} of {total}, {end})", file=sys.stderr, flush=True)
