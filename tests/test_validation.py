"""The gates: what they refuse, how they say it, and that their reports repeat to the byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from flowsight.datasets import tables
from flowsight.datasets.clips import validation
from flowsight.errors import GateError, InputError
from flowsight.video.pack import write_pack

Edit = Callable[[pd.DataFrame], object]
SHARDS = (0, 1)


def digest(index: int) -> str:
    return f"{index:064x}"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two classes x four one-clip groups, one clip quarantined, one absent; packs and a split."""
    folder = tmp_path / "manifests/tiny"
    folder.mkdir(parents=True)
    names = [(label, i) for label in "ab" for i in range(4)]
    clips = pd.DataFrame(
        {
            "clip_id": [f"{label}/{i}" for label, i in names],
            "label": [label for label, _ in names],
            "group": [f"{label}/g{i}" for label, i in names],
            "path": [f"videos/{label}/{i}.avi" for label, i in names],
            "sha256": [digest(n) for n in range(8)],
            "width": 48,
            "height": 32,
            "fps": 12.5,
            "num_frames": 3,
            "num_frames_header": 4,
            "shard": [n % 2 for n in range(8)],
        }
    )
    status = pd.DataFrame({"clip_id": clips.clip_id, "status": "ok", "reason": ""})
    status.loc[8] = ["a/broken", "quarantined", "no frame decodes"]
    status.loc[9] = ["a/gone", "absent", "listed, but there is no such video"]
    subsets = ["test", "train", "train", "val"] * 2
    split = pd.DataFrame({"clip_id": clips.clip_id, "subset": subsets})
    official = split.assign(split_id="1", subset=split.subset.replace("val", "train"))
    write(clips, folder / "clips.csv")
    write(status, folder / "status.csv")
    write(pd.DataFrame({"index": [0, 1], "label": ["a", "b"]}), folder / "classes.csv")
    write(official[tables.OFFICIAL], folder / "official_splits.csv")
    write(split, tmp_path / "splits/tiny/1.csv")
    for stage, members in (("frames", frame_members(3)), ("flow", flow_members(2))):
        for shard in SHARDS:
            rows = clips[clips["shard"] == shard]
            table = rows[["clip_id"]].assign(status="ok", reason="")
            write(table, tmp_path / stage / f"tiny/{shard}/status.csv")
            for clip_id, sha in zip(rows.clip_id, rows.sha256, strict=True):
                path = tmp_path / stage / f"tiny/{shard}/{clip_id}.zip"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_pack(path, members, {"sha256": sha})
    return tmp_path


def frame_members(count: int) -> list[tuple[str, bytes]]:
    return [(f"img_{i + 1:05d}.jpg", b"jpeg") for i in range(count)]


def flow_members(count: int) -> list[tuple[str, bytes]]:
    return [(f"flow_{axis}_{i + 1:05d}.jpg", b"jpeg") for i in range(count) for axis in "xy"]


def write(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")


def edit(path: Path, change: Edit) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    changed = change(table)
    write(changed if isinstance(changed, pd.DataFrame) else table, path)


def check(root: Path, subject: str, **options: object) -> Path:
    """Run one gate on the data set and return the folder of its report."""
    manifest, out = root / "manifests/tiny", root / "validation" / subject
    values: dict[str, object] = {"data_docs": None}  # they cost more than all the rest
    if subject == "splits":
        values |= {"ids": ["1"]} | options
        validation.validate_splits(manifest, root / "splits/tiny", out, **values)  # type: ignore
        return out
    values |= {"max_quarantined": 0.2} | options
    if subject == "manifest":
        validation.validate_manifest(manifest, out, **values)  # type: ignore[arg-type]
    else:
        made = root / "frames/tiny", root / "flow/tiny"
        validation.validate_clips(manifest, *made, out, shards=SHARDS, **values)  # type: ignore
    return out


@pytest.mark.parametrize("subject", ["manifest", "clips", "splits"])
def test_good_tables_pass_quietly_with_the_same_bytes(
    dataset: Path, subject: str, capfd: pytest.CaptureFixture[str]
) -> None:
    out = check(dataset, subject, data_docs=dataset / "docs")
    first = (out / "report.json").read_bytes()
    report = json.loads(first)
    assert report["success"] is True
    assert report["subject"] == subject
    assert all(one["success"] and not one["num_failed"] for one in report["checks"])
    check(dataset, subject)
    assert (out / "report.json").read_bytes() == first
    assert str(dataset).encode() not in first
    assert capfd.readouterr() == ("", "")
    pages = list((dataset / "docs/tiny" / subject).rglob("validations/**/*.html"))
    assert (dataset / "docs/tiny" / subject / "index.html").is_file()
    assert len(pages) == len({one["table"] for one in report["checks"]})


def test_counts_and_merged_status(dataset: Path) -> None:
    report = json.loads((check(dataset, "clips") / "report.json").read_text())
    assert report["counts"] == {"ok": 8, "quarantined": 1, "absent": 1}
    edit(dataset / "flow/tiny/0/status.csv", lambda t: quarantine(t, 0, "too short"))
    out = check(dataset, "clips", max_quarantined=0.25)
    status = tables.read(out / "status.csv", tables.STATUS).set_index("clip_id")
    assert status.loc["a/0"].tolist() == ["quarantined", "flow: too short"]
    assert status.loc["a/broken"].tolist() == ["quarantined", "no frame decodes"]
    assert (status.status == "ok").sum() == 7
    counts = json.loads((check(dataset, "splits") / "report.json").read_text())["counts"]
    assert counts == {"1": {"test": 2, "train": 4, "val": 2}}


def quarantine(table: pd.DataFrame, row: int, reason: str) -> None:
    table.loc[row, ["status", "reason"]] = ["quarantined", reason]


def put(column: str, value: str, row: int = 0) -> Edit:
    def change(table: pd.DataFrame) -> None:
        table.loc[row, column] = value

    return change


def repeat(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[:1]])


MANIFEST_FAULTS: list[tuple[str, Edit, str, str]] = [
    ("clips.csv", repeat, "every clip stands once", "a/0"),
    ("clips.csv", put("label", "c"), "every label is a class", "a/0"),
    ("clips.csv", put("path", "../out.avi"), "every path stays below", "a/0"),
    ("clips.csv", put("num_frames", "0", 3), "a frame that decodes", "a/3"),
    ("clips.csv", put("width", "0"), "widths", "a/0"),
    ("clips.csv", put("height", "99999"), "heights", "a/0"),
    ("clips.csv", put("fps", "90000"), "frame rates", "a/0"),
    ("clips.csv", put("sha256", "abc"), "has its sha256", "a/0"),
    ("status.csv", put("status", "fine"), "a status is ok", "a/0 | fine"),
    ("status.csv", repeat, "every clip has one status", "a/0 | ok"),
    ("status.csv", put("reason", "", 8), "all others say a reason", "a/broken"),
    ("official_splits.csv", repeat, "once in an official split", "1 | a/0"),
    ("official_splits.csv", put("subset", "val"), "official subsets", "1 | a/0"),
    ("official_splits.csv", put("clip_id", "a/x"), "every listed clip has a status", "1 | a/x"),
]


@pytest.mark.parametrize(("name", "change", "says", "row"), MANIFEST_FAULTS)
def test_manifest_faults_name_their_rows(
    dataset: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: Edit,
    says: str,
    row: str,
) -> None:
    edit(dataset / "manifests/tiny" / name, change)
    with pytest.raises(GateError) as caught:
        check(dataset, "manifest")
    assert "\n" not in str(caught.value)
    lines = capsys.readouterr().err.splitlines()
    (place,) = [i for i, line in enumerate(lines) if says in line and line.startswith("failed")]
    assert row in lines[place + 1]
    assert not (dataset / "validation/manifest").exists()


def test_a_failed_gate_points_at_its_docs(dataset: Path) -> None:
    edit(dataset / "manifests/tiny/clips.csv", repeat)
    with pytest.raises(GateError, match=r"see .*/docs/tiny/manifest/index\.html"):
        check(dataset, "manifest", data_docs=dataset / "docs")
    assert (dataset / "docs/tiny/manifest/index.html").is_file()


def test_too_many_quarantined_are_named(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(dataset, "manifest", max_quarantined=1 / 9)  # absent clips do not count
    with pytest.raises(GateError, match=r"at most 0\.1 of the clips found are quarantined"):
        check(dataset, "manifest", max_quarantined=0.1)
    err = capsys.readouterr().err
    assert "observed 0.1111" in err
    assert "a/broken | quarantined | no frame decodes" in err


def test_passed_does_not_change_with_the_clips(dataset: Path) -> None:
    folder = check(dataset, "manifest")
    passed, report = (folder / "passed.json").read_text(), (folder / "report.json").read_text()
    edit(dataset / "manifests/tiny/status.csv", lambda table: table[table.status != "absent"])
    edit(dataset / "manifests/tiny/official_splits.csv", lambda table: table.iloc[1:])
    check(dataset, "manifest")
    assert (folder / "passed.json").read_text() == passed == '{\n  "passed": "manifest"\n}\n'
    assert (folder / "report.json").read_text() != report


def test_equal_files_are_a_warning(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(dataset / "manifests/tiny/clips.csv", put("sha256", digest(1)))
    report = json.loads((check(dataset, "manifest") / "report.json").read_text())
    (found,) = [one for one in report["checks"] if not one["success"]]
    assert found["warning"] is True
    assert found["examples"] == [["a/0"], ["a/1"]]
    assert capsys.readouterr().err.startswith("warning: clips: expected that no two clips")


def test_only_the_first_rows_are_named(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def all_flat(table: pd.DataFrame) -> None:
        table["width"] = "0"

    edit(dataset / "manifests/tiny/clips.csv", all_flat)
    with pytest.raises(GateError):
        check(dataset, "manifest")
    assert "8 of 8 rows:" in (err := capsys.readouterr().err)
    assert "and 3 more" in err


def test_a_failed_gate_leaves_the_last_report(dataset: Path) -> None:
    out = check(dataset, "manifest")
    before = (out / "report.json").read_bytes()
    edit(dataset / "manifests/tiny/clips.csv", repeat)
    with pytest.raises(GateError):
        check(dataset, "manifest")
    assert (out / "report.json").read_bytes() == before


def remake(root: Path, stage: str, members: list[tuple[str, bytes]], sha: str) -> None:
    write_pack(root / stage / "tiny/0/a/0.zip", members, {"sha256": sha})


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda root: (root / "flow/tiny/0/a/0.zip").unlink(), "there and whole"),
        (lambda root: (root / "flow/tiny/0/a/0.zip").write_bytes(b"PK"), "there and whole"),
        (lambda root: remake(root, "frames", frame_members(2), digest(0)), "manifest's number"),
        (lambda root: remake(root, "flow", flow_members(3), digest(0)), "one field less"),
        (lambda root: remake(root, "flow", flow_members(2)[:-1], digest(0)), "u without v"),
        (lambda root: remake(root, "flow", flow_members(2), digest(5)), "manifest's video"),
        (
            lambda root: edit(root / "frames/tiny/0/status.csv", lambda t: t.iloc[1:]),
            "a status is ok, quarantined or absent",
        ),
    ],
)
def test_clips_faults(
    dataset: Path,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[Path], object],
    says: str,
) -> None:
    break_it(dataset)
    with pytest.raises(GateError):
        check(dataset, "clips")
    err = capsys.readouterr().err
    assert says in err
    assert "  a/0 | " in err


def test_leftover_shards_do_not_count(dataset: Path) -> None:
    write(
        pd.DataFrame([["a/0", "quarantined", "old"]], columns=tables.STATUS),
        dataset / "flow/tiny/7/status.csv",
    )
    assert "old" not in (check(dataset, "clips") / "status.csv").read_text()
    (dataset / "flow/tiny/1/status.csv").unlink()
    with pytest.raises(InputError, match=r"flow/tiny/1/status\.csv"):
        check(dataset, "clips")


@pytest.mark.parametrize(
    ("change", "says", "row"),
    [
        (repeat, "a clip stands once in a split", "1 | a/0"),
        (put("clip_id", "a/x"), "every clip stands in the manifest", "1 | a/x"),
        (put("subset", "dev"), "subsets are train, val and test", "1 | a/0"),
        (put("subset", "train"), "test is the official test set", "1 | a/0"),
        (lambda t: t[~t.clip_id.isin(["b/1", "b/2"])], "every class has a training clip", "1 | b"),
        (lambda t: t[t.subset != "test"], "a split has test clips", "1"),
        (lambda t: t[t.clip_id.str.startswith("a")], "a split has the manifest's classes", "1"),
    ],
)
def test_splits_faults(
    dataset: Path, capsys: pytest.CaptureFixture[str], change: Edit, says: str, row: str
) -> None:
    edit(dataset / "splits/tiny/1.csv", change)
    with pytest.raises(GateError):
        check(dataset, "splits")
    lines = capsys.readouterr().err.splitlines()
    (place,) = [i for i, line in enumerate(lines) if says in line]
    assert lines[place + 1] == f"  {row}"


def test_a_group_on_two_sides(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(dataset / "manifests/tiny/clips.csv", put("group", "a/g1"))
    with pytest.raises(GateError, match="no group is on two sides"):
        check(dataset, "splits")
    assert "  1 | a/g1" in capsys.readouterr().err


def test_broken_tables_are_input_errors(dataset: Path) -> None:
    edit(dataset / "manifests/tiny/clips.csv", put("num_frames", "many"))
    with pytest.raises(InputError, match="expected numbers"):
        check(dataset, "manifest")
    edit(dataset / "manifests/tiny/clips.csv", lambda t: t.drop(columns="sha256"))
    with pytest.raises(InputError, match="expected columns"):
        check(dataset, "manifest")
    (dataset / "manifests/tiny/clips.csv").write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match="CSV table"):
        check(dataset, "manifest")
