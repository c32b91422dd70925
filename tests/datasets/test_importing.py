"""Bringing data in: whole files, nothing overwritten, nothing from outside."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flowsight.datasets import importing
from flowsight.datasets.clips.manifest import write_manifest
from flowsight.datasets.importing import import_dataset, import_weights
from flowsight.errors import InputError, ResourceError
from flowsight.files import sha256

Ucf = Callable[..., Path]


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_copy_check_list_and_second_call(ucf: Ucf, tmp_path: Path) -> None:
    source, dest = ucf(groups=2), tmp_path / "data"
    fill(source, ".DS_Store", "truth/Jump/a.npz", "other/readme.txt")
    target = import_dataset("ucf101", source, dest)
    wanted = {n for n in listing(source) if not n.startswith((".", "other"))}
    assert target == dest / "ucf101"
    assert listing(target) == wanted
    lines = (dest / "ucf101.sha256").read_text().splitlines()
    assert {line.split("  ", 1)[1] for line in lines} == wanted
    times = {name: (target / name).stat().st_mtime_ns for name in wanted}
    import_dataset("ucf101", source, dest)
    assert {name: (target / name).stat().st_mtime_ns for name in wanted} == times
    assert (dest / "ucf101.sha256").read_text().splitlines() == lines
    if shutil.which("sha256sum"):
        check = ["sha256sum", "--quiet", "-c", "../ucf101.sha256"]
        subprocess.run(check, cwd=target, check=True)


def test_links_share_the_file(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", "videos/run/daria_run.avi")
    target = import_dataset("weizmann", source, tmp_path / "d", link=True)
    assert (target / "videos/run/daria_run.avi").samefile(source / "videos/run/daria_run.avi")


def test_other_names_of_the_same_folders(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", "UCF-101/Run/a.avi", "ucfTrainTestlist/classInd.txt")
    target = import_dataset("ucf101", source, tmp_path / "d")
    assert listing(target) == {"videos/Run/a.avi", "ucfTrainTestlist/classInd.txt"}


def test_family_of_another_name_and_plain_folders(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", "videos/run/lena_run.avi")
    assert import_dataset("mine", source, tmp_path / "d", family="weizmann").is_dir()
    plain = fill(tmp_path / "p", "run/a.mp4", "jump/b.mp4")
    assert listing(import_dataset("plain", plain, tmp_path / "d")) == {"run/a.mp4", "jump/b.mp4"}


def test_goes_on_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"run/clip{i}.avi" for i in range(6)]
    source = fill(tmp_path / "s", *names)
    copies: list[str] = []
    real = shutil.copyfile

    def fail_at_third(one: Path, other: Path) -> None:
        copies.append(Path(one).name)
        if len(copies) == 3:
            Path(other).write_text("half")
            raise KeyboardInterrupt
        real(one, other)

    monkeypatch.setattr(shutil, "copyfile", fail_at_third)
    with pytest.raises(KeyboardInterrupt):
        import_dataset("x", source, tmp_path / "d")
    assert listing(tmp_path / "d" / "x") == set(names[:2])
    import_dataset("x", source, tmp_path / "d")
    assert listing(tmp_path / "d" / "x") == set(names)
    assert len(copies) == 3 + 4  # what was there is not copied again


def test_raw_data_are_never_overwritten(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", "run/a.avi")
    target = import_dataset("x", source, tmp_path / "d")
    (source / "run/a.avi").write_text("another recording")
    with pytest.raises(InputError, match="differs"):
        import_dataset("x", source, tmp_path / "d")
    assert (target / "run/a.avi").read_text() == "content of run/a.avi"


def test_a_second_source_adds(tmp_path: Path) -> None:
    import_dataset("x", fill(tmp_path / "one", "run/a.avi"), tmp_path / "d")
    import_dataset("x", fill(tmp_path / "two", "run/b.avi"), tmp_path / "d")
    assert (tmp_path / "d/x.sha256").read_text().count("\n") == 2


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "/etc"])
def test_names_stay_below_the_destination(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected a name"):
        import_dataset(name, fill(tmp_path / "s", "run/a.avi"), tmp_path / "d")


def test_wrong_layouts_say_what_was_expected(tmp_path: Path) -> None:
    dest = tmp_path / "d"
    with pytest.raises(InputError, match=r"videos/, ucfTrainTestlist/ of ucf101.*found no"):
        import_dataset("ucf101", fill(tmp_path / "a", "videos/Run/a.avi"), dest)
    with pytest.raises(InputError, match="class folders"):
        import_dataset("weizmann", fill(tmp_path / "b", "videos/a.avi"), dest)
    with pytest.raises(InputError, match="no video in a folder"):
        import_dataset("mine", fill(tmp_path / "c", "readme.txt", "a.avi"), dest)
    with pytest.raises(InputError, match="nothing there"):
        import_dataset("mine", tmp_path / "nowhere", dest)
    with pytest.raises(InputError, match="unpack"):
        import_dataset("mine", fill(tmp_path / "e", "x.zip") / "x.zip", dest)
    with pytest.raises(InputError, match="family"):
        import_dataset("mine", tmp_path / "c", dest, family="kinetics")
    with pytest.raises(InputError, match="generated"):
        import_dataset("sample", tmp_path / "c", dest)
    with pytest.raises(InputError, match="outside"):
        import_dataset("d", tmp_path, tmp_path)
    assert not dest.exists()


def test_links_and_special_files(tmp_path: Path) -> None:
    source = fill(tmp_path / "s", "run/a.avi")
    secret = fill(tmp_path, "secret.avi") / "secret.avi"
    (source / "run/b.avi").symlink_to(secret)
    with pytest.raises(InputError, match="leads out"):
        import_dataset("x", source, tmp_path / "d")
    (source / "run/b.avi").unlink()
    (source / "walk").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads out"):
        import_dataset("x", source, tmp_path / "d")
    (source / "walk").unlink()
    os.mkfifo(source / "run/pipe.avi")
    with pytest.raises(InputError, match="plain file"):
        import_dataset("x", source, tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "s", "run/a.avi")
    full = shutil.disk_usage(tmp_path)._replace(free=3)
    monkeypatch.setattr(importing.shutil, "disk_usage", lambda _: full)
    with pytest.raises(ResourceError, match="space"):
        import_dataset("x", source, tmp_path / "d")
    assert import_dataset("x", source, tmp_path / "d", link=True).is_dir()


def test_weights(tmp_path: Path) -> None:
    source = fill(tmp_path, "net.pth") / "net.pth"
    target = import_weights(source, tmp_path / "w")
    assert (tmp_path / "w/net.pth.sha256").read_text() == f"{sha256(target)}  net.pth\n"
    assert import_weights(source, tmp_path / "w") == target
    with pytest.raises(InputError, match="file of weights"):
        import_weights(fill(tmp_path, "net.exe") / "net.exe", tmp_path / "w")
    with pytest.raises(InputError, match="file of weights"):
        import_weights(tmp_path / "none.pth", tmp_path / "w")


@pytest.mark.parametrize(("name", "videos"), [("ucf101", 44), ("weizmann", 90), ("hmdb51", 7)])
def test_real_sets_come_in_and_read(
    shared_data: Path, tmp_path: Path, name: str, videos: int
) -> None:
    target = import_dataset(name, shared_data / name, tmp_path / "raw")
    assert len(list(target.rglob("*.avi"))) == videos
    if name == "hmdb51":  # the smallest; the others are probed in test_manifest
        folders = [tmp_path / kind for kind in ("m", "s", "t")]
        write_manifest(target, *folders, adapter=name, shards=[0, 1], max_absent=1.0)
        assert len(list((tmp_path / "s").rglob("*.avi"))) == videos
