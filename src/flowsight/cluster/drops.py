"""Drop folders: where people, or other programs, leave new videos. A folder or an fsspec URL."""

from __future__ import annotations

import os
import re
import shutil
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from flowsight.errors import FlowsightError, InputError, ResourceError
from flowsight.files import atomic_file

QUARANTINE = "quarantine"
MAX_FILES = 100_000


@dataclass(frozen=True, order=True)
class Dropped:
    """A file found in a drop folder."""

    name: str
    """Path below the drop folder."""
    local: Path
    """Where its content can be read."""
    state: tuple[int, int]
    """Size in bytes and time of change, as found."""
    problem: str | None = None
    """Why it is no plain file to take."""

    def is_as_found(self) -> bool:
        """Whether nobody has written to it since."""
        return _state(self.local) == self.state


class Drop(Protocol):
    """What ingest needs of a drop folder."""

    @abstractmethod
    def files(self) -> list[Dropped]:
        """All files, sorted; hidden ones and the quarantine left out."""

    @abstractmethod
    def remove(self, one: Dropped) -> None:
        """Remove a file; gone is fine."""

    @abstractmethod
    def quarantine(self, one: Dropped, reason: str) -> None:
        """Move a file to the quarantine and put its reason beside it."""


def max_bytes() -> int:
    """Largest file that is taken: `FLOWSIGHT_INGEST_MAX_MB`, 2048 by default."""
    text = os.environ.get("FLOWSIGHT_INGEST_MAX_MB", "2048")
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"expected FLOWSIGHT_INGEST_MAX_MB as a positive number, got {text!r}")
    return int(text) * 2**20


def open_drop(drop: str, scratch: Path) -> Drop:
    """The drop folder at a path or URL.

    Args:
        drop: folder, or URL as s3://bucket/prefix.
        scratch: where files of a URL are put to be read.

    Raises:
        InputError: no such folder.
    """
    if "://" in drop:
        return _RemoteDrop(drop, scratch)
    if not Path(drop).is_dir():
        raise InputError(f"expected a drop folder at {drop}, found none")
    return _LocalDrop(Path(drop).resolve())


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return (-1, -1)
    return (stat.st_size, stat.st_mtime_ns)


def _hidden(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == QUARANTINE or any(part.startswith(".") for part in parts)


def _too_many(count: int, where: object) -> None:
    if count > MAX_FILES:
        raise InputError(f"expected at most {MAX_FILES} files in {where}, found more")


def _too_big(size: int) -> str | None:
    return f"larger than {max_bytes() // 2**20} MB" if size > max_bytes() else None


class _LocalDrop:
    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self) -> list[Dropped]:
        found = []
        for parent, folders, names in os.walk(self._root):
            at = Path(parent)
            links = [name for name in folders if (at / name).is_symlink()]
            folders[:] = [name for name in folders if name not in links]
            for name in [*names, *links]:
                relative = (at / name).relative_to(self._root).as_posix()
                if not _hidden(relative):
                    found.append(self._one(relative))
                _too_many(len(found), self._root)
        return sorted(found)

    def _one(self, name: str) -> Dropped:
        path = self._root / name
        problem = None
        if path.is_symlink():
            problem = "a link, not a file"
        elif not path.is_file():
            problem = "not a plain file"
        state = _state(path)
        return Dropped(name, path, state, problem or _too_big(state[0]))

    def remove(self, one: Dropped) -> None:
        one.local.unlink(missing_ok=True)
        self._tidy(one.local.parent)

    def quarantine(self, one: Dropped, reason: str) -> None:
        target = self._root / QUARANTINE / one.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target.with_name(f"{target.name}.reason.txt")) as temporary:
            temporary.write_text(reason + "\n", encoding="utf-8")
        if one.local.is_symlink() or one.local.exists():
            one.local.replace(target)
        self._tidy(one.local.parent)

    def _tidy(self, folder: Path) -> None:
        if folder != self._root and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class _RemoteDrop:
    def __init__(self, url: str, scratch: Path) -> None:
        import fsspec

        self._url, self._scratch = url, scratch
        self._fs: Any
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")

    def files(self) -> list[Dropped]:
        self._fs.invalidate_cache()
        entries = self._call(self._fs.find, self._root, detail=True)
        names = {path[len(self._root) + 1 :]: entry["size"] for path, entry in entries.items()}
        wanted = {name: size for name, size in names.items() if name and not _hidden(name)}
        _too_many(len(wanted), self._url)
        need = sum(size for size in wanted.values() if not _too_big(size))
        if need > shutil.disk_usage(self._scratch).free:
            raise ResourceError(
                f"expected {need / 2**20:.0f} MiB of space in {self._scratch} for {self._url}, "
                "found less; free some"
            )
        return [self._one(i, name, size) for i, (name, size) in enumerate(sorted(wanted.items()))]

    def _one(self, index: int, name: str, size: int) -> Dropped:
        local = self._scratch / f"{index}{re.sub(r'[^.A-Za-z0-9]', '', Path(name).suffix)}"
        if problem := _too_big(size):
            return Dropped(name, local, (size, 0), problem)
        self._call(self._fs.get_file, f"{self._root}/{name}", str(local))
        return Dropped(name, local, _state(local))

    def remove(self, one: Dropped) -> None:
        if self._call(self._fs.exists, f"{self._root}/{one.name}"):
            self._call(self._fs.rm_file, f"{self._root}/{one.name}")

    def quarantine(self, one: Dropped, reason: str) -> None:
        target = f"{self._root}/{QUARANTINE}/{one.name}"
        self._call(self._fs.pipe_file, f"{target}.reason.txt", f"{reason}\n".encode())
        self._call(self._fs.mv, f"{self._root}/{one.name}", target)

    def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except FlowsightError:
            raise
        except FileNotFoundError:
            raise InputError(f"expected a drop folder at {self._url}, found none") from None
        except Exception as error:  # every file system of fsspec has errors of its own
            reason = " ".join(str(error).split())[:200]
            raise ResourceError(f"cannot reach {self._url}: {reason}") from None
