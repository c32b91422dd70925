"""`flowsight import`: bring a data set, or a file of weights, to where stages look for it.

Files are copied one by one and appear whole, so an interrupted import goes on where it was, and a
second one changes nothing. `<name>.sha256` beside the folder lists what came in; `sha256sum -c`
reads it (in the folder). Nothing is ever overwritten: raw data do not change under a name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from flowsight import files
from flowsight.datasets.layout import VIDEO_SUFFIXES, check_inside, check_name, visible
from flowsight.errors import InputError, ResourceError
from flowsight.progress import track

MAX_FILES = 2_000_000
WEIGHTS_SUFFIXES = (".pth", ".pt", ".onnx", ".safetensors", ".npz", ".bin")

# family -> folder of the data set -> names it has in the copies people have
LAYOUTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "ucf101": {"videos": ("videos", "UCF-101"), "ucfTrainTestlist": ("ucfTrainTestlist",)},
    "hmdb51": {
        "videos": ("videos", "hmdb51_org", "hmdb51"),
        "testTrainMulti_7030_splits": ("testTrainMulti_7030_splits",),
    },
    "weizmann": {"videos": ("videos",)},
    "cdnet2012": {"baseline": ("baseline", "dataset/baseline")},
    "ecssd": {"images": ("images",), "ground_truth_mask": ("ground_truth_mask",)},
    "dut_omron": {
        "images": ("images", "DUT-OMRON-image"),
        "ground_truth_mask": ("ground_truth_mask", "pixelwiseGT-new-PNG"),
    },
    "msra10k": {"Imgs": ("Imgs", "MSRA10K_Imgs_GT/Imgs")},
}
# what else these families have; taken along where it is there
OPTIONAL = {
    "cdnet2012": (
        "badWeather",
        "cameraJitter",
        "dynamicBackground",
        "intermittentObjectMotion",
        "shadow",
        "thermal",
    ),
}


def import_dataset(
    name: str,
    source: Path | str,
    dest: Path | str = "data/raw",
    *,
    link: bool = False,
    family: str | None = None,
) -> Path:
    """Copy or hard-link a data set's folder to `dest/name`.

    Args:
        name: name of the data set (`dataset.name`).
        source: the folder as its owners lay it out.
        dest: where data sets live.
        link: hard-link where that can be done; else copy.
        family: layout; by default the name if it is one, else any `<class>/<clip>` folder.

    Returns:
        The folder that was filled.

    Raises:
        InputError: wrong name, wrong layout, links out of the source, or files that differ from
            those already there.
        ResourceError: not enough space.
    """
    source, dest = Path(source), Path(dest)
    _check_source(name, source, dest / name)
    wanted = dict(_wanted_files(source, family or (name if name in LAYOUTS else "folder")))
    missing = [path for relative, path in wanted.items() if not (dest / name / relative).exists()]
    _check_space(missing, dest, link)
    sums = _read_sums(dest / f"{name}.sha256")
    for relative, path in track(sorted(wanted.items()), f"importing {name}"):
        sums[relative] = _bring(path, dest / name / relative, link)
    _write_sums(dest / f"{name}.sha256", sums)
    return dest / name


def import_weights(
    source: Path | str, dest: Path | str = "data/weights", *, link: bool = False
) -> Path:
    """Copy or hard-link a file of weights to `dest`, under its own name.

    Raises:
        InputError: no such file, not weights by its suffix, or another file of this name is there.
        ResourceError: not enough space.
    """
    source, dest = Path(source), Path(dest)
    if not source.is_file() or source.suffix.lower() not in WEIGHTS_SUFFIXES:
        raise InputError(f"expected a file of weights ({'|'.join(WEIGHTS_SUFFIXES)}), got {source}")
    target = dest / check_name(source.name, source.parent)
    _check_space([] if target.exists() else [source], dest, link)
    digest = _bring(source.resolve(), target, link)
    _write_sums(dest / f"{target.name}.sha256", {target.name: digest})
    return target


def _check_source(name: str, source: Path, target: Path) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(f"expected a name of letters, digits, `_`, `.` and `-`, got {name!r}")
    if name.startswith("sample"):
        raise InputError(f"{name!r} is generated, not imported; run `dvc repro sample`")
    if source.is_file():
        raise InputError(
            f"expected a folder, got the file {source}; unpack an archive first, and bring weights "
            "with `flowsight import weights FILE`"
        )
    if not source.is_dir():
        raise InputError(f"expected the folder of a data set at {source}, found nothing there")
    one, other = source.resolve(), target.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise InputError(f"expected a source outside {target}, got {source}")


def _wanted_files(source: Path, family: str) -> Iterator[tuple[str, Path]]:
    """(path below the data set's folder, file) of everything that belongs to the data set."""
    if family == "folder":
        found = list(_files_below(source, source, ""))
        if not any("/" in name and path.suffix.lower() in VIDEO_SUFFIXES for name, path in found):
            raise InputError(f"expected <class>/<clip>.avi in {source}, found no video in a folder")
        yield from found
        return
    if family not in LAYOUTS:
        raise InputError(f"expected a family among {', '.join(LAYOUTS)}, folder; got {family!r}")
    layout = LAYOUTS[family]
    for canonical, names in layout.items():
        folder = next((source / name for name in names if (source / name).is_dir()), None)
        if folder is None:
            shape = ", ".join(f"{key}/" for key in layout)
            raise InputError(
                f"expected {shape} of {family} in {source}, found no {' or '.join(names)} but "
                f"{', '.join(p.name for p in visible(source)[:5]) or 'nothing'}; give the folder "
                "that holds them"
            )
        if canonical == "videos" and not any(path.is_dir() for path in visible(folder)):
            raise InputError(f"expected class folders <class>/<clip>.avi in {folder}, found none")
        yield from _files_below(folder, source, canonical)
    for extra in (*OPTIONAL.get(family, ()), "truth"):
        for folder in (source / extra, source / "dataset" / extra):
            if folder.is_dir():
                yield from _files_below(folder, source, extra)


def _files_below(folder: Path, source: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    count = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*folders, *names]:
            if not name.startswith("."):
                check_name(name, parent)
        for name in folders:
            if (Path(parent) / name).is_symlink():
                check_inside(Path(parent) / name, source)
                raise InputError(f"expected a folder, got a link to one: {Path(parent) / name}")
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(parent) / name
            resolved = check_inside(path, source)
            if not resolved.is_file():
                raise InputError(f"expected a plain file, got something else: {path}; remove it")
            count += 1
            if count > MAX_FILES:
                raise InputError(f"expected at most {MAX_FILES} files in {folder}, found more")
            yield (prefix / path.relative_to(folder)).as_posix(), resolved


def _check_space(missing: list[Path], dest: Path, link: bool) -> None:
    dest.mkdir(parents=True, exist_ok=True)
    stats = [path.stat() for path in missing]
    device = dest.stat().st_dev
    need = sum(stat.st_size for stat in stats if not (link and stat.st_dev == device))
    free = shutil.disk_usage(dest).free
    if need > free:
        raise ResourceError(
            f"expected {need / 2**20:.0f} MiB of space in {dest}, found {free / 2**20:.0f} MiB; "
            "free some, or link from the same file system instead of copying"
        )


def _read_sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = (line.partition("  ") for line in path.read_text(encoding="utf-8").splitlines())
    return {relative: digest for digest, _, relative in pairs}


def _write_sums(path: Path, sums: Mapping[str, str]) -> None:
    text = "".join(f"{digest}  {relative}\n" for relative, digest in sorted(sums.items()))
    with files.atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _bring(source: Path, target: Path, link: bool) -> str:
    """Make `target` the same file as `source`, unless it is already; return its sha256."""
    digest = files.sha256(source)
    if target.exists():
        if not target.samefile(source) and files.sha256(target) != digest:
            raise InputError(
                f"expected {target} to hold what {source} holds, but it differs; raw data are "
                "never overwritten: remove it or import under another name"
            )
        return digest
    target.parent.mkdir(parents=True, exist_ok=True)
    if link and _linked(source, target):
        return digest
    with files.atomic_file(target) as temporary:
        shutil.copyfile(source, temporary)
        if files.sha256(temporary) != digest:
            raise ResourceError(f"{source} came out different in {target}; run the import again")
    return digest


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another device, or a file of somebody else
        return False
    return True
