"""Two streams trained in turn, on two classes of sixteen tiny clips."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flowsight.classifiers.params import RowParams
from flowsight.errors import InputError
from flowsight.nn import checkpoint
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.systems.two_stream import alternation
from flowsight.systems.two_stream import network as two_stream
from flowsight.systems.two_stream.alternation import Partner, parts
from flowsight.systems.two_stream.maps import extraction
from flowsight.systems.two_stream.params import AlternationParams, FusionParams
from flowsight.training import loop, resume, schedule

ROOT = Path(__file__).resolve().parents[1]


def test_epochs_are_shared_out() -> None:
    assert parts(8, 4, "x") == [range(2), range(2, 4), range(4, 6), range(6, 8)]
    assert parts(5, 2, "x") == [range(2), range(2, 5)]
    assert parts(3, 1, "x") == [range(3)]
    with pytest.raises(InputError, match=r"rows\.x\.train\.epochs=2 and alternation\.rounds=3"):
        parts(2, 3, "x")


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Params:
    """The committed parameters with small rows that see each other's maps, two rounds."""
    monkeypatch.setenv("FLOWSIGHT_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv("FLOWSIGHT_MICRO_BATCH", raising=False)
    given = config.load(ROOT / "params.yaml")
    block = given.system("two_stream")

    def small(stream: str, maps: str) -> RowParams:
        row = block.rows[stream]
        length = 2 if stream == "temporal" else 1
        size = {"resize_px": 30, "crop_px": 24, "stack_length": length, "num_segments": 1}
        return dataclasses.replace(
            row,
            start=dataclasses.replace(row.start, maps=maps),
            input=dataclasses.replace(row.input, **size),
            train=dataclasses.replace(row.train, epochs=3, batch_size=8, samples_per_epoch=1),
        )

    small_block = dataclasses.replace(
        block,
        rows={"rgb": small("spatial", "flow"), "flow": small("temporal", "rgb")},
        attention=dataclasses.replace(block.attention, epochs=2, max_frames=2, num_pictures=1),
        alternation=AlternationParams(rounds=2),
        evaluate=dataclasses.replace(
            block.evaluate,
            headline=None,
            fusions={"turns": FusionParams(spatial="rgb", temporal="flow")},
        ),
    )
    return dataclasses.replace(given, systems={"two_stream": small_block}, threads=1)


def with_start(row: RowParams, **start: Any) -> RowParams:
    return dataclasses.replace(row, start=dataclasses.replace(row.start, **start))


def partner(name: str, toy: Any, params: Params, out: Path, **options: Any) -> Partner:
    return Partner(
        name=name,
        row=params.row(name),
        packs=toy.frames if name == "rgb" else toy.flow,
        checkpoint=out / "checkpoints" / name,
        history=out / "history" / f"{name}.csv",
        maps=out / "attention" / name,
        attention_network=out / "checkpoints" / f"attention-{name}",
        **{"log": lambda metrics, step: None, **options},
    )


def alternate(toy: Any, params: Params, out: Path, **options: Any) -> dict[str, bytes]:
    first, second = (partner(name, toy, params, out, **options) for name in ("rgb", "flow"))
    where = {"manifest": toy.manifest, "split": toy.split}
    alternation.alternate(first, second, params=params, scratch_key="alternate/key", **where)
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def by_hand(toy: Any, params: Params, out: Path) -> dict[str, bytes]:
    """Algorithm 1 written out: two rounds, the second of two epochs, the first of one."""
    common = {"manifest": toy.manifest, "split": toy.split}

    def train(name: str, step: int, part: range, before: int | None, maps: Path | None) -> None:
        row = params.row(name)
        state, history = loop.fit(
            model=two_stream,
            row=row if maps else with_start(row, maps=None),
            row_name=name,
            params=params,
            packs=toy.frames if name == "rgb" else toy.flow,
            scratch_key=f"by-hand/{name}",
            log=lambda metrics, step: None,
            init=None if before is None else out / f"{before}-{name}",
            maps=maps,
            part=part,
            **common,
        )
        resume.discard(f"by-hand/{name}")
        checkpoint.save(state, out / f"{step}-{name}" / "model.pt")
        schedule.write_history(history, out / f"{step}-{name}.csv")

    def explain(name: str, step: int, maps: Path | None) -> Path:
        extraction.extract(
            name=name,
            row=params.row(name),
            attention=params.system("two_stream").attention,
            packs=toy.frames if name == "rgb" else toy.flow,
            checkpoint=out / f"{step}-{name}",
            out=out / f"{step}-{name}-maps",
            network_out=out / f"{step}-{name}-network",
            seed=params.seed,
            threads=1,
            maps=maps,
            **common,
        )
        return out / f"{step}-{name}-maps"

    train("rgb", 1, range(1), None, None)
    spatial_maps = explain("rgb", 1, None)
    train("flow", 1, range(1), None, spatial_maps)
    temporal_maps = explain("flow", 1, spatial_maps)
    train("rgb", 2, range(1, 3), 1, temporal_maps)
    spatial_maps = explain("rgb", 2, temporal_maps)
    train("flow", 2, range(1, 3), 1, spatial_maps)
    explain("flow", 2, spatial_maps)
    return contents(out)


def test_is_the_algorithm_written_out(toy: Any, params: Params, tmp_path: Path) -> None:
    found = alternate(toy, params, tmp_path / "out")
    expected = by_hand(toy, params, tmp_path / "by-hand")
    for name in ("rgb", "flow"):
        model = found[f"checkpoints/{name}/model.pt"]
        assert model == expected[f"2-{name}/model.pt"] != expected[f"1-{name}/model.pt"]
        network = found[f"checkpoints/attention-{name}/model.pt"]
        assert network == expected[f"2-{name}-network/model.pt"]
        for clip_id in toy.clip_ids:
            maps = found[f"attention/{name}/{clip_id}.zip"]
            assert maps == expected[f"2-{name}-maps/{clip_id}.zip"]
        lines = found[f"history/{name}.csv"].decode().splitlines()
        assert [line.split(",")[0] for line in lines] == ["epoch", "1", "2", "3"]
        second = expected[f"2-{name}.csv"].decode().splitlines()
        assert lines[2:] == second[1:], "epochs go on counting, the schedule goes on"
    assert not (tmp_path / "scratch" / "alternate").exists(), "nothing is left over"


def test_a_kill_changes_no_byte_and_repeats_no_step(
    toy: Any, params: Params, tmp_path: Path
) -> None:
    steps: list[int] = []
    whole = alternate(toy, params, tmp_path / "whole", log=lambda metrics, step: steps.append(step))
    assert steps == [1, 1, 2, 3, 2, 3]
    seen: list[int] = []

    def dies(metrics: Any, step: int) -> None:
        seen.append(step)
        if len(seen) == 4:
            raise RuntimeError("as a kill between two epochs")

    with pytest.raises(RuntimeError, match="as a kill"):
        alternate(toy, params, tmp_path / "cut", log=dies)
    assert not (tmp_path / "cut").exists(), "no half result"
    assert alternate(toy, params, tmp_path / "cut", log=lambda m, step: seen.append(step)) == whole
    # what was logged before the kill, then the epoch that it lost and the rest
    assert seen == [1, 1, 2, 3, 3, 2, 3]


def test_rows_in_turn_are_checked(params: Params) -> None:
    block = params.system("two_stream")
    rgb, flow = block.rows["rgb"], block.rows["flow"]
    for wrong, says in (
        ({"rgb": rgb, "flow": with_start(flow, init="rgb")}, "trained in turn"),
        ({"rgb": with_start(rgb, map_control="shuffled"), "flow": flow}, "map_control"),
        ({"rgb": rgb, "flow": with_start(flow, maps=None)}, "goes on from no row"),
    ):
        with pytest.raises(ValueError, match=says):
            dataclasses.replace(block, rows=wrong)
