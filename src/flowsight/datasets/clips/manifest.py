"""From a data set's folder to the manifest, the shards' folders and the ground truth.

Every listed or found clip ends in the status table: ok, quarantined with a reason, or absent.
Nothing here hangs on clocks, the order of a directory or the number of threads.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import files
from flowsight.datasets import tables
from flowsight.datasets.layout import check_inside
from flowsight.errors import InputError
from flowsight.progress import track

if TYPE_CHECKING:
    import pandas as pd

ADAPTERS = ("ucf101", "hmdb51", "weizmann", "actors", "folder")


def shard_of(clip_id: str, shards: Sequence[int]) -> int:
    """The shard a clip belongs to, whatever other clips there are: crc32 of its id."""
    return shards[zlib.crc32(clip_id.encode("utf-8")) % len(shards)]


def write_manifest(
    raw: Path,
    out: Path,
    shards_dir: Path,
    truth_dir: Path,
    *,
    adapter: str,
    shards: Sequence[int],
    max_absent: float,
    threads: int = 2,
) -> None:
    """Probe a data set and write its manifest, shards and ground truth; all of them or none.

    Args:
        raw: the data set, never changed.
        out: gets `clips.csv`, `status.csv`, `classes.csv` and `official_splits.csv`.
        shards_dir: gets `<k>/clips.csv` and `<k>/videos/<path>` for every k, hard links if it can.
        truth_dir: gets `index.csv` and `<clip_id>.npz` for clips with `<raw>/truth/<clip_id>.npz`;
            where there are none and the adapter can do something instead, that, and
            `stand_in.json`, which says what it is.
        adapter: module of `flowsight.datasets` that knows the layout.
        shards: names of the shards.
        max_absent: share of listed clips, and of classes, that may have no video.
        threads: videos probed side by side.

    Raises:
        InputError: no data, unknown names, too much absent, or no clip that decodes.
    """
    module = load_adapter(adapter)
    _check_raw(raw, adapter)
    found = module.find_clips(raw)
    if found.empty:
        raise InputError(
            f"expected videos in {raw} laid out as {adapter} has them, found none; "
            f"run `flowsight import {raw.name} SOURCE`"
        )
    official = module.official_splits(raw, found)
    _check_absent(found, official, raw, max_absent)
    probed = _probe_all(raw, found, threads)
    clips = _clip_table(probed, shards)
    classes = _class_table(module.classes(raw), clips, raw, max_absent)
    with ExitStack() as stack:
        made = [stack.enter_context(files.atomic_dir(p)) for p in (out, shards_dir, truth_dir)]
        files.write_csv(clips, made[0] / "clips.csv")
        files.write_csv(_status_table(probed, official), made[0] / "status.csv")
        files.write_csv(classes, made[0] / "classes.csv")
        files.write_csv(official, made[0] / "official_splits.csv")
        _write_shards(raw, clips, made[1], shards)
        _write_truth(raw, clips, made[2], module)


def load_adapter(name: str) -> Any:
    """The module with `classes`, `find_clips` and `official_splits`.

    Raises:
        InputError: an unknown name.
    """
    if name not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise InputError(f"expected dataset.adapter to be one of {known}; got {name!r}")
    return importlib.import_module(f"flowsight.datasets.clips.adapters.{name}")


def _check_raw(raw: Path, adapter: str) -> None:
    if raw.is_dir():
        return
    command = "dvc repro sample" if raw.name == "sample" else f"flowsight import {raw.name} SOURCE"
    raise InputError(f"expected the {adapter} data set in {raw}, found no folder; run `{command}`")


def _some(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def _check_absent(
    found: pd.DataFrame, official: pd.DataFrame, raw: Path, max_absent: float
) -> None:
    listed = set(official.clip_id)
    absent = sorted(listed.difference(found.clip_id))
    if not absent:
        return
    text = f"{len(absent)} of {len(listed)} listed clips absent in {raw} ({_some(absent)})"
    if len(absent) > max_absent * len(listed):
        raise InputError(
            f"expected at most {max_absent:g} of the listed clips to be absent, got {text}; "
            "import the missing clips or raise dataset.max_absent"
        )
    print(f"warning: {text}; going on without them", file=sys.stderr)


def _probe_all(raw: Path, found: pd.DataFrame, threads: int) -> list[dict[str, Any]]:
    rows = found.to_dict("records")
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        results = pool.map(lambda row: {**row, **_probe(raw / row["path"])}, rows)
        return list(track(results, "probing videos", total=len(rows)))


def _probe(path: Path) -> dict[str, Any]:
    from flowsight.video.probe import UnreadableVideo, probe

    try:
        info = probe(path)
    except UnreadableVideo as error:
        return {"status": "quarantined", "reason": " ".join(error.reason.split())}
    except PermissionError:
        return {"status": "quarantined", "reason": "not allowed to read the file"}
    return {
        "status": "ok",
        "reason": "",
        "sha256": files.sha256(path),
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "num_frames": info.num_frames,
        "num_frames_header": info.num_frames_header,
    }


def _clip_table(probed: list[dict[str, Any]], shards: Sequence[int]) -> pd.DataFrame:
    import pandas as pd

    rows = [{**r, "shard": shard_of(r["clip_id"], shards)} for r in probed if r["status"] == "ok"]
    return pd.DataFrame(rows, columns=tables.CLIPS).sort_values("clip_id", ignore_index=True)


def _status_table(probed: list[dict[str, Any]], official: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    rows = [[row["clip_id"], row["status"], row["reason"]] for row in probed]
    absent = set(official.clip_id).difference(row["clip_id"] for row in probed)
    rows += [[clip_id, "absent", "listed, but there is no such video"] for clip_id in absent]
    return pd.DataFrame(sorted(rows), columns=tables.STATUS)


def _class_table(
    names: list[str], clips: pd.DataFrame, raw: Path, max_absent: float
) -> pd.DataFrame:
    import pandas as pd

    present = set(clips.label)
    kept = [name for name in names if name in present]
    empty = [name for name in names if name not in present]
    text = f"{len(empty)} of {len(names)} classes without a readable clip in {raw}"
    if not kept or len(empty) > max_absent * len(names):
        raise InputError(
            f"expected readable clips of every class, got {text} ({_some(empty)}); import the "
            "missing clips or raise dataset.max_absent, which drops such classes"
        )
    if empty:
        print(f"warning: {text} ({_some(empty)}); classes dropped", file=sys.stderr)
    return pd.DataFrame({"index": range(len(kept)), "label": kept})


def _write_shards(raw: Path, clips: pd.DataFrame, out: Path, shards: Sequence[int]) -> None:
    for shard in shards:
        rows = clips[clips["shard"] == shard]
        folder = out / str(shard)
        (folder / "videos").mkdir(parents=True)
        files.write_csv(rows, folder / "clips.csv")
        for path in rows.path:
            link_or_copy(check_inside(raw / path, raw), folder / "videos" / path)


def _write_truth(raw: Path, clips: pd.DataFrame, out: Path, module: Any) -> None:
    """Links to the truth beside the videos; where nobody drew any, an adapter's stand-in."""
    import pandas as pd

    paths = {clip_id: raw / "truth" / f"{clip_id}.npz" for clip_id in clips.clip_id}
    given = [clip_id for clip_id, path in paths.items() if path.is_file()]
    for clip_id in given:
        link_or_copy(check_inside(paths[clip_id], raw), out / f"{clip_id}.npz")
    if not given and hasattr(module, "STAND_IN"):
        given = list(clips.clip_id)
        for clip_id, path in zip(track(given, "masks"), clips.path, strict=True):
            module.write_stand_in(raw / path, out / f"{clip_id}.npz")
        files.write_json({"masks": module.STAND_IN}, out / "stand_in.json")
    rows = [(clip_id, f"{clip_id}.npz") for clip_id in given]
    files.write_csv(pd.DataFrame(rows, columns=["clip_id", "path"]), out / "index.csv")


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where that cannot be (other device, foreign owner)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
