"""The generated `sample` data set: small, exact, and too hard for one stream alone.

Four folders come out of `render`:

- action clips in UCF-101's layout, with the truth about every pixel beside them;
- two static-camera sequences in CDnet 2012's layout;
- image and mask pairs in MSRA10K's layout;
- faces with an expression in FER2013's layout.

Eight classes form four pairs (`rendering.actions`). Two pairs look the same in every single frame
and differ in motion only; two move the same and differ in one object only. So an RGB stream can
tell half of the clips' classes up to a coin flip, a flow stream the other half: about 0.75 each,
and both together all. Everything is drawn from the seed; no clock and no number of workers enters.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from flowsight import files
from flowsight.errors import InputError
from flowsight.progress import track
from flowsight.samples import actions, background, broken, clip, face, figure, images, scenes
from flowsight.video.formats import write_arrays, write_video

CLASSES = actions.CLASSES

_BROKEN_CLASSES = {"truncated": "Walk", "empty": "Drink", "text": "Push", "short": "Kick"}
_DRIFT = (0.4, 0.9)
"""Background motion, pixels per frame at 160x120 and 12 frames per second."""
_GROUP, _PAIR, _CLIP = 1, 2, 3
"""First words of seeds, so that streams of chance stay apart."""


@dataclass(frozen=True)
class _ClipTask:
    seed: int
    action: str
    group: int
    number: int
    num_frames: int
    fps: int
    width: int
    height: int
    out: Path


def render(
    out: Path,
    scenes_out: Path,
    images_out: Path,
    faces_out: Path,
    *,
    seed: int,
    num_groups: int = 6,
    clips_per_group: int = 2,
    num_frames: int = 16,
    fps: int = 12,
    width: int = 160,
    height: int = 120,
    num_test_groups: int = 2,
    scene_frames: int = 120,
    num_images: int = 60,
    num_persons: int = 48,
    pictures_per_person: int = 4,
    workers: int = 2,
) -> None:
    """Render the whole data set; each folder appears whole or not at all.

    Args:
        out: folder for the action clips.
        scenes_out: folder for the static-camera sequences.
        images_out: folder for the image and mask pairs.
        faces_out: folder for the faces.
        seed: everything follows from it.
        num_groups: actors, each with a look and a background.
        clips_per_group: clips of each class and group; one more of some is broken on purpose.
        num_frames: frames of a clip.
        fps: frames per second of a clip.
        width: pixels, of clips, sequences and images; even.
        height: pixels; even.
        num_test_groups: the first groups, which the official split keeps for testing.
        scene_frames: frames of each static-camera sequence.
        num_images: image and mask pairs.
        num_persons: whose faces are drawn; a quarter of them, at least one, tests.
        pictures_per_person: of each expression.
        workers: processes; the result does not depend on it.

    Raises:
        InputError: where a number cannot give a data set.
    """
    _check_numbers(
        num_groups=num_groups,
        clips_per_group=clips_per_group,
        num_frames=num_frames,
        fps=fps,
        width=width,
        height=height,
        num_test_groups=num_test_groups,
        scene_frames=scene_frames,
        num_images=num_images,
        num_persons=num_persons,
        pictures_per_person=pictures_per_person,
    )
    groups = range(1, num_groups + 1)
    with files.atomic_dir(out) as folder:
        sizes = (num_frames, fps, width, height)
        tasks = [
            _ClipTask(seed, action, group, number, *sizes, folder)
            for action in CLASSES
            for group in groups
            for number in range(1, clips_per_group + 1)
        ]
        training = groups[num_test_groups:]
        extra = {
            kind: _ClipTask(
                seed, action, training[index % len(training)], clips_per_group + 1, *sizes, folder
            )
            for index, (kind, action) in enumerate(_BROKEN_CLASSES.items())
        }
        _render_all([*tasks, *extra.values()], workers)
        _break_clips(folder, extra)
        videos = sorted(folder.glob("videos/*/*.avi"))  # class by class, as UCF-101's lists
        _write_lists(folder / "ucfTrainTestlist", [path.stem for path in videos], num_test_groups)
        (folder / "README.txt").write_text(_README, encoding="utf-8")
    with files.atomic_dir(scenes_out) as folder:
        scenes.render(folder, seed=seed, num_frames=scene_frames, shape=(height, width))
    with files.atomic_dir(images_out) as folder:
        images.render(folder, seed=seed, num_images=num_images, shape=(height, width))
    num_test = max(1, num_persons // 4)
    with files.atomic_dir(faces_out) as folder:
        face.write_dataset(
            folder,
            seed=seed,
            num_train=num_persons - num_test,
            num_test=num_test,
            num_pictures=pictures_per_person,
        )


def _check_numbers(**numbers: int) -> None:
    least = {
        "num_groups": 2,
        "clips_per_group": 1,
        "num_frames": 8,
        "fps": 6,
        "width": 64,
        "height": 64,
        "num_test_groups": 1,
        "scene_frames": 40,
        "num_images": 1,
        "num_persons": 2,
        "pictures_per_person": 1,
    }
    most = {"num_groups": 98, "clips_per_group": 98, "fps": 120, "width": 1280, "height": 1280}
    for name, number in numbers.items():
        low, high = least[name], most.get(name, 100_000)
        if not low <= number <= high:
            raise InputError(
                f"expected {low} to {high}, got {number}, in sample.{name}; change params.yaml"
            )
    for name in ("width", "height"):
        if numbers[name] % 2:
            raise InputError(
                f"expected an even number, got {numbers[name]}, in sample.{name}; "
                "change it in params.yaml"
            )
    if numbers["num_test_groups"] >= numbers["num_groups"]:
        raise InputError(
            f"expected fewer test groups than groups ({numbers['num_groups']}), "
            f"got {numbers['num_test_groups']}, in sample.num_test_groups; leave some for training"
        )


def _render_all(tasks: list[_ClipTask], workers: int) -> None:
    if workers <= 1 or len(tasks) < 8:
        for task in track(tasks, "rendering clips"):
            _render_clip(task)
        return
    context = multiprocessing.get_context("spawn")  # fork would copy threads' locks
    with ProcessPoolExecutor(workers, context, cv2.setNumThreads, (1,)) as pool:
        results = pool.map(_render_clip, tasks, chunksize=4)
        for _ in track(results, "rendering clips", total=len(tasks)):
            pass


def _render_clip(task: _ClipTask) -> None:
    rng = np.random.default_rng(
        [task.seed, _CLIP, CLASSES.index(task.action), task.group, task.number]
    )
    made = clip.render(task.action, _draw_take(task), task.num_frames, task.fps, rng)
    stem = Path(task.action) / _stem(task.action, task.group, task.number)
    write_video(task.out / "videos" / f"{stem}.avi", made.frames, task.fps)
    truth = {name: getattr(made, name) for name in ("masks", "boxes", "keypoints", "flow")}
    write_arrays(task.out / "truth" / f"{stem}.npz", truth)


def _draw_take(task: _ClipTask) -> clip.Take:
    """What a clip shares with its group, and with the same clip of the pair's other class."""
    shape = (task.height, task.width)
    scale = min(task.height / 120, task.width / 160)
    group = np.random.default_rng([task.seed, _GROUP, task.group])
    look = figure.draw_look(task.group - 1, group, 91 * scale)
    fastest = _DRIFT[1] * scale * 12 / task.fps
    margin = 4 + int(fastest * task.num_frames / 2)
    place = background.draw_background(task.group - 1, shape, group, margin)
    pairs = sorted(set(actions.PAIRS.values()))
    pair = actions.PAIRS[task.action]
    rng = np.random.default_rng([task.seed, _PAIR, pairs.index(pair), task.group, task.number])
    facing = 1 if (task.group + task.number + pairs.index(pair)) % 2 else -1
    ahead = {"box": 0.2, "kick": 0.12, "gait": 0.0, "hand": 0.04}[pair] * look.height
    return clip.Take(
        look=look,
        background=place,
        facing=facing,
        centre=(
            task.width / 2 - facing * ahead + rng.uniform(-12, 12) * scale,
            task.height * (rng.uniform(0.9, 0.95) - (0.055 if pair == "box" else 0)),
        ),
        glide=min(1.0, 16 / 12 * task.fps / task.num_frames),
        phase=2 * np.pi * ((0.618 * task.number + 0.382 * task.group) % 1 + rng.uniform(-0.1, 0.1)),
        drift=float(rng.choice([-1, 1]) * rng.uniform(*_DRIFT) * scale * 12 / task.fps),
        shape=shape,
    )


def _stem(action: str, group: int, number: int) -> str:
    return f"v_{action}_g{group:02d}_c{number:02d}"


def _break_clips(folder: Path, extra: dict[str, _ClipTask]) -> None:
    """Break these sound clips, each in its way; truth stays only for the one that decodes."""
    for kind, task in extra.items():
        stem = Path(task.action) / _stem(task.action, task.group, task.number)
        video = folder / "videos" / f"{stem}.avi"
        broken.write_broken(kind, video, video)
        if kind != "short":
            (folder / "truth" / f"{stem}.npz").unlink()


def _write_lists(folder: Path, stems: list[str], num_test_groups: int) -> None:
    """UCF-101's files of split 1: CRLF line ends, classes from 1, labels only for training."""
    folder.mkdir(parents=True)
    train, test = [], []
    for stem in stems:
        action = stem.split("_")[1]
        line = f"{action}/{stem}.avi"
        if int(stem.split("_g")[1][:2]) <= num_test_groups:
            test.append(line)
        else:
            train.append(f"{line} {CLASSES.index(action) + 1}")
    numbered = [f"{index} {name}" for index, name in enumerate(CLASSES, start=1)]
    for name, lines in (("classInd", numbered), ("trainlist01", train), ("testlist01", test)):
        text = "".join(f"{line}\r\n" for line in lines)
        (folder / f"{name}.txt").write_bytes(text.encode())


_README = """\
Generated by flowsight's `sample` stage; nothing in here was filmed.

videos/<Class>/v_<Class>_gXX_cYY.avi   clips, Motion-JPEG; a group (g) is one actor and one place
ucfTrainTestlist/                      split 1 in UCF-101's format; the first groups are for testing
truth/<Class>/v_<Class>_gXX_cYY.npz    exact truth:
  masks      (T, H, W) bool, the actor and what he holds, moves or has at the foot
  boxes      (T, 4) float32, x1 y1 x2 y2 around the mask, pixels, ends exclusive
  keypoints  (T, 17, 3) float32, x y visibility (0 outside, 1 hidden, 2 seen), COCO's order
  flow       (T - 1, 2, H, W) float16, displacement to the next frame, pixels, u then v

Four clips are broken on purpose: one ends inside its header, one has no bytes, one is text, and
one promises more frames than it has (it decodes; its truth covers the promised frames).
"""
