"""A small made-up world: every input of the evaluate and report stages, without any training.

Three kinds of clips that only motion, only appearance, or both tell apart, so that each stream is
wrong somewhere and fusing helps; predictions are drawn, not computed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from flowsight import reporting
from flowsight.contract import Folders
from flowsight.files import write_csv, write_json
from flowsight.flow.quantize import quantize
from flowsight.params import config
from flowsight.video import pack

REPOSITORY = Path(__file__).parents[2]
CLASSES = ("kick", "kick_ball", "pull", "push", "run", "walk", "wave", "wave_flag")
BOUND_PX = 20.0
CLIP_SYSTEMS = ("two_stream", "residual3d")
# pairs that a stream cannot tell apart: spatial looks at single frames, temporal at motion only
SPATIAL_TWINS = {"pull": "push", "push": "pull", "run": "walk", "walk": "run"}
TEMPORAL_TWINS = {"kick": "kick_ball", "kick_ball": "kick", "wave": "wave_flag",
                  "wave_flag": "wave"}  # fmt: skip


def make_params(classes: int, splits: tuple[str, ...], **evaluate: object) -> config.Params:
    """The committed parameters with other splits and other evaluation numbers."""
    params = config.load(REPOSITORY / "params.yaml")
    params = dataclasses.replace(params, splits=dataclasses.replace(params.splits, ids=splits))
    for system in CLIP_SYSTEMS:
        params = changed(params, system, evaluate=evaluate)
    return params


def changed(
    params: config.Params, system: str, *, evaluate: dict[str, object] | None = None, **own: object
) -> config.Params:
    """The parameters with other values in a system's block, and in its `evaluate`."""
    block = params.system(system)
    numbers = dataclasses.replace(block.evaluate, **evaluate or {})
    block = dataclasses.replace(block, evaluate=numbers, **own)
    return dataclasses.replace(params, systems={**params.systems, system: block})


def started(row: Any, **start: object) -> Any:
    """A row that starts in another way."""
    return dataclasses.replace(row, start=dataclasses.replace(row.start, **start))


def write_page(
    systems: Sequence[str],
    *,
    params: config.Params,
    results: Path,
    history: Path,
    out: Path,
    manifest: Path | None = None,
    validation: Path | None = None,
) -> str:
    """The page of some systems, as their stages write it: a part each, then all of them together.

    Without `validation` it shows no clips; `manifest` is for systems over clips.
    """
    params = dataclasses.replace(params, systems={name: params.system(name) for name in systems})
    parts = out.with_name(f"{out.name}-parts")
    for name in systems:
        folders = Folders(results=results / name, history=history)
        if manifest is not None:
            folders["manifest"] = manifest
        reporting.write_part(name, params, folders, parts / name)
    clips = {} if validation is None else {"manifest": manifest, "validation": validation}
    reporting.write_page(parts=parts, params=params, out=out, **clips)
    return (out / "index.html").read_text(encoding="utf-8")


def _scene(index: int, frame: int, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """A textured background with a moving figure: RGB frame, true mask, flow to the next frame."""
    width, height = size
    rng = np.random.default_rng(index)
    noise = cv2.resize(rng.integers(70, 170, (6, 8, 3), dtype=np.uint8), size,
                       interpolation=cv2.INTER_CUBIC)  # fmt: skip
    scale, velocity = height / 120, (2.0 + index % 3) * width / 160
    x = int(width * 0.25 + velocity * frame)
    mask = np.zeros((height, width), np.uint8)
    swing = np.sin(frame * 0.8 + index)
    for a, b, thick in (
        ((0, -34), (0, -34), 16), ((0, -22), (0, 8), 14),
        ((0, -18), (18 * swing, 2), 7), ((0, -18), (-18 * swing, 2), 7),
        ((0, 8), (14 * swing, 40), 8), ((0, 8), (-14 * swing, 40), 8),
    ):  # fmt: skip
        start = (int(x + a[0] * scale), int(height * 0.55 + a[1] * scale))
        end = (int(x + b[0] * scale), int(height * 0.55 + b[1] * scale))
        cv2.line(mask, start, end, 1, max(int(thick * scale), 1), cv2.LINE_8)
    image = np.where(mask[..., None] > 0, rng.integers(0, 255, 3, dtype=np.uint8), noise)
    flow = np.stack([mask * velocity, mask * 1.5 * swing]).astype(np.float32)
    return image.astype(np.uint8), mask > 0, flow


def _write_clip(root: Path, clip: str, index: int, shard: int, size: tuple[int, int]) -> None:
    num_frames = 8
    scenes = [_scene(index, t, size) for t in range(num_frames)]
    meta = {"num_frames": num_frames, "num_fields": num_frames - 1, "size": list(size)}
    images = [(pack.frame_name(t), pack.encode_jpeg(s[0], 95)) for t, s in enumerate(scenes)]
    pack.write_pack(root / f"frames/{shard}/{clip}.zip", images, meta)
    fields = []
    for t, (_, _, flow) in enumerate(scenes[:-1]):
        levels = quantize(flow, BOUND_PX)
        fields += [(n, pack.encode_jpeg(levels[i], 95)) for i, n in enumerate(pack.flow_names(t))]
    pack.write_pack(root / f"flow/{shard}/{clip}.zip", fields, meta | {"bound_px": BOUND_PX})
    (root / f"truth/{clip}.npz").parent.mkdir(parents=True, exist_ok=True)
    masks = np.stack([s[1] for s in scenes])
    np.savez_compressed(root / f"truth/{clip}.npz", masks=masks)
    for row, blur in (("spatial-1", 9), ("temporal-1", 5), ("spatial-2", 9), ("temporal-2", 5)):
        soft = [cv2.resize(cv2.GaussianBlur(m.astype(np.float32), (0, 0), blur * size[1] / 120),
                           (10, 8)) for m in masks]  # fmt: skip
        maps = np.stack([255 * m / max(m.max(), 1e-6) for m in soft]).astype(np.uint8)
        pack.write_maps(root / f"attention/{row}/{clip}.zip", maps, {})


def _write_predictions(root: Path, row: str, split_id: str, classes: tuple[str, ...]) -> None:
    split = pd.read_csv(root / f"splits/{split_id}.csv")
    split = split[split["subset"] != "train"]
    rng = np.random.default_rng([len(row), int(split_id), "attended" in row, "temporal" in row])
    twins = SPATIAL_TWINS if row.startswith("spatial") else TEMPORAL_TWINS
    labels = split["clip_id"].str.split("/").str[0]
    strength = 3.0 if "attended" in row else 2.2
    logits = rng.normal(0, 1, (len(split), len(classes)))
    for i, label in enumerate(labels):
        logits[i, classes.index(label)] += strength
        if twins.get(label) in classes:
            logits[i, classes.index(twins[label])] += strength
    table = pd.DataFrame({"clip_id": split["clip_id"], "subset": split["subset"], "label": labels})
    for k, name in enumerate(classes):
        table[f"logit_{name}"] = logits[:, k].astype(np.float32)
    path = root / f"predictions/{row}-{split_id}/predictions.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(path, index=False)


def _write_history(root: Path, row: str, split_id: str) -> None:
    rng = np.random.default_rng([len(row), int(split_id)])
    epochs = np.arange(1, 31)
    loss = 2.1 * np.exp(-epochs / 9) + 0.05
    table = pd.DataFrame(
        {
            "epoch": epochs,
            "lr": 0.003,
            "train_loss": loss + rng.normal(0, 0.03, 30),
            "train_accuracy": 1 - 0.42 * loss,
            "val_loss": loss + 0.35 + rng.normal(0, 0.08, 30),
            "val_accuracy": 0.85 - 0.36 * loss + rng.normal(0, 0.02, 30),
        }
    )
    write_csv(table, root / f"history/{row}-{split_id}.csv")


def _write_tables(root: Path, clips: list[str], classes: tuple[str, ...]) -> None:
    groups = [c.rsplit("_", 1)[-1][:3] for c in clips]
    manifest = pd.DataFrame(
        {
            "clip_id": clips,
            "label": [c.split("/")[0] for c in clips],
            "group": groups,
            "width": 160,
            "height": 120,
            "fps": 12.0,
            "num_frames": 8,
            "shard": [i % 2 for i in range(len(clips))],
        }
    )
    write_csv(manifest, root / "manifest/clips.csv")
    index = pd.DataFrame({"index": range(len(classes)), "label": classes})
    write_csv(index, root / "manifest/classes.csv")
    status = pd.DataFrame({"clip_id": clips, "status": "ok", "reason": ""})
    broken = pd.DataFrame(
        {
            "clip_id": [f"{classes[0]}/v_broken_g01_c09", f"{classes[1]}/v_empty_g02_c09"],
            "status": ["quarantined", "quarantined"],
            "reason": ["header promises 40 frames, 11 decode", "file of zero bytes"],
        }
    )
    status = pd.concat([status, broken])
    write_csv(status, root / "manifest/status.csv")
    write_csv(status, root / "validation/clips/status.csv")
    write_csv(pd.DataFrame({"clip_id": clips, "path": [f"{c}.npz" for c in clips]}),
              root / "truth/index.csv")  # fmt: skip
    for subject in ("manifest", "clips", "splits"):
        check = {"table": "clips", "says": "every clip stands once", "success": True,
                 "warning": False, "num_rows": len(clips), "num_failed": 0, "examples": [],
                 "observed": None}  # fmt: skip
        warned = check | {"says": "no two clips are the same file", "success": False,
                          "warning": True, "num_failed": 2,
                          "examples": [[clips[0]], [clips[1]]]}  # fmt: skip
        report = {"subject": subject, "success": True, "checks": [check, warned]}
        write_json(report, root / f"validation/{subject}/report.json")


def folders_of(root: Path) -> Folders:
    """What the systems over clips read of a world below `root`."""
    names = ("predictions", "attention", "manifest", "splits", "truth", "frames", "flow")
    folders = {name: root / name for name in names}
    return Folders(folders, status=root / "validation/clips/status.csv")


def make_world(
    root: Path,
    *,
    classes: tuple[str, ...] = CLASSES[:4],
    num_groups: int = 4,
    size: tuple[int, int] = (64, 48),
    splits: tuple[str, ...] = ("1", "2"),
    **evaluate: object,
) -> SimpleNamespace:
    """Write every input below `root`; group g01 validates, the last two groups test."""
    options: dict[str, object] = {"bootstrap_samples": 100, "num_overlays": 2}
    params = make_params(len(classes), splits, **(options | evaluate))
    clips = sorted(
        f"{c}/v_{c}_g{g:02}_c{k:02}" for c in classes for g in range(num_groups) for k in (1, 2)
    )
    clips = [c.replace("_c0", "c0") for c in clips]
    _write_tables(root, clips, classes)
    for i, clip in enumerate(clips):
        _write_clip(root, clip, i, i % 2, size)
    for number, split_id in enumerate(splits):
        group = [(int(c[-5:-3]) + number) % num_groups for c in clips]
        subset = ["test" if g >= num_groups - 2 else "val" if g == 1 else "train" for g in group]
        write_csv(pd.DataFrame({"clip_id": clips, "subset": subset}),
                  root / f"splits/{split_id}.csv")  # fmt: skip
        for row in (row for name in CLIP_SYSTEMS for row in params.system(name).rows):
            _write_predictions(root, row, split_id, classes)
            _write_history(root, row, split_id)
    return SimpleNamespace(
        root=root, params=params, folders=folders_of(root), clips=clips, classes=classes
    )


@pytest.fixture(scope="session")
def world_template(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The world as made once; tests that change something take `world`."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def make() -> Callable[..., SimpleNamespace]:
    """`make_world`, for a world of one's own."""
    return make_world


def read_json(path: Path) -> dict[str, float]:
    return json.loads(path.read_text(encoding="utf-8"))
