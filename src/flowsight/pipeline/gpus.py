"""GPUs of a host lent to one stage each: a locked file per device, freed by its holder's death."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from flowsight.errors import InputError


@dataclass(frozen=True)
class Lent:
    """Devices that a stage may use."""

    devices: tuple[str, ...]
    locks: tuple[int, ...]
    """File descriptors that hold them."""

    @property
    def variables(self) -> dict[str, str]:
        """What the stage's command must be told."""
        return {"CUDA_VISIBLE_DEVICES": ",".join(self.devices)} if self.devices else {}


def of_this_host() -> list[str]:
    """Indices of the GPUs: `FLOWSIGHT_GPUS` ("0,1"; empty: none), else what nvidia-smi lists."""
    given = os.environ.get("FLOWSIGHT_GPUS")
    if given is not None:
        names = [name.strip() for name in given.split(",") if name.strip()]
        if any(not name.replace("-", "").isalnum() for name in names):
            raise InputError(f'expected FLOWSIGHT_GPUS as in "0,1", got {given!r}')
        return names
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.split() if done.returncode == 0 else []


@contextmanager
def lent(count: int, stage: str) -> Iterator[Lent]:
    """Hold `count` GPUs of this host while the block works; wait while all are taken.

    Without any GPU on the host the block goes on with none, on the CPU, and a line says so.

    Raises:
        InputError: the host has some, but fewer than `count`.
    """
    devices = of_this_host() if count > 0 else []
    if count > 0 and not devices:
        print(f"{stage}: no GPU on this host; it runs on the CPU", file=sys.stderr)
    with ExitStack() as stack:
        said = False
        while (found := borrow(count, stage, devices, stack)) is None:
            if not said:
                print(f"{stage}: all GPUs are taken; waiting", file=sys.stderr, flush=True)
                said = True
            time.sleep(1)
        yield found


def borrow(count: int, stage: str, devices: Sequence[str], stack: ExitStack) -> Lent | None:
    """Hold `count` GPUs until the stack is closed, without waiting.

    Args:
        count: how many the stage needs.
        stage: for the message.
        devices: what `of_this_host` gave; empty: the stage gets none.
        stack: holds the locks.

    Returns:
        All `count`, or None while so many are not free: two who need two never hold one each.

    Raises:
        InputError: the host has some, but fewer than `count`.
    """
    if count == 0 or not devices:
        return Lent((), ())
    if count > len(devices):
        raise InputError(
            f"expected {count} GPUs for {stage}, found {len(devices)} on this host; send it to "
            "another queue or lower `gpus` in its meta"
        )
    with ExitStack() as attempt:
        files = _free(devices, count, attempt)
        if len(files) < count:
            return None
        stack.push(attempt.pop_all())
    return Lent(tuple(files), tuple(file.fileno() for file in files.values()))


def _free(devices: Sequence[str], count: int, stack: ExitStack) -> dict[str, IO[str]]:
    files: dict[str, IO[str]] = {}
    for device in devices:
        if len(files) == count:
            break
        file = stack.enter_context((folder() / f"gpu-{device}.lock").open("a"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files[device] = file
        except BlockingIOError:
            file.close()
    return files


def folder() -> Path:
    """Folder of the locks, the same for all workers of the host: `FLOWSIGHT_GPU_LEASES`."""
    default = Path(tempfile.gettempdir()) / "flowsight-gpus"
    path = Path(os.environ.get("FLOWSIGHT_GPU_LEASES") or default)
    path.mkdir(parents=True, exist_ok=True)
    return path
