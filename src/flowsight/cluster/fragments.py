"""The common store of a run: what each finished stage adds to `dvc.lock`, and who works on what.

`FLOWSIGHT_RUNS/<run-id>/<stage>.yaml` holds one entry of `dvc.lock`; the union of all is the lock
of the whole run. A fragment appears whole, after the stage's outputs are in the DVC remote: who
sees it can rely on them.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowsight.cluster.workplace import Workplace, check_run_id
from flowsight.errors import FlowsightError, InputError, ResourceError
from flowsight.files import atomic_file

_REV = "# at "


@dataclass(frozen=True)
class Fragment:
    """What a finished stage adds to `dvc.lock`."""

    stage: str
    rev: str
    """Commit it was computed at."""
    entry: Mapping[str, Any]


class Store:
    """Small texts under names, in a folder or below an fsspec URL (s3://bucket/prefix).

    Every method raises ResourceError where the store cannot be reached.
    """

    def __init__(self, base: str) -> None:
        self.base = base.rstrip("/")
        self.is_remote = "://" in base

    def read(self, name: str) -> str | None:
        """The text, None if there is none."""
        with self._reached():
            try:
                if self.is_remote:
                    fs, root = self._filesystem()
                    fs.invalidate_cache()
                    return bytes(fs.cat_file(f"{root}/{name}")).decode()
                return (Path(self.base) / name).read_text(encoding="utf-8")
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, text: str) -> None:
        """Put a text, whole or not at all."""
        with self._reached():
            if self.is_remote:
                fs, root = self._filesystem()
                fs.pipe_file(f"{root}/{name}", text.encode())
                return
            with atomic_file(Path(self.base) / name) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def create(self, name: str, text: str) -> bool:
        """Put a text unless there is one; whether it was put.

        Of several exactly one wins: always in a folder; in an object store if it heeds
        `If-None-Match` (AWS and most others do).
        """
        with self._reached():
            try:
                if self.is_remote:
                    return self._create_object(name, text)
                path = Path(self.base) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
                return True
            except FileExistsError:
                return False

    def _create_object(self, name: str, text: str) -> bool:
        fs, root = self._filesystem()
        try:
            fs.pipe_file(f"{root}/{name}", text.encode(), mode="create")
        except Exception as error:
            # s3fs has no error of its own for it
            if "PreconditionFailed" in repr(error) or "pre-condition" in str(error).lower():
                return False
            raise
        return True

    def names(self, folder: str = "") -> list[str]:
        """Names of what is right below a folder, sorted."""
        with self._reached():
            try:
                if self.is_remote:
                    fs, root = self._filesystem()
                    fs.invalidate_cache()
                    found = fs.ls(f"{root}/{folder}".rstrip("/"), detail=False)
                    names = {path.rstrip("/").rpartition("/")[2] for path in found}
                else:
                    names = {path.name for path in (Path(self.base) / folder).iterdir()}
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(name for name in names if name and not name.startswith("."))

    def remove(self, name: str) -> None:
        """Remove a text or a folder; nothing there is fine."""
        with self._reached():
            if self.is_remote:
                fs, root = self._filesystem()
                fs.invalidate_cache()
                if fs.exists(f"{root}/{name}"):
                    fs.rm(f"{root}/{name}", recursive=True)
                return
            path = Path(self.base) / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def newest(self, folder: str) -> float | None:
        """Seconds since the epoch when something right below a folder last changed."""
        with self._reached():
            try:
                if self.is_remote:
                    fs, root = self._filesystem()
                    fs.invalidate_cache()
                    entries = fs.ls(f"{root}/{folder}", detail=True)
                    times = [e["LastModified"].timestamp() for e in entries if "LastModified" in e]
                else:
                    times = [p.stat().st_mtime for p in (Path(self.base) / folder).iterdir()]
            except FileNotFoundError:
                return None
        return max(times, default=None)

    def _filesystem(self) -> tuple[Any, str]:
        import fsspec

        fs, root = fsspec.core.url_to_fs(self.base)
        return fs, str(root).rstrip("/")

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except ImportError as error:
            raise InputError(
                f"expected the package for {self.base}, got: {error}; install flowsight[serve]"
            ) from None
        except FlowsightError:
            raise
        except Exception as error:  # every file system of fsspec has errors of its own
            reason = " ".join(str(error).split())[:200]
            raise ResourceError(
                f"cannot reach the store of runs {self.base}: {type(error).__name__}: {reason}"
            ) from None


def store(place: Workplace) -> Store:
    """The store that `FLOWSIGHT_RUNS` names."""
    return Store(place.runs)


def publish(place: Workplace, run_id: str, fragment: Fragment) -> None:
    """Make a finished stage known. Its outputs must be in the remote by now."""
    from ruamel.yaml import YAML

    text = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 10_000
    yaml.dump({fragment.stage: dict(fragment.entry)}, text)
    name = f"{check_run_id(run_id)}/{fragment.stage}.yaml"
    store(place).write(name, f"{_REV}{fragment.rev}\n{text.getvalue()}")


def load(place: Workplace, run_id: str, stage: str) -> Fragment | None:
    """What a stage has published; None if it has not.

    Raises:
        InputError: it is no fragment.
    """
    from ruamel.yaml import YAML, YAMLError

    text = store(place).read(f"{check_run_id(run_id)}/{stage}.yaml")
    if text is None:
        return None
    first = text.partition("\n")[0]
    try:
        content = YAML(typ="safe").load(text)
        return Fragment(stage, first.removeprefix(_REV).strip(), content[stage])
    except (YAMLError, TypeError, KeyError):
        raise InputError(
            f"expected the lock entry of {stage} in {place.runs}/{run_id}/{stage}.yaml, got "
            "something else; remove that file and run the stage again"
        ) from None
