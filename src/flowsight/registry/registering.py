"""`flowsight register`: from a commit's results to a version in the registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from flowsight.cluster import dvcwork, gitwork, processes, workplace
from flowsight.errors import InputError
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.pipeline import dvc_yaml
from flowsight.registry import candidate, describing, state, store
from flowsight.registry import subject as subjects
from flowsight.registry.candidate import Registered, Served


def register(system: str, *, split_id: str | None = None, root: Path = Path()) -> Registered:
    """Make the working tree's trained system a version of its registered model.

    Args:
        system: its name, which is the model's too.
        split_id: whose checkpoints; None: the first of the system's.
        root: the repository.

    Raises:
        InputError: an unknown system, or a state that is not committed or not up to date.
        ResourceError: the registry cannot be reached.
    """
    params = config.load(root / "params.yaml")
    _check_system(system, params)
    subject = subjects.of_system(system)
    commit = state.check(root, f"evaluate@{system}", subject.reads(system, params))
    registry = store.connect()
    with tempfile.TemporaryDirectory(prefix="flowsight-register-") as name:
        from flowsight.serving import bundle

        folder = Path(name)
        description = bundle.write_bundle(
            system, folder / "bundle", root=root, split_id=split_id, check_lock=True
        )
        made = describing.candidate(system, params, description, root, commit, folder / "bundle")
        return candidate.publish(registry, made, lambda: _served(system, root, folder, commit))


def register_revision(system: str, revision: str, *, split_id: str | None = None) -> Registered:
    """The same in a work tree of its own, with only what is needed brought from the remote.

    Args:
        system: its name.
        revision: branch, tag or commit of `FLOWSIGHT_REPO`.
        split_id: as for `register`.
    """
    place = workplace.from_environment()
    with processes.stoppable():
        commit = gitwork.resolve(place, revision)
        with gitwork.tree(place, f"register/{system}-{os.getpid()}", commit) as tree:
            params = config.load(tree / "params.yaml")
            _check_system(system, params)
            dvcwork.set_up(place, tree)
            subject = subjects.of_system(system)
            needed = [*subject.reads(system, params), *subject.raw(params)]
            dvcwork.transfer(place, tree, "pull", *needed)
            stage = dvc_yaml.load(tree).get("flow@0")
            if stage is not None:
                dvcwork.bring_engine(tree, stage)
            return register(system, split_id=split_id, root=tree)


def _check_system(system: str, params: Params) -> None:
    systems = sorted(params.systems)
    if system not in systems:
        import difflib

        close = difflib.get_close_matches(system, systems, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"systems: {', '.join(systems)}"
        raise InputError(f"expected a system of params.yaml, found no {system!r}; {hint}")


def _served(system: str, root: Path, folder: Path, commit: str) -> Served:
    with store.quiet():
        from flowsight.serving import pyfunc_model

    kind, example = pyfunc_model.signature(system)
    return Served(
        code=Path(pyfunc_model.__file__),
        artifacts={"bundle": folder / "bundle"},
        packages=[_package(root, folder / "code", commit)],
        requirements=describing.requirements(root / "requirements.lock"),
        signature=kind,
        example=example,
    )


def _package(root: Path, out: Path, commit: str) -> Path:
    """The project's package as the commit has it, and the engine that was built from it."""
    out.mkdir()
    archive = subprocess.Popen(
        ["git", "archive", commit, "src/flowsight"], cwd=root, stdout=subprocess.PIPE
    )
    subprocess.run(
        ["tar", "x", "-C", str(out), "--strip-components=1"], stdin=archive.stdout, check=True
    )
    if archive.wait():
        raise InputError(f"expected src/flowsight in commit {commit}, found none")
    for engine in (root / "src/flowsight/flow").glob("_tvl1*.so"):
        shutil.copy(engine, out / "flowsight/flow")
    return out / "flowsight"
