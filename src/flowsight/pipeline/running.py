"""`flowsight repro`: `dvc repro` with a check before, a repair of the lock, and a plain ending."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

from flowsight.errors import (
    FlowsightError,
    GateError,
    InputError,
    MemoryLimitError,
    ResourceError,
)
from flowsight.params import config
from flowsight.pipeline import composing, dvc_yaml, gpus, parallel, warm
from flowsight.pipeline.gpus import Lent

CODE = "code"
"""The stage that hashes our own files for all others."""
_BY_KIND: dict[str, type[FlowsightError]] = {
    error.kind: error for error in (InputError, GateError, ResourceError, MemoryLimitError)
}
_QUIET = {
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "False",
    "DO_NOT_TRACK": "1",
    # read when MLflow is imported, which happens before a tracker sets its own
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "GIT_PYTHON_REFRESH": "quiet",
}


def repro(
    targets: Sequence[str] = (), *, force: bool = False, jobs: int = 1, root: Path | str = "."
) -> None:
    """Bring every result up to date and say where they are.

    What `dvc repro` alone does not do: parameters and input are checked before anything is
    touched; a `dvc.lock` broken by a kill is repaired; after a failure the earlier outputs are put
    back, and the failing stage's own message and exit code come out.

    Args:
        targets: stages; none: the page, with all that the systems of these parameters need.
        force: run even what did not change.
        jobs: stages run side by side; what they print goes to `build/logs/<stage>.log`.
        root: the repository.

    Raises:
        FlowsightError: of the kind that the failing stage reported.
    """
    root = Path(root)
    params = config.load(root / "params.yaml")
    stages = dvc_yaml.load(root)
    targets = targets or [name for name in stages if name == dvc_yaml.LAST]
    check_input(stages, targets, root)
    repair_lock(root)
    print(f"flowsight: {composing.describe(params)}", file=sys.stderr)
    with _termination_raises():
        if jobs > 1:
            _repro_parallel(targets, stages, force, jobs, root)
        else:
            _repro_serial(targets, force, root)
    keep_lock(root)
    page = root / "results" / "report" / "index.html"
    where = page if page.is_file() else root / "results"
    print(f"done: open {where} (numbers: `dvc metrics show`)")


@contextmanager
def _termination_raises() -> Iterator[None]:
    """Let a supervisor's SIGTERM end the stages too, as Ctrl-C does; it is sent to us alone."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # stopping must not be interrupted
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def check_input(stages: Mapping[str, dvc_yaml.Stage], targets: Sequence[str], root: Path) -> None:
    """Refuse to start where something is missing that no stage makes: raw data, a weights file.

    Args:
        stages: all of `dvc.yaml`.
        targets: see `dvc_yaml.reached`.
        root: the repository.

    Raises:
        InputError: naming what was expected where, and the command that brings it.
    """
    made = [out for stage in stages.values() for out in stage.outs]
    for name in dvc_yaml.reached(stages, targets):
        for dep in stages[name].deps:
            if (root / dep).exists() or any(dvc_yaml.overlaps(dep, out) for out in made):
                continue
            raise InputError(f"{name}: expected {root / dep}, found no such file{_bring(dep)}")


def _bring(dep: str) -> str:
    """The command that brings what lies in `data/`."""
    kind, name = (*Path(dep).parts[1:3], "", "")[:2]
    command = {"raw": f"flowsight import {name} SOURCE", "weights": "flowsight import weights FILE"}
    return f"; bring it with `{command[kind]}`" if kind in command else ""


def repair_lock(root: Path) -> None:
    """Put back the kept `dvc.lock` where a kill left a broken one.

    DVC rewrites the file in place after every stage; killed in that moment it leaves it empty and
    every later DVC command fails. Without a copy the file is removed: the run cache brings the
    results back.
    """
    lock, copy = root / "dvc.lock", root / "build" / "dvc.lock"
    if not lock.exists() or _is_lock(lock):
        return
    if copy.exists() and _is_lock(copy):
        shutil.copyfile(copy, lock)
        print("dvc.lock was broken; put back the last good copy", file=sys.stderr)
    else:
        lock.unlink()
        print("dvc.lock was broken; removed, results come back from DVC's cache", file=sys.stderr)


def keep_lock(root: Path) -> None:
    """Keep a copy of a good `dvc.lock` in `build/`."""
    lock = root / "dvc.lock"
    if lock.exists() and _is_lock(lock):
        (root / "build").mkdir(exist_ok=True)
        shutil.copyfile(lock, root / "build" / "dvc.lock")


def _is_lock(path: Path) -> bool:
    from ruamel.yaml import YAMLError

    try:
        content = dvc_yaml.read_yaml(path)
    except (YAMLError, UnicodeDecodeError):
        return False
    return isinstance(content, dict) and "stages" in content


def _repro_serial(targets: Sequence[str], force: bool, root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "failure.json"
        variables = {**_run_environment(), "FLOWSIGHT_FAILURE": str(note)}
        # `env` looks the command up on the new PATH
        command = ["env", "dvc", "repro", *(["--force"] if force else []), *targets]
        process = subprocess.Popen(command, cwd=root, env=variables)
        try:
            code = process.wait()
        finally:
            if process.returncode is None:  # Ctrl-C
                parallel.stop(process)
        failure = json.loads(note.read_text()) if note.exists() else None
    if code:
        restore(root)
        raise _as_error(code, failure)


def _repro_parallel(
    targets: Sequence[str],
    stages: dict[str, dvc_yaml.Stage],
    force: bool,
    jobs: int,
    root: Path,
) -> None:
    env = _run_environment()
    waiting = _wanted(targets, force, root, env)
    if CODE in waiting and not force:
        # nearly all read what it writes, of which an edit changes little: see what is left then
        _run_stages({CODE: set()}, stages, force, jobs, root, env)
        waiting = _wanted(targets, force, root, env)
    _run_stages(waiting, stages, force, jobs, root, env)


def _wanted(
    targets: Sequence[str], force: bool, root: Path, env: Mapping[str, str]
) -> dict[str, set[str]]:
    try:
        return parallel.wanted(targets, force=force, root=root, env=env)
    except subprocess.CalledProcessError as error:
        raise _as_error(error.returncode, None) from None


def _run_stages(
    waiting: dict[str, set[str]],
    stages: Mapping[str, dvc_yaml.Stage],
    force: bool,
    jobs: int,
    root: Path,
    env: dict[str, str],
) -> None:
    devices = gpus.of_this_host()
    needs = {name: int(stages[name].meta.get("gpus", 0)) for name in waiting}
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        env = stack.enter_context(warm.commands(_worth_warming(needs, devices), env))

        def start(stage: str, output: IO[bytes], lent: Lent) -> subprocess.Popen[bytes]:
            command = ["env", "dvc", "--wait-for-lock", "repro", "--single-item"]
            command += [*(["--force"] if force else []), stage]
            failure = {"FLOWSIGHT_FAILURE": str(Path(folder) / f"{stage}.json")}
            return subprocess.Popen(
                command,
                cwd=root,
                env={**env, **failure, **lent.variables},
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=lent.locks,
            )

        failed = parallel.run(
            waiting,
            start,
            jobs=jobs,
            logs=root / "build" / "logs",
            needs=needs,
            devices=devices,
        )
        if failed is None:
            return
        stage, code, log = failed
        note = Path(folder) / f"{stage}.json"
        failure = json.loads(note.read_text()) if note.exists() else None
    restore(root)
    if failure is None:
        raise FlowsightError(f"{stage} ended with {code}; what it printed stands in {log}")
    raise _as_error(code, failure)


def _worth_warming(needs: Mapping[str, int], devices: Sequence[str]) -> list[str]:
    """Commands that enough stages start for a process kept for them.

    On a host with GPUs no Python: CUDA does not survive a fork, and trainings are long there.
    """
    trainings = sum(map(bool, needs.values()))
    enough = {"dvc": len(needs) > 3, "python": trainings > 3 and not devices}
    return [command for command, is_enough in enough.items() if is_enough]


def _run_environment() -> dict[str, str]:
    """With a name for this run of the pipeline; its trainings stand under it in MLflow."""
    name = f"repro-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    return {**environment(), "FLOWSIGHT_RUN_ID": os.environ.get("FLOWSIGHT_RUN_ID") or name}


def environment() -> dict[str, str]:
    """The tools of this Python's environment first, also when it was not activated."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**_QUIET, **os.environ, "PATH": path}


def restore(root: Path) -> None:
    """Bring back what DVC removed before a stage that then failed, as `dvc.lock` has it."""
    if (root / "dvc.lock").exists():
        subprocess.run(
            ["env", "dvc", "checkout", "--quiet", "--allow-missing"],
            cwd=root,
            env=environment(),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


def _as_error(code: int, failure: dict[str, str] | None) -> FlowsightError:
    if failure is None:
        return FlowsightError(f"dvc repro ended with {code}; its own message stands above")
    return error_of_kind(failure["kind"])(failure["message"])


def error_of_kind(kind: str) -> type[FlowsightError]:
    """The error that a stage's `{kind, message}` stands for."""
    return _BY_KIND.get(kind, FlowsightError)
