"""The spatial_attention stage: where a network over time looks, as it says itself.

The maps are the weights Ms of the last spatial attention of the row's first target level, on whole
(uncropped) frames of the test clips. No label and no gradient takes part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from flowsight.batches.clips import Clip, load_clips, network_input, read_images, timeline
from flowsight.batches.params import InputParams
from flowsight.batches.transforms import resize_short_side
from flowsight.classifiers import networks
from flowsight.classifiers.params import RowParams
from flowsight.contract import Job
from flowsight.files import atomic_dir
from flowsight.nn import checkpoint as checkpoints
from flowsight.nn import seeding
from flowsight.progress import track
from flowsight.systems.residual3d import network as residual3d
from flowsight.video import pack

Maps = npt.NDArray[np.float32]


def spatial_attention(job: Job) -> None:
    """Write the spatial attention of a split's test clips.

    Args:
        job: of a row whose network has spatial attention. Folders `manifest`, `split_file`,
            `packs` (`batches.clips.load_clips`) and `checkpoint` are read; `out` is replaced by a
            folder of `<clip_id>.zip` (`maps.npy` uint8 (T, h, w), index = frame index).

    Raises:
        InputError: a checkpoint of another network, or no spatial attention in the target level.
    """
    row: RowParams = job.row
    folders = job.folders
    clips, classes = load_clips(folders["manifest"], folders["split_file"], folders["packs"])
    network = networks.build(residual3d, row, len(classes))
    checkpoints.restore(network, folders["checkpoint"] / "model.pt")
    level = row.network.target_layers[0]
    module = residual3d.spatial_attentions(network, level)[-1]
    network = network.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    network = network.to(memory_format=networks.memory_format(network))
    tested = [clip for clip in clips if clip.subset == "test"]
    with seeding.reproducible(job.params.threads), atomic_dir(job.out) as folder:
        for clip in track(tested, f"spatial attention {row.input.modality}"):
            maps = stretched(clip_maps(network, module, clip, row.input))
            meta = {"layers": [level], "row": job.row_name}
            levels = (maps * 255).round().astype(np.uint8)
            pack.write_maps(folder / f"{clip.clip_id}.zip", levels, meta)


def clip_maps(
    network: nn.Module,
    module: residual3d.SpatialAttention,
    clip: Clip,
    params: InputParams,
) -> Maps:
    """Ms of every frame of a clip, from clips of T frames that cover it evenly.

    Args:
        network: in evaluation mode, on its device.
        module: one of its spatial attentions.
        clip: where to read.
        params: modality, clip length, rate and size; frames are scaled, not cropped.

    Returns:
        (num_frames, h, w) in (0, 1). Frames that the rate leaves out have the map of the one
        before; those of several clips the mean; flow has the map of field i at frame i.
    """
    times = timeline(clip, params)
    length = params.images_per_input
    last = max(0, len(times) - length)
    starts = np.linspace(0, last, -(-len(times) // length)).round().astype(np.int64)
    total, count = None, np.zeros(clip.num_frames)
    for start in starts:
        found = _weights(network, module, clip, params, start)  # (t, h, w)
        if total is None:
            total = np.zeros((clip.num_frames, *found.shape[1:]))
        for k in range(min(length, len(times) - start)):
            frame = times[start + k]
            total[frame] += found[k * len(found) // length]
            count[frame] += 1
    assert total is not None  # a timeline has at least one item
    seen = np.flatnonzero(count)
    # each frame the last seen one at or before it; the first of a timeline is frame 0
    source = seen[np.searchsorted(seen, np.arange(clip.num_frames), side="right") - 1]
    maps: Maps = (total[source] / count[source, None, None]).astype(np.float32)
    return maps


@torch.inference_mode()
def _weights(
    network: nn.Module,
    module: residual3d.SpatialAttention,
    clip: Clip,
    params: InputParams,
    start: int,
) -> Maps:
    images = resize_short_side(read_images(clip, params, np.array([start])), params.resize_px)
    x = network_input(images, params, map_channel=False)  # (1, C, T, H, W)
    found: list[Tensor] = []
    hook = module.register_forward_hook(
        lambda part, inputs, output: found.append(module.weights(inputs[0]))
    )
    try:
        network(
            x.to(next(network.parameters()).device, memory_format=networks.memory_format(network))
        )
    finally:
        hook.remove()
    weights: Maps = found[0][0, 0].float().cpu().numpy()  # (1, 1, t, h, w) -> (t, h, w)
    return weights


def stretched(maps: Maps) -> Maps:
    """Each (h, w) map from its lowest to its highest weight, as 0 to 1; a flat one is 0."""
    low, high = (end(maps, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    span = np.where(high > low, high - low, 1)
    scaled: Maps = ((maps - low) / span).astype(np.float32)
    return scaled
