"""`flowsight at REV COMMAND ...`: a command that wants a repository around it, on a worker.

Airflow's tasks and pods start in some folder. What decides by the repository's parameters and its
history (`flowsight promote`) gets a work tree at a revision, with the code of that revision.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from flowsight.cluster import dvcwork, gitwork, processes
from flowsight.cluster.workplace import Workplace


def run_at(place: Workplace, rev: str, arguments: Sequence[str]) -> int:
    """Run `flowsight ARGUMENTS...` in a work tree of its own, which is gone afterwards.

    Args:
        place: the worker's places.
        rev: branch, tag or commit.
        arguments: after `flowsight`.

    Returns:
        The command's exit code.

    Raises:
        InputError: no such revision, or no default DVC remote.
        ResourceError: the repository cannot be reached.
    """
    with processes.stoppable():
        commit = gitwork.resolve(place, rev)
        with gitwork.tree(place, f"at/{os.getpid()}", commit) as tree:
            dvcwork.set_up(place, tree)
            command = [sys.executable, "-m", "flowsight.cli", *arguments]
            env = dvcwork.environment(place, tree)
            process = processes.start(command, cwd=tree, env=env, read=False)
            try:
                return process.wait()
            finally:
                processes.kill_group(process)
