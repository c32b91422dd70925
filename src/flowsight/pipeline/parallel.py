"""Stages side by side on one machine: what DVC, which runs one after the other, leaves to others.

Each stage is a `dvc repro --single-item` of its own as soon as the stages it reads are done. DVC
allows that in one workspace: its lock is free while a command runs.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from flowsight.pipeline import dvc_yaml, gpus
from flowsight.pipeline.gpus import Lent

_POLL_SEC = 0.1
_SAY_SEC = 30.0
_STOP_SEC = 10.0
_OF_DVC = (">", "Running stage", "Updating lock", "To track", "To enable", "\t", "Use `dvc push`")
"""How lines begin that DVC prints around a stage's own."""


@dataclass
class Job:
    """A stage at work."""

    stage: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    held: ExitStack
    """Its GPUs and the file it prints to."""
    begun: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)


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
    stages = dvc_yaml.load(root)
    before = dvc_yaml.upstream(stages)
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
    start: Callable[[str, IO[bytes], Lent], subprocess.Popen[bytes]],
    *,
    jobs: int,
    logs: Path,
    needs: Mapping[str, int],
    devices: Sequence[str],
) -> tuple[str, int, Path] | None:
    """Run stages, at most `jobs` at once; after a failure no more are begun.

    Args:
        waiting: stage -> the stages it waits for, as `wanted` gives them.
        start: starts a stage on its GPUs, output to the file.
        jobs: how many at once.
        logs: folder for `<stage>.log`, what each printed.
        needs: stage -> how many GPUs it wants for itself; none where it is not named.
        devices: this host's GPUs; empty: every stage runs on the CPU.

    Returns:
        None, or the stage that failed first, its exit code and its log.

    Raises:
        InputError: a stage needs more GPUs than the host has.
    """
    logs.mkdir(parents=True, exist_ok=True)
    total, begun = len(waiting), time.monotonic()
    left = {name: set(needed) for name, needed in waiting.items()}
    active: list[Job] = []
    failed: tuple[str, int, Path] | None = None
    try:
        while active or (left and failed is None):
            for name in [name for name, needed in left.items() if not needed]:
                if failed is not None or len(active) >= jobs:
                    break
                held = ExitStack()
                lent = gpus.borrow(needs.get(name, 0), name, devices, held)
                if lent is None:
                    continue
                del left[name]
                output = held.enter_context((logs / f"{name}.log").open("wb"))
                active.append(Job(name, start(name, output, lent), output, held))
            for job in [job for job in active if job.process.poll() is not None]:
                active.remove(job)
                job.held.close()
                code = job.process.returncode
                if code and failed is None:
                    failed = job.stage, code, logs / f"{job.stage}.log"
                for needed in left.values():
                    needed.discard(job.stage)
                _tell(job, code, total - len(left) - len(active), total, begun)
            for job in active:
                _tell_progress(job)
            time.sleep(_POLL_SEC)
    finally:
        for job in active:  # Ctrl-C
            stop(job.process)
            job.held.close()
    return failed


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a command and all it started; DVC, ended alone, leaves its stage at work."""
    import psutil

    try:
        parent = psutil.Process(process.pid)
        family = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        family = []
    for number in (signal.SIGTERM, signal.SIGKILL):
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(number)
        _, family = psutil.wait_procs(family, timeout=_STOP_SEC)
    process.wait()


def _tell_progress(job: Job) -> None:
    """The last line of a long stage's log, now and then."""
    now = time.monotonic()
    if now - job.said < _SAY_SEC:
        return
    job.said = now
    with Path(job.output.name).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
        lines = re.split(r"[\r\n]+", log.read().decode(errors="replace").strip())
    own = [line for line in lines if line and not line.startswith(_OF_DVC)]
    said = own[-1][:200] if own else "at work"
    print(f"{job.stage}: {said}", file=sys.stderr, flush=True)


def _tell(job: Job, code: int, done: int, total: int, begun: float) -> None:
    now = time.monotonic()
    remaining = (now - begun) / done * (total - done)
    how = f"failed with {code}" if code else f"{now - job.begun:.0f} s"
    end = f"about {remaining / 60:.0f} min left" if done < total else "all done"
    print(f"{job.stage}: {how} ({done} of {total}, {end})", file=sys.stderr, flush=True)
