"""OpenCV's background subtraction methods, run as our networks are: frame by frame from the first.

| name | method |
|---|---|
| mog2 | mixture of Gaussians, with its shadow detection (shadows are background) |
| knn | k nearest neighbours, likewise |
| cnt | counting how long a pixel stays (contrib) |
| gsoc | the method of the 2017 Summer of Code (contrib) |
| lsbp | local SVD binary pattern (contrib) |

All have OpenCV's default numbers and see colour, as their authors mean them to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from flowsight import files
from flowsight.contract import Folders
from flowsight.datasets.scenes import videos as background
from flowsight.datasets.scenes.videos import Video
from flowsight.metrics.change_detection import MOVING, Mask
from flowsight.params.config import Params
from flowsight.systems.background import counts
from flowsight.systems.background.params import SYSTEM


def subtractor(name: str) -> Any:
    """A fresh model by its name in the table above.

    Raises:
        KeyError: another name (parameters are checked before).
    """
    makers: dict[str, Callable[[], Any]] = {
        "mog2": cv2.createBackgroundSubtractorMOG2,
        "knn": cv2.createBackgroundSubtractorKNN,
        "cnt": cv2.bgsegm.createBackgroundSubtractorCNT,
        "gsoc": cv2.bgsegm.createBackgroundSubtractorGSOC,
        "lsbp": cv2.bgsegm.createBackgroundSubtractorLSBP,
    }
    return makers[name]()


def moving(name: str, frames: Iterable[npt.NDArray[np.uint8]]) -> Iterator[Mask]:
    """Where a method sees something move.

    Args:
        name: of the table above.
        frames: (H, W, 3) uint8 BGR, from the first frame of the video.

    Yields:
        (H, W) bool, one a frame.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # some of them draw samples, and every thread has a generator of its own
    cv2.setRNGSeed(0)
    model = subtractor(name)
    try:
        for frame in frames:
            yield model.apply(frame) == MOVING
    finally:
        cv2.setNumThreads(threads)


def peers(params: Params, folders: Folders, out: Path) -> None:
    """Run OpenCV's methods over all videos, each from its first frame.

    Args:
        params: `scenes.videos` and the methods, `systems.background.peers`.
        folders: `scenes`, those of the videos.
        out: folder to replace, with a folder for each method (`systems.background.counts.write`).

    Raises:
        InputError: videos that are not as they should be.
    """
    videos = background.open_videos(folders["scenes"], params.scenes.videos)
    with files.atomic_dir(out) as folder:
        for name in params.system(SYSTEM).peers:

            def find(video: Video, name: str = name) -> Iterator[Mask]:
                return moving(name, background.frames(video, colour=True))

            counts.write(videos, find, (), folder / name)
