"""The work of `flowsight predict`: choose the model, go through the videos, say what they show."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight import progress
from flowsight.errors import FlowsightError, InputError
from flowsight.serving import bundle as bundles
from flowsight.serving import registered

if TYPE_CHECKING:
    from flowsight.serving.bundle import Bundle
    from flowsight.serving.result import Prediction

DEFAULT = f"models:/{bundles.SYSTEM}@champion"


def predict(
    videos: Sequence[Path], model: str | None, top: int, as_json: bool, overlay: Path | None
) -> None:
    """Predict videos and print a table or JSON on stdout; a bad one does not stop the others.

    Args:
        videos: files.
        model: `models:/...`, a folder with a bundle, or None for the champion; where there is
            none, the working tree's checkpoints, and stderr says so.
        top: classes to show.
        as_json: a JSON list instead of a table.
        overlay: film to write; of several videos `<stem>_<video's stem><ending>` each.

    Raises:
        InputError: no such model, or at the end, naming the videos that failed.
        ResourceError: the registry cannot be reached.
    """
    films = _films(videos, overlay)
    with tempfile.TemporaryDirectory(prefix="flowsight-model-") as scratch:
        bundle = _load(model, Path(scratch))
    results: list[Prediction | FlowsightError] = []
    for video, found in zip(videos, _results(bundle, videos, overlay is not None), strict=True):
        results.append(_with_film(found, films.get(video)))
    if as_json:
        print(json.dumps(_records(videos, results, top), ensure_ascii=False, indent=2))
    else:
        _print_table(videos, results, top)
    _raise_failures(videos, results)


def _load(model: str | None, scratch: Path) -> Bundle:
    """The model's bundle; what was downloaded may go once it is loaded."""
    if model is not None and not model.startswith("models:/"):
        return bundles.load_bundle(registered.bundle_in(_folder(model), model))
    try:
        return bundles.load_bundle(registered.fetch(model or DEFAULT, scratch / "registered"))
    except registered.NoSuchModel:
        if model is not None:
            raise
    found = _working_tree(scratch / "tree")
    print(
        f"no champion ({DEFAULT}): using the working tree's checkpoints "
        f"({found.description['dataset']}, split {found.description['split']})",
        file=sys.stderr,
    )
    return found


def _folder(model: str) -> Path:
    if not Path(model).is_dir():
        raise InputError(f"expected a folder or models:/NAME@ALIAS as --model, got {model!r}")
    return Path(model)


def _working_tree(target: Path) -> Bundle:
    # what lies there is what is asked for, also between two runs of the pipeline
    bundles.write_bundle(bundles.SYSTEM, target, check_lock=False)
    return bundles.load_bundle(target)


def _films(videos: Sequence[Path], overlay: Path | None) -> dict[Path, Path]:
    if overlay is None:
        return {}
    from flowsight.video.film import check_ending

    check_ending(overlay)
    if len(videos) == 1:
        return {videos[0]: overlay}
    names: dict[Path, Path] = {}
    for video in dict.fromkeys(videos):
        name = overlay.with_name(f"{overlay.stem}_{video.stem}{overlay.suffix}")
        if name in names.values():
            raise InputError(f"expected videos of different names for --overlay, got two {name}")
        names[video] = name
    return names


def _results(
    bundle: Bundle, videos: Sequence[Path], attention: bool
) -> Iterator[Prediction | FlowsightError]:
    """One video: progress by its frames; several: by videos, two at once."""
    from flowsight.serving import prediction

    if len(videos) > 1:
        found = prediction.predict_videos(bundle, videos, attention=attention)
        yield from progress.track(found, "predict", total=len(videos))
        return
    with ExitStack() as stack:
        update = _meters(stack)
        try:
            result = prediction.predict_video(bundle, videos[0], attention=attention, update=update)
        except FlowsightError as error:
            yield error
            return
    yield result


def _meters(stack: ExitStack) -> Callable[[str, int, int], None]:
    """A progress meter for each part of the work, one after the other."""
    shown: dict[str, Callable[[int], None]] = {}

    def update(part: str, done: int, total: int) -> None:
        if part not in shown:
            stack.close()
            shown[part] = stack.enter_context(progress.meter(part, total or None, "frames"))
        shown[part](done)

    return update


def _with_film(
    found: Prediction | FlowsightError, film: Path | None
) -> Prediction | FlowsightError:
    """Write the film, then let the frames and maps go."""
    from dataclasses import replace

    from flowsight.serving import overlay

    if isinstance(found, FlowsightError) or film is None:
        return found
    overlay.write_overlay(found, film)
    print(f"{film} is ready", file=sys.stderr)
    return replace(found, attention=None, clip=None)


def _records(
    videos: Sequence[Path], results: Sequence[Prediction | FlowsightError], top: int
) -> list[dict[str, object]]:
    from flowsight.serving.result import as_record

    return [
        {"video": str(video), "error": " ".join(str(found).split())}
        if isinstance(found, FlowsightError)
        else {**as_record(found, top), "error": None}
        for video, found in zip(videos, results, strict=True)
    ]


def _print_table(
    videos: Sequence[Path], results: Sequence[Prediction | FlowsightError], top: int
) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("video", "class", "fused", "spatial", "temporal")
    for video, found in zip(videos, results, strict=True):
        if isinstance(found, FlowsightError):
            table.add_row(escape(str(video)), "error", "", "", "", end_section=True)
            continue
        for place, (name, share) in enumerate(found.top(top)):
            k = found.classes.index(name)
            streams = (f"{found.probs[s][k]:.1%}" for s in bundles.STREAMS)
            first = escape(str(video)) if place == 0 else ""
            last = place + 1 == min(top, len(found.classes))
            table.add_row(first, escape(name), f"{share:.1%}", *streams, end_section=last)
    Console().print(table)


def _raise_failures(videos: Sequence[Path], results: Sequence[Prediction | FlowsightError]) -> None:
    failed = [
        (video, found)
        for video, found in zip(videos, results, strict=True)
        if isinstance(found, FlowsightError)
    ]
    if not failed:
        return
    if len(videos) == 1:
        raise failed[0][1]
    for video, found in failed:
        print(f"{video}: {' '.join(str(found).split())}", file=sys.stderr)
    names = ", ".join(str(video) for video, _ in failed)
    raise InputError(f"{len(failed)} of {len(videos)} videos could not be predicted: {names}")
