"""Clips of a split as network input: from packs to normalised tensors.

Channels of an input: the modality's (RGB, or u1 v1 u2 v2 ... of a flow stack), then the attention
map. In phase 1 the map is a constant; in phase 2 it is read, cropped and mirrored with the frame.
Networks over time see clips of T frames or flow fields instead, without maps.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from flowsight.batches import map_controls, sampling, transforms
from flowsight.batches.params import InputParams
from flowsight.batches.sampling import Indices
from flowsight.batches.transforms import Images
from flowsight.errors import InputError
from flowsight.video import pack

if TYPE_CHECKING:
    from flowsight.training.batches import EpochBatches

UNKNOWN = -1
"""Label of clips whose class must not be used."""


@dataclass(frozen=True)
class Clip:
    """One clip of a split and where its packs are."""

    clip_id: str
    label: int
    """Index in `classes.csv`."""
    subset: str
    """`train`, `val` or `test`."""
    num_frames: int
    pack: Path
    maps: Path | None
    """Attention maps of the other stream; None: the constant map."""
    map_frames: int | None = None
    """Frames of the clip that the maps belong to; None: this clip's own."""
    fps: float | None = None
    """Frame rate of the video; None where the manifest does not say."""


def load_clips(
    manifest: Path,
    split: Path,
    packs: Path,
    maps: Path | None = None,
    *,
    map_control: str | None = None,
) -> tuple[list[Clip], list[str]]:
    """The clips of a split, in its order, and the class names.

    Args:
        manifest: folder with `clips.csv` and `classes.csv`.
        split: `clip_id,subset` of one split.
        packs: folder of packs, `<shard>/<clip_id>.zip`.
        maps: folder of attention maps, `<clip_id>.zip`.
        map_control: see `RowParams`.

    Raises:
        InputError: a missing table, a clip or label that the manifest does not have, a missing
            pack, or maps that cannot be shuffled (`map_controls.shuffle`).
    """
    classes = _read(manifest / "classes.csv", ("index", "label"))
    names = [row["label"] for row in sorted(classes, key=lambda row: int(row["index"]))]
    labels = {name: index for index, name in enumerate(names)}
    listed = {row["clip_id"]: row for row in _read(manifest / "clips.csv", _COLUMNS)}
    if map_control == "constant":
        maps = None
    clips = []
    for row in _read(split, ("clip_id", "subset")):
        clip_id = row["clip_id"]
        found = listed.get(clip_id)
        if found is None or found["label"] not in labels:
            raise InputError(
                f"expected clip {clip_id} of {split} with a known class in {manifest}, found none; "
                "run the manifest and splits stages again"
            )
        clip = Clip(
            clip_id=clip_id,
            label=labels[found["label"]],
            subset=row["subset"],
            num_frames=int(found["num_frames"]),
            pack=packs / found["shard"] / f"{clip_id}.zip",
            maps=None if maps is None else maps / f"{clip_id}.zip",
            fps=float(found["fps"]) if found.get("fps") else None,
        )
        clips.append(clip)
    _check_packs(clips, split)
    if map_control == "shuffled":
        clips = map_controls.shuffle(clips)
    return clips, names


_COLUMNS = ("clip_id", "label", "num_frames", "shard")


def _read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    # not pandas: it costs a second that predict and train would spend on nothing else
    if not path.is_file():
        raise InputError(f"expected a table in {path}, found no such file")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"expected columns {', '.join(columns)} in {path}, got no {missing}")
        return list(reader)


def _check_packs(clips: Sequence[Clip], split: Path) -> None:
    wanted = [path for clip in clips for path in (clip.pack, clip.maps) if path is not None]
    missing = [path for path in wanted if not path.is_file()]
    if missing:
        raise InputError(
            f"expected a pack for each clip of {split}, found {len(missing)} missing, first "
            f"{missing[0]}; run the stage that makes it again"
        )


def num_items(clip: Clip, modality: str) -> int:
    """Frames (RGB) or flow fields (one fewer) of a clip.

    Raises:
        InputError: a single frame has no flow.
    """
    count = clip.num_frames - (modality == "flow")
    if count < 1:
        raise InputError(
            f"expected at least 2 frames for flow, got {clip.num_frames} in {clip.clip_id}; "
            "leave the clip out"
        )
    return count


def timeline(clip: Clip, params: InputParams) -> Indices:
    """Stored items of a clip in the order and at the rate that networks over time see them.

    Returns:
        (M,) frame or field indices, non-decreasing.

    Raises:
        InputError: `fps` is asked for and the clip's own rate is not known.
    """
    count = num_items(clip, params.modality)
    if params.fps is None:
        return np.arange(count, dtype=np.int64)
    if clip.fps is None or not clip.fps > 0:
        raise InputError(
            f"expected the frame rate of {clip.clip_id} in the manifest, got {clip.fps}; set "
            "input.fps to null or leave the clip out"
        )
    return sampling.resampled_indices(count, clip.fps, params.fps)


def count_positions(clip: Clip, params: InputParams) -> int:
    """Positions of a clip at which a frame, a whole stack or a whole clip of frames starts."""
    if params.clip_length is not None:
        return sampling.count_positions(len(timeline(clip, params)), params.clip_length)
    return sampling.count_positions(num_items(clip, params.modality), params.stack_length)


def _item_indices(clip: Clip, params: InputParams, positions: Indices) -> Indices:
    """(N, L) items behind each position, L the stack's or the clip's length."""
    if params.clip_length is None:
        count = num_items(clip, params.modality)
        return sampling.stack_indices(positions, params.stack_length, count)
    times = timeline(clip, params)
    return times[sampling.stack_indices(positions, params.clip_length, len(times))]


def read_images(clip: Clip, params: InputParams, positions: Indices) -> Images:
    """Stored images of the stacks that start at these positions, with maps if the clip has them.

    Args:
        clip: where to read.
        params: modality and stack length.
        positions: (N,) frame or field indices.

    Returns:
        (N, C, H, W) uint8; C is 3 or 2L, one more with a map. With `clip_length` T:
        (N * T, C, H, W), C is 3 or 2, the images of a clip one after the other.
    """
    indices = _item_indices(clip, params, positions).ravel().tolist()
    if params.modality == "rgb":
        frames = pack.read_frames(clip.pack, indices)  # (N, H, W, 3) or (N * T, H, W, 3)
        images = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    else:
        fields = pack.read_flow(clip.pack, indices)  # (N * L, 2, H, W) or (N * T, 2, H, W)
        images = fields.reshape(len(positions) * params.images_per_input, -1, *fields.shape[2:])
    if clip.maps is None:
        return images
    maps = pack.read_maps(clip.maps, _map_indices(clip, positions).tolist())[:, None]
    return np.concatenate([images, transforms.resize(maps, *images.shape[2:])], axis=1)


def _map_indices(clip: Clip, positions: Indices) -> Indices:
    """Where in its maps a clip looks: at the same share of the length, if they are another's."""
    if clip.map_frames is None:
        return positions
    return positions * clip.map_frames // clip.num_frames


def own_channels(params: InputParams) -> int:
    """Channels of a frame or of a flow stack, without the map."""
    return 3 if params.modality == "rgb" else 2 * params.stack_length


def network_input(images: Images, params: InputParams, *, map_channel: bool) -> Tensor:
    """Normalise; where the network has a map channel and the images none, add the constant.

    Args:
        images: (N, C, H, W) or (N * T, C, H, W) uint8 as `read_images` gives them, cropped.
        params: modality and value of the constant map.
        map_channel: whether the network has one.

    Returns:
        (N, C, H, W) float32, or (N, C, T, H, W) for clips.
    """
    inputs = torch.from_numpy(transforms.normalise(images, params.modality))
    if map_channel and images.shape[1] == own_channels(params):
        constant = inputs.new_full((len(inputs), 1, *inputs.shape[2:]), params.map_value)
        inputs = torch.cat([inputs, constant], dim=1)
    if params.clip_length is not None:
        inputs = inputs.unflatten(0, (-1, params.clip_length)).transpose(1, 2)
    return inputs


def full_frames(
    clip: Clip, params: InputParams, indices: Sequence[int], *, map_channel: bool = True
) -> Tensor:
    """Input of whole frames, uncropped: what attention is extracted from.

    Args:
        clip: where to read; without maps the constant one is taken.
        params: modality, stack length and size.
        indices: N frame indices; a stack starts at each, the tail repeats the last field.

    Returns:
        (N, C, h, w) float32; the shorter of h and w is `resize_px`.
    """
    images = read_images(clip, params, np.asarray(indices, dtype=np.int64))
    images = transforms.resize_short_side(images, params.resize_px)
    return network_input(images, params, map_channel=map_channel)


class ClipDataset(Dataset[tuple[Tensor, int, int]]):
    """Segments of clips: `dataset[epoch, index]` is (x (S, C, H, W) float32, label, index).

    With `clip_length` a segment is a clip of T frames or flow fields: x is (S, C, T, H, W).

    In training, segments, crop and flip are drawn from (seed, epoch, index) and from nothing else,
    so neither the number of workers nor a restart changes them. Elsewhere an item is the middle
    of each segment, cropped at the centre. Indices beyond the clips draw the same clips again.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        params: InputParams,
        *,
        train: bool,
        seed: int,
        map_channel: bool = True,
    ) -> None:
        self.clips = clips
        self.params = params
        self.train = train
        self.seed = seed
        self.map_channel = map_channel

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int, int]:
        images = self._images(key)
        x = network_input(images, self.params, map_channel=self.map_channel)
        return x, self._clip(key).label, key[1]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor, Tensor]:
        """A batch: x as single items with B in front, labels (B,), indices (B,); the same values.

        Read by as many threads as torch computes with, which waits meanwhile, straight into the
        batch; its memory has the channels last, as the convolutions want it.
        """
        params = self.params
        has_map = self.map_channel or self.clips[0].maps is not None
        channels = own_channels(params) + has_map
        num_images = params.num_segments * params.images_per_input
        shape = (num_images, params.crop_px, params.crop_px, channels)
        # not torch.empty, which fills the memory where algorithms are deterministic
        batch = np.empty((len(keys), *shape), np.float32)

        def read(item: int) -> None:
            images = self._images(keys[item])
            constant = params.map_value if images.shape[1] < channels else None
            transforms.normalise_into(batch[item], images, params.modality, constant=constant)

        if torch.get_num_threads() == 1:  # a loader's process too
            for item in range(len(keys)):
                read(item)
        else:
            with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as threads:
                list(threads.map(read, range(len(keys))))
        labels = torch.tensor([self._clip(key).label for key in keys])
        x = torch.from_numpy(batch).permute(0, 1, 4, 2, 3)
        if params.clip_length is not None:
            x = x.unflatten(1, (params.num_segments, params.clip_length)).transpose(2, 3)
        return x, labels, torch.tensor([index for _, index in keys])

    def _clip(self, key: tuple[int, int]) -> Clip:
        return self.clips[key[1] % len(self.clips)]

    def _images(self, key: tuple[int, int]) -> Images:
        """(S, C, crop_px, crop_px) uint8, or (S * T, C, crop_px, crop_px) of clips."""
        clip, params = self._clip(key), self.params
        positions = count_positions(clip, params)
        if not self.train:
            starts = sampling.even_positions(positions, params.num_segments)
            return transforms.centre_crop(
                read_images(clip, params, starts),
                resize_px=params.resize_px,
                crop_px=params.crop_px,
            )
        rng = np.random.default_rng((self.seed, *key))
        starts = sampling.random_positions(positions, params.num_segments, rng)
        return transforms.augment(
            read_images(clip, params, starts),
            modality=params.modality,
            crop_px=params.crop_px,
            scales=params.scales,
            flip=params.flip,
            rng=rng,
        )


def _as_read(batch: Any) -> Any:
    """`ClipDataset` makes whole batches: nothing to collate."""
    return batch


def loader(dataset: ClipDataset, batches: EpochBatches) -> DataLoader[Any]:
    """Batches (x, labels (B,), indices (B,)), read by `num_workers()` processes.

    x is (B, S, C, H, W), for networks over time (B, S, C, T, H, W).
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_as_read,
        num_workers=num_workers(),
        persistent_workers=num_workers() > 0,
        pin_memory=torch.cuda.is_available(),
        # its own: a loader draws a seed for its workers when it starts, which is before an epoch
        # is seeded in the first epoch and after it in the others
        generator=torch.Generator(),
    )


def num_workers() -> int:
    """Processes that read clips: `FLOWSIGHT_WORKERS`; without a GPU none, the cores are busy.

    Raises:
        InputError: not a number.
    """
    text = os.environ.get("FLOWSIGHT_WORKERS", "")
    if text:
        if not text.isdecimal():
            raise InputError(f"expected FLOWSIGHT_WORKERS as a number, got {text!r}")
        return int(text)
    return min(8, (os.cpu_count() or 1) - 1) if torch.cuda.is_available() else 0
