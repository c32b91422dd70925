"""Images and frames that the champion has never seen: it is asked, and scored here."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from flowsight import files
from flowsight.errors import InputError
from flowsight.registry import candidate, promoting
from flowsight.registry.candidate import Candidate, Served
from flowsight.registry.evidence import Evidence
from flowsight.systems.background import judge as scenes
from flowsight.systems.saliency import judge

pytestmark = pytest.mark.slow

# what is bright is salient, or moves; no flowsight, so that it loads fast
MODEL = """
import base64, io, os, zipfile
import cv2, mlflow, numpy as np, pandas as pd

def bright(content):
    grey = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    return cv2.imencode(".png", (grey > 127).astype(np.uint8) * 255)[1].tobytes()

def answer(row):
    kind = "image" if "image" in row else "video"
    path = os.path.join(os.environ["FLOWSIGHT_SERVE_ROOT"], row[kind])
    if kind == "image":
        return {"mask": base64.b64encode(bright(open(path, "rb").read())).decode()}
    assert row["masks"] is True
    out = io.BytesIO()
    with zipfile.ZipFile(path) as frames, zipfile.ZipFile(out, "w") as masks:
        for k, name in enumerate(sorted(frames.namelist())):
            masks.writestr(f"mask_{k + 1:06d}.png", bright(frames.read(name)))
    return {"masks": base64.b64encode(out.getvalue()).decode()}

class Bright(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [answer(row) for row in model_input.to_dict("records")]

mlflow.models.set_model(Bright())
"""


def picture(path: Path, columns: slice) -> None:
    """8 x 10 px, bright in some columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((8, 10), np.uint8)
    pixels[:, columns] = 255
    cv2.imwrite(str(path), pixels)


def published(world, items: pd.DataFrame, scores: pd.DataFrame, **tags: str) -> Evidence:
    """A version with that evidence, and the model that is to be asked."""
    code = world.folder / "bright.py"
    code.write_text(MODEL)
    made = Candidate(
        name=world.model,
        checkpoint=f"{world.model}-{len(tags)}",
        tags={"data_path": "data/raw/toy", **tags},
        params={},
        metrics={},
        items=items,
        scores=scores,
    )
    found = candidate.publish(
        world.registry, made, lambda: Served(code=code, artifacts={}, requirements=["mlflow"])
    )
    return Evidence(
        model=world.model, version=found.version, tags=made.tags, items=items, scores=scores
    )


def listed(root: Path, rows: list[tuple[str, str, str, str]], **more: object) -> pd.DataFrame:
    """A table of items, by item_id, subset, path and truth."""
    table = pd.DataFrame(rows, columns=["item_id", "subset", "path", "truth"])
    hashes = {f"{kind}sha256": [files.sha256(root / p) for p in table[column]]
              for kind, column in (("", "path"), ("truth_", "truth"))}  # fmt: skip
    return table.assign(**hashes, **more)


def test_images(world, tmp_path: Path) -> None:
    """One is known, one is new, and of one the mask was drawn anew."""
    root = tmp_path / "data/raw/toy"
    for name, seen, true in (("a", slice(0, 5), slice(0, 5)), ("b", slice(0, 4), slice(2, 6)),
                             ("c", slice(0, 3), slice(0, 6))):  # fmt: skip
        picture(root / f"{name}.png", seen)
        picture(root / f"masks/{name}.png", true)
    items = listed(root, [(n, "test", f"{n}.png", f"masks/{n}.png") for n in "abc"], upright="1")
    before = items[items["item_id"] != "b"].copy()
    before.loc[before["item_id"] == "c", "truth_sha256"] = "another mask"
    known = pd.DataFrame({"item_id": ["a", "c"], "score": [0.25, 0.25]})
    champion = published(world, before, known, subject="images", system="saliency")
    challenger = Evidence(
        model=world.model, version="2", tags=champion.tags, items=items, scores=known
    )
    found = promoting._champion_scores(world.registry, challenger, champion, tmp_path)
    scores = found.set_index("item_id")["score"].to_dict()
    # by hand: b has tp 16, fp 16, fn 16; c has tp 24, fn 24
    expected = {"a": 0.25, "b": 1.3 * 16 / (1.3 * 16 + 16 + 0.3 * 16),
                "c": 1.3 * 24 / (1.3 * 24 + 0.3 * 24)}  # fmt: skip
    assert scores == pytest.approx(expected)
    (root / "masks/b.png").unlink()
    with pytest.raises(InputError, match=r"no predictions for 2 of the test images, .*b\.png, fou"):
        judge.anew(world.registry, champion, challenger, items[1:], tmp_path)


def test_frames(world, tmp_path: Path) -> None:
    """A second video came; its frames are given from the first one on."""
    root, video = tmp_path / "data/raw/toy", "baseline/new"
    for k in range(1, 5):
        picture(root / f"{video}/input/in{k:06d}.jpg", slice(0, 2 * k))
        picture(root / f"{video}/groundtruth/gt{k:06d}.png", slice(0, 4))
    picture(root / f"{video}/ROI.bmp", slice(0, 10))
    (root / f"{video}/temporalROI.txt").write_text("1 4")
    rows = [(f"{video}/{k:06d}", "test" if k > 2 else "unseen",
             f"{video}/input/in{k:06d}.jpg", f"{video}/groundtruth/gt{k:06d}.png")
            for k in range(1, 5)]  # fmt: skip
    items = listed(root, rows, group=video)
    known = pd.DataFrame({"item_id": ["x/y/000001"], "score": [1.0], "group": "x/y", "weight": 1.0})
    before = items[:1].assign(item_id="x/y/000001", group="x/y")
    champion = published(world, before, known, subject="scenes", system="background")
    challenger = Evidence(
        model=world.model, version="2", tags=champion.tags, items=items, scores=known
    )
    found = promoting._champion_scores(world.registry, challenger, champion, tmp_path)
    assert found["item_id"].tolist() == [f"{video}/000003", f"{video}/000004"]
    # by hand: 6 columns found where 4 move, then 8
    assert found["weight"].tolist() == [2 * 32 + 16, 2 * 32 + 32]
    assert found["score"].tolist() == pytest.approx([64 / 80, 64 / 96])
    assert set(found["group"]) == {video}
    (root / f"{video}/input/in000003.jpg").write_bytes(b"other")
    with pytest.raises(InputError, match="is not the file that was listed"):
        scenes.anew(world.registry, champion, challenger, items[2:], tmp_path)
