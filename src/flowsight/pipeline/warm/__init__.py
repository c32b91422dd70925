"""Stages without start-up: `python` and `dvc` continue in a copy of a process that has imported.

torch, torchvision and Lightning take 17 CPU seconds to import, and a training stage needs them all;
DVC takes two more. So `flowsight repro` keeps two processes that have imported them and nothing
else, and puts a `python` and a `dvc` before the real ones on the PATH of the stages. These hand
their arguments, folder, environment and open files to such a process, which forks: the child is the
command, and ends as it would have (exit code, signal, exit handlers).

Only third-party packages are imported beforehand, never ours: a stage reads the code that lies
there when it begins. Where a process is not ready yet, or died, the command runs as ever. Linux
only (process file descriptors).
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

PYTHON = (
    "numpy",
    "pandas",
    "cv2",
    "ruamel.yaml",
    "torch",
    "torchvision",
    "torchmetrics.classification",
    "lightning.pytorch",
    "mlflow",
)
"""What stages import that train, predict or explain, and the process that tracks a training."""
_FOLDER = "FLOWSIGHT_WARM"
DVC = ("dvc.cli.parser", "dvc.commands.repro", "dvc.repo", "dvc.stage.run", "dvc_data.index")


@contextmanager
def commands(names: Sequence[str], env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Keep warm processes while the block runs.

    Args:
        names: which commands, of `python` and `dvc`.
        env: the whole environment of those who will run them.

    Yields:
        That environment, with the commands before the real ones.
    """
    if not names or not hasattr(os, "pidfd_open"):
        yield dict(env)
        return
    with tempfile.TemporaryDirectory(prefix="flowsight-warm-") as name:
        folder = Path(name)  # private to the user, as its sockets have to be
        servers = [_start(folder, command, env) for command in names]
        try:
            path = f"{folder}{os.pathsep}{env.get('PATH', '')}"
            yield {**env, "PATH": path, _FOLDER: str(folder)}
        finally:
            for server in servers:
                server.terminate()
                server.wait()


def python() -> str:
    """The Python to start a module of ours with: the warm one where there is one."""
    script = Path(os.environ.get(_FOLDER, ""), "python")
    return str(script) if _FOLDER in os.environ and script.exists() else sys.executable


def _start(folder: Path, command: str, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    script = folder / command
    client = shlex.join([sys.executable, "-I", "-S", str(here / "client.py"), command])
    script.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
    script.chmod(0o700)
    modules = {"python": PYTHON, "dvc": DVC}[command]
    return subprocess.Popen(
        [sys.executable, str(here / "server.py"), str(folder / f"{command}.socket"), *modules],
        env=dict(env),
        stdin=subprocess.PIPE,  # closed by our death: the server then ends with its last command
        start_new_session=True,  # Ctrl-C is for the commands
    )
