"""What the stages `explain` and `learn_attention` do: parameters in, maps of another row out."""

from __future__ import annotations

from pathlib import Path

from flowsight.classifiers.params import ExplainsParams
from flowsight.errors import InputError
from flowsight.params import config
from flowsight.params.config import Params
from flowsight.systems.two_stream.params import SYSTEM


def explain(
    row: str,
    *,
    manifest: Path,
    split: Path,
    packs: Path,
    flow: Path,
    checkpoint: Path,
    out: Path,
    network: Path,
) -> None:
    """Draw the Grad-CAM maps of a row that explains another one.

    Args:
        row: key of `rows`, with `explains`.
        manifest, split, packs: see `batches.clips.load_clips`.
        flow: folder of flow packs; maps between key frames are carried along it.
        checkpoint: folder of the network of the row that is explained.
        out: folder for the maps.
        network: folder for the attention network.

    Raises:
        InputError: the row explains none; what extraction refuses.
    """
    params = config.load()
    explains = _explains(row, params)
    from flowsight.systems.two_stream.maps import extraction
    from flowsight.systems.two_stream.maps.key_frames import KeyFrames

    extraction.extract(
        name=row,
        row=params.row(row),
        attention=params.system(SYSTEM).attention,
        manifest=manifest,
        split=split,
        packs=packs,
        checkpoint=checkpoint,
        out=out,
        network_out=network,
        seed=params.seed,
        threads=params.threads,
        keys=KeyFrames(every=explains.key_every, packs=packs, flow=flow),
    )


def learn(
    row: str,
    *,
    manifest: Path,
    split: Path,
    packs: Path,
    through_packs: Path,
    checkpoint: Path,
    through_checkpoint: Path,
    out: Path,
    network: Path,
) -> None:
    """Learn a row's maps through the other stream's classification loss.

    Args:
        row: key of `rows`, with `explains.through`.
        manifest, split, packs, through_packs: see `batches.clips.load_clips`.
        checkpoint, through_checkpoint: folders of the networks of both rows.
        out: folder for the maps.
        network: folder for the attention network.

    Raises:
        InputError: the row is not learnt through another; what extraction refuses.
    """
    params = config.load()
    explains = _explains(row, params)
    if explains.through is None:
        raise InputError(f"expected rows.{row}.start.explains.through to name a row, got null")
    from flowsight.systems.two_stream.maps import learnt

    learnt.extract_learnt(
        name=row,
        row=params.row(row),
        through=params.row(explains.through),
        area_weight=explains.area_weight,
        attention=params.system(SYSTEM).attention,
        manifest=manifest,
        split=split,
        packs=packs,
        through_packs=through_packs,
        checkpoint=checkpoint,
        through_checkpoint=through_checkpoint,
        out=out,
        network_out=network,
        seed=params.seed,
        threads=params.threads,
    )


def _explains(row: str, params: Params) -> ExplainsParams:
    explains = params.row(row).start.explains
    if explains is None:
        raise InputError(f"expected rows.{row}.start.explains to name a row, got null; see docs")
    return explains
