"""Static-camera videos with true masks, in changedetection.net's layout; no torch.

    <category>/<name>/input/in000001.jpg ...        frames, numbered from 1
    <category>/<name>/groundtruth/gt000001.png ...  grey levels 0, 50, 85, 170, 255
    <category>/<name>/ROI.bmp                       white where a frame is scored
    <category>/<name>/temporalROI.txt               first and last frame that are scored

Numbers from 1 stay in this file: everywhere else a frame is its index, from 0. `ROI.jpg`, which
stands beside the mask, is a photograph of the place and no mask: it is not read. Truth files
have one channel or three equal ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from flowsight.datasets.layout import check_inside, check_name
from flowsight.errors import InputError
from flowsight.metrics import change_detection
from flowsight.metrics.change_detection import Grey, Mask

_INPUT, _TRUTH = re.compile(r"in(\d{6})\.jpg"), re.compile(r"gt(\d{6})\.png")


@dataclass(frozen=True, kw_only=True, eq=False)
class Video:
    """A video whose files are all there; a picture is read when it is asked for."""

    video_id: str
    """`<category>/<name>`."""
    frames: tuple[Path, ...]
    """By frame index."""
    truths: tuple[Path, ...]
    """By frame index, as many."""
    region: Mask
    """(H, W), True inside the region of interest."""
    temporal_roi: range
    """Frame indices that have a truth and are scored."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def shape(self) -> tuple[int, int]:
        """H, W."""
        return self.region.shape[0], self.region.shape[1]

    def halves(self) -> tuple[range, range]:
        """Frame indices that train, and those that test: the truth's first half, and the rest."""
        middle = self.temporal_roi.start + len(self.temporal_roi) // 2
        return range(self.temporal_roi.start, middle), range(middle, self.temporal_roi.stop)

    def item_id(self, index: int) -> str:
        """Name of a frame in tables: `<category>/<name>/<number in the file's name>`."""
        return f"{self.video_id}/{index + 1:06d}"


def open_videos(root: Path, video_ids: Sequence[str]) -> list[Video]:
    """Several videos of a data set; see `open_video`."""
    return [open_video(root, video_id) for video_id in video_ids]


def open_video(root: Path, video_id: str) -> Video:
    """Find a video's files and check that none is missing.

    Args:
        root: folder of the data set.
        video_id: `<category>/<name>`.

    Returns:
        The video; its pictures are read later.

    Raises:
        InputError: a folder or file that is not there, frames missing in the middle, frames
            without truth, or a temporal region of interest that is not within the video.
    """
    for part in video_id.split("/"):
        check_name(part, root)
    folder = root / video_id
    if not folder.is_dir():
        raise InputError(
            f"expected the video {video_id} in {root}, found no such folder; bring the data set "
            "with `flowsight import` or correct scenes.videos"
        )
    folder = check_inside(folder, root)
    frames = _numbered(folder / "input", _INPUT, "in000001.jpg")
    truths = _numbered(folder / "groundtruth", _TRUTH, "gt000001.png")
    if len(frames) != len(truths):
        raise InputError(
            f"expected a truth for each of the {len(frames)} frames in {folder}/input, found "
            f"{len(truths)} in groundtruth; bring the data set again"
        )
    return Video(
        video_id=video_id,
        frames=frames,
        truths=truths,
        region=_read_region(folder / "ROI.bmp"),
        temporal_roi=_read_temporal_roi(folder / "temporalROI.txt", len(frames)),
    )


def _numbered(folder: Path, pattern: re.Pattern[str], first: str) -> tuple[Path, ...]:
    """Files of a folder in the order of their numbers, which must be 1, 2, 3 ..."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    found = {int(match[1]): name for name in names if (match := pattern.fullmatch(name))}
    if not found:
        raise InputError(f"expected {first}, ... in {folder}, found none; bring the data set again")
    for number in range(1, max(found) + 1):
        if number not in found:
            raise InputError(
                f"expected the files of {folder} numbered 1 to {max(found)} without a gap, found "
                f"no number {number}; a frame that is missing makes the video jump: bring it again"
            )
    return tuple(folder / found[number] for number in sorted(found) if number > 0)


def _read_region(path: Path) -> Mask:
    if not path.is_file():
        raise InputError(
            f"expected the region of interest in {path}, found no such file; bring it again (a "
            "white picture of the frames' size scores every pixel)"
        )
    region: Mask = _read_grey(path) > 0
    if not region.any():
        raise InputError(f"expected white pixels in {path}, found none: nothing would be scored")
    return region


def _read_temporal_roi(path: Path, num_frames: int) -> range:
    text = path.read_text(encoding="ascii", errors="replace").split() if path.is_file() else []
    if len(text) != 2 or not all(number.isdecimal() for number in text):
        raise InputError(
            f"expected the first and the last scored frame in {path}, as `470 1700`, got "
            f"{' '.join(text)[:40]!r}"
        )
    first, last = int(text[0]), int(text[1])
    if not 1 <= first <= last <= num_frames:
        raise InputError(
            f"expected first and last scored frame within 1..{num_frames} in {path}, got "
            f"{first} {last}; correct it or bring the missing frames"
        )
    return range(first - 1, last)


def _read_grey(path: Path) -> Grey:
    """(H, W) uint8."""
    return _decode(path, cv2.IMREAD_GRAYSCALE)


def _decode(path: Path, flags: int) -> Grey:
    # imread would write its own message to stderr for a file that is not there
    content = np.frombuffer(path.read_bytes(), np.uint8) if path.is_file() else np.zeros(0, "u1")
    image = cv2.imdecode(content, flags) if len(content) else None
    if image is None:
        raise InputError(f"expected a picture in {path}, got something else; bring it again")
    return image.astype(np.uint8, copy=False)


def read_frame(video: Video, index: int, *, colour: bool = False) -> Grey:
    """A frame as a picture.

    Args:
        video: where to read.
        index: which frame.
        colour: blue, green and red, as OpenCV has them; else grey.

    Returns:
        (H, W, 1) or (H, W, 3) uint8.

    Raises:
        InputError: no picture, or of another size than the region of interest.
    """
    path = video.frames[index]
    image = _decode(path, cv2.IMREAD_COLOR if colour else cv2.IMREAD_GRAYSCALE)
    return np.atleast_3d(_sized(image, video, path))


def read_truth(video: Video, index: int) -> Grey:
    """A frame's truth, (H, W) uint8 of 0, 50, 85, 170, 255; 85 also outside the region.

    Raises:
        InputError: no picture, another size than the frames', or other grey levels.
    """
    path = video.truths[index]
    truth = _sized(_read_grey(path), video, path)
    try:
        change_detection.scored_pixels(truth)
    except ValueError as error:
        raise InputError(f"{error}, in {path}; bring it again") from None
    truth[~video.region] = change_detection.OUTSIDE
    return truth


def _sized(image: Grey, video: Video, path: Path) -> Grey:
    if image.shape[:2] != video.shape:
        raise InputError(
            f"expected a picture of {video.shape[1]}x{video.shape[0]} px, as ROI.bmp, in {path}, "
            f"got {image.shape[1]}x{image.shape[0]}; bring it again"
        )
    return image


def frames(video: Video, *, colour: bool = False) -> Iterator[Grey]:
    """Every frame in turn; the memory of one. See `read_frame`."""
    return (read_frame(video, index, colour=colour) for index in range(len(video)))


def read_truths(video: Video, wanted: range) -> list[Grey]:
    """The truth of some frames, where something must move.

    Raises:
        InputError: as `read_truth`, or not one scored pixel, or none that moves: nothing could be
            learnt, and recall would have no value.
    """
    truths = [read_truth(video, index) for index in wanted]
    place = f"{video.video_id}, frames {wanted.start + 1} to {wanted.stop}"
    if not _any(truths, lambda truth: change_detection.scored_pixels(truth).any()):
        raise InputError(f"expected scored pixels in the truth of {place}, found none")
    if not _any(truths, lambda truth: (truth == change_detection.MOVING).any()):
        raise InputError(
            f"expected moving pixels (255) in the truth of {place}, found none: there is nothing "
            "to learn or to find; leave the video out of scenes.videos"
        )
    return truths


def _any(truths: Sequence[Grey], holds: Callable[[Grey], np.bool_]) -> bool:
    return any(bool(holds(truth)) for truth in truths)


def median_background(images: Sequence[Grey] | Grey) -> Grey:
    """The place without what passes through it: the median of each pixel over frames.

    Args:
        images: each (H, W, K) uint8; the first frames of a video.

    Returns:
        (H, W, K) uint8; of an even number the lower of the two middle values.
    """
    stack = np.stack(list(images))
    middle = (len(stack) - 1) // 2
    lower: Grey = np.partition(stack, middle, axis=0)[middle]
    return lower
