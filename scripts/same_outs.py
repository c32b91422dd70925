"""Are the outputs of two runs the same? python scripts/same_outs.py OLD.lock NEW.lock [OLD=NEW ...]

Compares the hash of every output in two `dvc.lock` files, by path; OLD=NEW says that what was at
one path is now at another (a prefix will do: predictions/a=predictions/b), also a file that is now
in a folder, of which DVC's cache beside the new lock has the list. `*` stands for a name:
predictions/*.csv=predictions/*/all.csv. Prints what differs, what is only on one side, and a line
with the counts; exit 0: all that both have is the same and nothing of the old one is missing.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ruamel.yaml import YAML


def outs(path: Path) -> dict[str, str]:
    """Path -> hash of every output of a lock."""
    lock = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    found = [out for stage in lock["stages"].values() for out in stage.get("outs", [])]
    return {out["path"]: out["md5"] for out in found if "md5" in out}


def renamed(path: str, moves: Mapping[str, str]) -> str:
    """The path after the moves; the longest prefix that fits counts."""
    for old in sorted(moves, key=len, reverse=True):
        pattern = re.escape(old).replace(r"\*", "([^/]+)")
        if found := re.match(rf"{pattern}(?=/|$)", path):
            new = moves[old]
            for name in found.groups():
                new = new.replace("*", name, 1)
            return new + path[found.end() :]
    return path


def inside(folders: Mapping[str, str], path: str, cache: Path) -> str | None:
    """Hash of a file in an output that is a folder, by the folder's list in DVC's cache."""
    for parent in Path(path).parents:
        md5 = folders.get(parent.as_posix(), "")
        listed = cache / md5[:2] / md5[2:]
        if md5.endswith(".dir") and listed.is_file():
            files = {e["relpath"]: e["md5"] for e in json.loads(listed.read_text(encoding="utf-8"))}
            return files.get(Path(path).relative_to(parent).as_posix())
    return None


def main(arguments: Sequence[str]) -> int:
    """Compare and say so."""
    if len(arguments) < 2 or not all("=" in move for move in arguments[2:]):
        print(__doc__, file=sys.stderr)
        return 2
    moves = dict(move.split("=", 1) for move in arguments[2:])
    old = {renamed(path, moves): md5 for path, md5 in outs(Path(arguments[0])).items()}
    new = outs(Path(arguments[1]))
    cache = Path(arguments[1]).parent / ".dvc/cache/files/md5"
    for path in old.keys() - new.keys():
        if md5 := inside(new, path, cache):
            new[path] = md5
    both = sorted(old.keys() & new.keys())
    differs = [path for path in both if old[path] != new[path]]
    gone = sorted(old.keys() - new.keys())
    for kind, paths in (
        ("differs", differs),
        ("only old", gone),
        ("only new", sorted(new.keys() - old.keys())),
    ):
        for path in paths:
            print(f"{kind}: {path}")
    print(f"{len(both) - len(differs)} of {len(old)} outputs are the same")
    return 1 if differs or gone else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
