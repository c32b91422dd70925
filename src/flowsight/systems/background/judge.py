"""Frames of static cameras: F-measure, the mean over videos. See `Subject` for what is here.

The items are the frames of each video's second half of the truth, which no network has seen; of a
video that a split trains on, the first half trains, by design. So what counts as learnt from is: a
frame of a second half that trained, by its name; or one whose content trained under another video's
name. That the first half of the same video trained is no leakage here: numbers of seen scenes say
how well a network watches a camera that it was made for, and those of unseen scenes stand in
`results/background`. First halves of unseen scenes are left aside, so that all videos are scored on
the same part.
"""

from __future__ import annotations

import base64
import binascii
import io
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import files
from flowsight.errors import InputError
from flowsight.params.config import Params
from flowsight.registry import model_answers
from flowsight.registry.subject import Kind
from flowsight.systems.background import serve as serving
from flowsight.systems.background.params import SYSTEM

if TYPE_CHECKING:
    import pandas as pd

    from flowsight.datasets.scenes.videos import Video
    from flowsight.registry.evidence import Evidence
    from flowsight.registry.store import Registry

KIND = Kind(
    measure="f_measure",
    title="F-measure",
    items="frames",
    units="blocks",
    tagged=("f_measure", "recall", "precision"),
    kept=("f_measure", "recall", "precision"),
)
LEFT_ASIDE = "unseen"
"""Subset of the first half of a video that did not train."""


def reads(system: str, params: Params) -> list[str]:
    """Checkpoints, counts of every frame, results."""
    block = params.system(SYSTEM)
    rows = [f"{row}-{split}" for row in block.rows for split in params.scenes.splits]
    return [
        *(f"checkpoints/{params.scenes.name}/{row}" for row in rows),
        *(f"predictions/{system}/{params.scenes.name}/{row}" for row in rows),
        f"results/{system}",
    ]


def raw(params: Params) -> list[str]:
    """The videos, for their hashes."""
    return [f"data/raw/{params.scenes.name}"]


def inputs(params: Params) -> dict[str, str]:
    """Splits are parameters, and there is no manifest."""
    return {}


def quality(root: Path, params: Params) -> dict[str, str]:
    """No frame is ever put aside: the stages refuse a video with one that is missing or broken."""
    num_frames = sum(len(video) for video in _videos(root, params))
    return {
        "data_gate": "passed",
        "quarantine_share": "0.000000",
        "num_frames": str(num_frames),
    }


def _videos(root: Path, params: Params) -> list[Video]:
    from flowsight.datasets.scenes import videos as background

    return background.open_videos(root / "data/raw" / params.scenes.name, params.scenes.videos)


def per_split(results: Path) -> pd.DataFrame:
    """Row and split -> means over the videos that it saw, on their second halves."""
    import pandas as pd

    table = pd.read_csv(results / "per_video.csv", dtype={"split_id": str})
    own = table[table["seen"].astype(bool) & (table["part"] == "second_half")]
    own = own.rename(columns={"method": "row"}).dropna(subset=["split_id"])  # peers have none
    return own.groupby(["row", "split_id"], sort=False)[list(KIND.kept)].mean().reset_index()


def items(root: Path, params: Params, split: str) -> pd.DataFrame:
    """Every scored frame with the hashes of picture and truth; its group is the video."""
    import pandas as pd

    base = root / "data/raw" / params.scenes.name
    trained_on = params.scenes.trained_on(split)
    rows = [row for video in _videos(root, params) for row in _frames(video, base, trained_on)]
    return pd.DataFrame(rows)


def _frames(video: Video, base: Path, trained_on: tuple[str, ...]) -> Iterator[dict[str, str]]:
    first = video.halves()[0]
    before = "train" if video.video_id in trained_on else LEFT_ASIDE
    for index in video.temporal_roi:
        path, truth = video.frames[index], video.truths[index]
        yield {
            "item_id": video.item_id(index),
            "subset": before if index in first else "test",
            "group": video.video_id,
            "path": path.relative_to(base.resolve()).as_posix(),
            "sha256": files.sha256(path),
            "truth": truth.relative_to(base.resolve()).as_posix(),
            "truth_sha256": files.sha256(truth),
        }


def scores(root: Path, bundle: Mapping[str, Any]) -> pd.DataFrame:
    """Second halves of what `predict` counted."""

    from flowsight.params.config import load
    from flowsight.systems.background import counts as scene_counts

    params = load(root / "params.yaml")
    name = f"{bundle['row']}-{bundle['split']}"
    folder = root / f"predictions/{bundle['system']}/{bundle['dataset']}/{name}"
    videos = _videos(root, params)
    second = [video.item_id(index) for video in videos for index in video.halves()[1]]
    table: pd.DataFrame = scene_counts.read(folder, videos)
    return scored(table[table["item_id"].isin(second)]).reset_index(drop=True)


def scored(counts: pd.DataFrame) -> pd.DataFrame:
    """Counts of frames as scores with weights.

    Args:
        counts: item_id, tp, fp, fn, tn.

    Returns:
        These, group (the video), weight = 2 tp + fp + fn, and score = 2 tp / weight: the weighted
        mean of any frames is the F-measure of their summed counts. Where nothing moves and nothing
        was found, the weight is 0 and the score 1.
    """
    weight = (2 * counts["tp"] + counts["fp"] + counts["fn"]).astype(float)
    score = (2 * counts["tp"] / weight.where(weight > 0, 1)).where(weight > 0, 1.0)
    group = counts["item_id"].str.rpartition("/")[0]
    found = counts[["item_id", "tp", "fp", "fn", "tn"]]
    return found.assign(group=group, weight=weight, score=score)


def anew(
    registry: Registry, model: Evidence, other: Evidence, items: pd.DataFrame, root: Path
) -> pd.DataFrame:
    """Let the model watch each video from its first frame, and count the wanted frames here."""
    import pandas as pd

    from flowsight.datasets.scenes import videos as background
    from flowsight.metrics import change_detection

    base = root / other.tags.get("data_path", "data/raw")
    for row in items.itertuples():
        for path, sha256 in ((row.path, row.sha256), (row.truth, row.truth_sha256)):
            model_answers.check_file(
                base / str(path), str(sha256), str(row.item_id), model, len(items)
            )
    counted = []
    for video_id, own in items.groupby("group", sort=False):
        video = background.open_video(base, str(video_id))
        wanted = set(own["item_id"])
        chosen = [i for i in video.temporal_roi if video.item_id(i) in wanted]
        for index, mask in _found(registry, model, video, chosen):
            counts = change_detection.count(mask, background.read_truth(video, index))
            counted.append({"item_id": video.item_id(index), **vars(counts)})
    return scored(pd.DataFrame(counted))[["item_id", "group", "weight", "score"]]


def _found(
    registry: Registry, model: Evidence, video: Video, chosen: list[int]
) -> Iterator[tuple[int, Any]]:
    """Frame index and (H, W) bool mask of the chosen frames."""
    from flowsight.systems.background import counts as scene_counts

    with tempfile.TemporaryDirectory(prefix="flowsight-scene-") as folder:
        # the very files that the pipeline reads: a video would have to be compressed first
        with zipfile.ZipFile(Path(folder) / "scene.zip", "w") as archive:
            for index in range(max(chosen) + 1):
                archive.write(video.frames[index], f"in{index + 1:06d}.jpg")
        (text,) = model_answers.ask(
            registry, model, Path(folder), serving.INPUT, ["scene.zip"], "masks",
            more={"masks": True},
        )  # fmt: skip
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(text))) as archive:
            for index in chosen:
                content = archive.read(scene_counts.mask_name(index))
                yield index, model_answers.decoded(content) > 0
    except (zipfile.BadZipFile, KeyError, binascii.Error) as error:
        raise InputError(f"expected a zip of masks of {model.uri}, got {error}") from None
