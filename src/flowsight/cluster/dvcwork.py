"""DVC as a worker uses it: a work tree of its own, a cache shared with the tasks beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowsight.cluster import dvc_session, processes
from flowsight.cluster.workplace import Workplace
from flowsight.errors import FlowsightError, InputError, ResourceError
from flowsight.pipeline import dvc_yaml, running

_SIGNAL = re.compile(r"exited with (-\d+|1(?:2[9]|[3-5]\d|6[0-4]))\b")
_ERROR = re.compile(r"^ERROR: (.*)")


def environment(place: Workplace, tree: Path) -> dict[str, str]:
    """Variables for commands in a work tree: its own code, this worker's scratch and site cache."""
    variables = {
        **running.environment(),
        "FLOWSIGHT_SCRATCH": str(place.scratch),
        "DVC_SITE_CACHE_DIR": str(tree / ".dvc" / "tmp" / "site"),
    }
    variables.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{place.home / 'mlflow.db'}")
    if (tree / "src" / "flowsight").is_dir():
        # the installed package may be of another revision than the one that is asked for
        paths = (str(tree / "src"), os.environ.get("PYTHONPATH", ""))
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return variables


def set_up(place: Workplace, tree: Path) -> None:
    """Give a fresh work tree its cache and check that there is a remote.

    Raises:
        InputError: no default DVC remote, or no DVC repository.
    """
    from dvc.config import Config, ConfigError

    if not (tree / ".dvc").is_dir():
        raise InputError(f"expected a DVC repository in {place.repo}, found no .dvc folder")
    _copy_local_config(place, tree)
    try:
        config = Config(str(tree / ".dvc"))
    except ConfigError as error:
        raise InputError(f"expected a DVC configuration, got: {error}") from None
    if not config["core"].get("remote"):
        raise InputError(
            "expected a default DVC remote, found none; `dvc remote add -d NAME URL` and commit "
            ".dvc/config, or set DVC_GLOBAL_CONFIG_DIR to a folder with such a `config`"
        )
    with config.edit("local") as local:
        if not config["cache"].get("dir"):
            local["cache"]["dir"] = str(place.home / "cache")
        if not config["cache"].get("type"):
            local["cache"]["type"] = ["reflink", "hardlink", "copy"]


def _copy_local_config(place: Workplace, tree: Path) -> None:
    """Where the repository is a folder of this machine, its uncommitted remotes are known too."""
    from dvc.config import Config

    source = Path(place.repo) / ".dvc"
    if (source / "config.local").is_file():
        content = Config(str(source)).load_one("local")  # relative paths come out absolute
        with Config(str(tree / ".dvc"), validate=False).edit("local") as local:
            local.update(content)


@contextmanager
def one_process(place: Workplace, tree: Path) -> Iterator[None]:
    """In the block the DVC commands in a work tree that was set up share one process.

    It starts right away. Each command otherwise costs a second of DVC's imports.
    """
    with dvc_session.shared(tree, environment(place, tree)):
        yield


def dvc(place: Workplace, tree: Path, *arguments: str, quiet: bool = True) -> processes.Done:
    """Run a DVC command in a work tree, waiting for DVC's lock; see `dvc_session.run`."""
    command = [*(["--wait-for-lock"] if arguments[0] == "repro" else []), *arguments]
    return dvc_session.run(tree, environment(place, tree), command, quiet=quiet)


def transfer(place: Workplace, tree: Path, *arguments: str) -> None:
    """`dvc pull` or `dvc push`.

    Raises:
        ResourceError: the remote cannot be reached or lacks something.
    """
    done = dvc(place, tree, *arguments)
    if done.code or _lacks(done):
        raise ResourceError(f"dvc {arguments[0]} failed: {last_error(done)}")


def last_error(done: processes.Done) -> str:
    """What a failed DVC command said, in one line."""
    errors = [match[1] for line in done.lines if (match := _ERROR.match(line))]
    said = errors or [line for line in done.lines if line.strip()] or [f"code {done.code}"]
    return " ".join(said[0].split())[:400]


def is_stored(place: Workplace, tree: Path, stage: str) -> bool:
    """Whether the cache or the remote has the outputs of a stage, by its entry in `dvc.lock`.

    Raises:
        ResourceError: the remote cannot be reached.
    """
    done = dvc(place, tree, "status", "--cloud", "--json", stage)
    answers = [line for line in done.lines if line.startswith("{")]  # among its warnings
    if done.code or not answers:
        raise ResourceError(f"dvc status --cloud failed: {last_error(done)}")
    # a folder whose list is missing stands only in the warning, not in the answer
    return not _lacks(done) and "missing" not in json.loads(answers[-1]).values()


def _lacks(done: processes.Done) -> bool:
    return any("neither locally nor on remote" in line for line in done.lines)


def failure(done: processes.Done, note: Mapping[str, str] | None) -> FlowsightError:
    """What a failed `dvc repro` means, from the note the stage left and what DVC printed."""
    if note is not None:
        killed = "killed by signal" in note["message"]
        kind = ResourceError if killed else running.error_of_kind(note["kind"])
        return kind(note["message"])
    text = "\n".join(done.lines)
    if done.code > 128 and done.code != 255:
        return ResourceError(f"dvc was killed by signal {done.code - 128}; run again to go on")
    by_signal = _SIGNAL.search(text)
    if by_signal:
        number = int(by_signal[1])
        number = -number if number < 0 else number - 128
        return ResourceError(
            f"the stage's command was killed by signal {number}"
            f"{' (out of memory?)' if number == 9 else ''}; run again to go on"
        )
    if "Running stage" in text:
        return FlowsightError(f"the stage's command failed: {last_error(done)}")
    if "does not exist" in text or "missing data" in text:
        return InputError(f"{last_error(done)}; is it tracked by DVC and pushed?")
    return ResourceError(f"dvc repro could not start the stage: {last_error(done)}")


def holds(place: Workplace, tree: Path, stage: str) -> bool:
    """Whether command, parameters and code of a stage are those of its entry in `dvc.lock`.

    Inputs that are not there are not looked at. Where something changed, DVC may want to read
    them and fail: the entry does not hold then, and running the stage for real says what is wrong.
    """
    done = dvc(place, tree, "repro", "--single-item", "--allow-missing", "--dry", stage)
    return done.code == 0 and outcome(done) == "unchanged"


def repro(
    place: Workplace,
    tree: Path,
    stage: str,
    *,
    locks: Sequence[int] = (),
    variables: Mapping[str, str] | None = None,
    force: bool = False,
) -> processes.Done:
    """Bring one stage up to date, whose upstream stages stand in `dvc.lock`.

    Args:
        place: the worker's places.
        tree: its work tree.
        stage: name.
        locks: file descriptors to hold while it runs, also when we die.
        variables: added to the environment.
        force: run the command even if the run cache knows its outcome.

    Raises:
        FlowsightError: of the kind that the stage reported.
    """
    # never `--allow-missing` here: without a lock entry and with inputs that are not there DVC
    # takes a stage for unchanged
    command = ["--wait-for-lock", "repro", "--single-item", "--pull"]
    command += ["--force"] if force else []
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "failure.json"
        own = {**(variables or {}), "FLOWSIGHT_FAILURE": str(note)}
        env = environment(place, tree)
        done = dvc_session.run(tree, env, [*command, stage], variables=own, locks=locks)
        if done.code:
            left = json.loads(note.read_text()) if note.exists() else None
            raise failure(done, left)
    return done


def outcome(done: processes.Done) -> str:
    """What a successful `dvc repro` did: `ran`, `restored` or `unchanged`."""
    if any(line.startswith("Running stage '") for line in done.lines):
        return "ran"
    if any("is cached - skipping run" in line for line in done.lines):
        return "restored"
    return "unchanged"


def read_lock(tree: Path) -> dict[str, Any]:
    """Stages of the work tree's `dvc.lock`, as it is written."""
    path = tree / "dvc.lock"
    content = dvc_yaml.read_yaml(path) if path.is_file() else None
    return dict((content or {}).get("stages", {}))


def write_lock(tree: Path, entries: Mapping[str, Any], *, add: bool = False) -> None:
    """Write entries to `dvc.lock` in DVC's own manner, so that it writes the same bytes.

    Args:
        tree: the work tree.
        entries: stage -> entry.
        add: keep the entries that are there.
    """
    from dvc.utils.serialize import modify_yaml

    path = tree / "dvc.lock"
    if not add:
        path.unlink(missing_ok=True)
    with modify_yaml(str(path)) as data:
        if not data:
            data["schema"] = "2.0"
        data.setdefault("stages", {}).update(entries)


def listing(place: Workplace, tree: Path, out: str | None = None) -> dict[str, str]:
    """All files that DVC knows in a work tree -> MD5; no content is fetched.

    Args:
        place: the worker's places.
        tree: its work tree.
        out: only the files of this output, by their paths below it.

    Raises:
        ResourceError: the remote cannot be reached.
    """
    done = dvc(place, tree, "list-outs", *([] if out is None else [out]))
    if done.code or not done.lines:
        raise ResourceError(f"cannot list what DVC tracks: {' '.join(done.lines[-2:])[:300]}")
    found: dict[str, str] = json.loads(done.lines[-1])
    if out is None:
        return found
    return {path.removeprefix(f"{out}/"): md5 for path, md5 in found.items()}


def hash_at(content: Mapping[str, str], path: str) -> str | None:
    """DVC's hash of a file or folder, from the listing of the whole repository."""
    if path in content:
        return content[path]
    below = {name.removeprefix(f"{path}/"): md5 for name, md5 in content.items()}
    below = {name: md5 for name, md5 in below.items() if f"{path}/{name}" in content}
    return folder_hash(below) if below else None


def folder_hash(content: Mapping[str, str]) -> str:
    """DVC's hash of a folder, from its files' paths and hashes."""
    entries = [{"md5": content[path], "relpath": path} for path in sorted(content)]
    text = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"


def tracked_hash(tree: Path, path: str) -> str | None:
    """Hash of a file or folder that a `.dvc` file beside it tracks; None: there is none."""
    file = tree / f"{path}.dvc"
    return dvc_yaml.read_yaml(file)["outs"][0].get("md5") if file.is_file() else None


def bring_engine(tree: Path, stage: dvc_yaml.Stage) -> None:
    """Put the compiled engine beside its source in the tree, if the stage needs it.

    Git does not keep it. One built from the same source is copied; else it is built. Where that
    fails the stage itself says what it lacks.
    """
    for source in (tree / dep for dep in stage.deps if dep.endswith(".c")):
        import flowsight.flow

        installed = Path(flowsight.flow.__file__).with_name(source.name)
        built = list(installed.parent.glob(f"{source.stem}*.so"))
        if built and installed.read_bytes() == source.read_bytes():
            shutil.copy(built[0], source.parent)
        elif (tree / "setup.py").is_file():
            build = ["python", "setup.py", "-q", "build_ext", "--inplace"]
            processes.run(build, cwd=tree, env=running.environment())
