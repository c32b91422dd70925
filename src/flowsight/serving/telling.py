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
from flowsight.serving import registered, systems

if TYPE_CHECKING:
    from flowsight.serving.bundle import Bundle
    from flowsight.serving.result import Prediction


def predict(
    videos: Sequence[Path],
    model: str | None,
    top: int,
    as_json: bool,
    overlay: Path | None,
    system: str | None = None,
) -> None:
    """Predict videos and print a table or JSON on stdout; a bad one does not stop the others.

    Args:
        videos: files.
        model: `models:/...`, a folder with a bundle, or None for the system's champion; where
            there is none, the working tree's checkpoints, and stderr says so.
        top: classes to show.
        as_json: a JSON list instead of a table.
        overlay: film to write; of several videos `<stem>_<video's stem><ending>` each.
        system: whose champion; with a model, what it must be. None: `systems.DEFAULT`, or whatever
            the model is.

    Raises:
        InputError: no such system or model, a model of another system, no maps for the film, or at
            the end, naming the videos that failed.
        ResourceError: the registry cannot be reached.
    """
    films = _films(videos, overlay)
    with tempfile.TemporaryDirectory(prefix="flowsight-model-") as scratch:
        bundle = _load(model, system, Path(scratch))
    if overlay is not None:
        _check_attention(bundle)
    results: list[Prediction | FlowsightError] = []
    for video, found in zip(videos, _results(bundle, videos, overlay is not None), strict=True):
        results.append(_with_film(found, films.get(video)))
    if as_json:
        print(json.dumps(_records(videos, results, top), ensure_ascii=False, indent=2))
    else:
        _print_table(bundle.system.COLUMNS, videos, results, top)
    _raise_failures(videos, results)


def _load(model: str | None, system: str | None, scratch: Path) -> Bundle:
    """The model's bundle; what was downloaded may go once it is loaded."""
    if system is not None:
        systems.find(system)
    if model is None:
        return _champion(system or systems.DEFAULT, scratch)
    if model.startswith("models:/"):
        found = bundles.load_bundle(registered.fetch(model, scratch / "registered"))
    else:
        found = bundles.load_bundle(registered.bundle_in(_folder(model), model))
    own = found.description["system"]
    if system not in (None, own):
        raise InputError(f"expected a model of {system}, got {model}, which is of {own}")
    return found


def _champion(system: str, scratch: Path) -> Bundle:
    """The system's model in service, or what lies in the working tree."""
    champion = f"models:/{system}@champion"
    try:
        return bundles.load_bundle(registered.fetch(champion, scratch / "registered"))
    except registered.NoSuchModel:
        pass
    # what lies there is what is asked for, also between two runs of the pipeline
    bundles.write_bundle(system, scratch / "tree", check_lock=False)
    found = bundles.load_bundle(scratch / "tree")
    print(
        f"no champion ({champion}): using the working tree's checkpoints "
        f"({found.description['dataset']}, split {found.description['split']})",
        file=sys.stderr,
    )
    return found


def _folder(model: str) -> Path:
    if not Path(model).is_dir():
        raise InputError(f"expected a folder or models:/NAME@ALIAS as --model, got {model!r}")
    return Path(model)


def _check_attention(bundle: Bundle) -> None:
    from flowsight.serving import prediction

    prediction.check_attention(bundle)


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
    return [
        {"video": str(video), "error": " ".join(str(found).split())}
        if isinstance(found, FlowsightError)
        else {**found.record(top), "error": None}
        for video, found in zip(videos, results, strict=True)
    ]


def _print_table(
    columns: Sequence[str],
    videos: Sequence[Path],
    results: Sequence[Prediction | FlowsightError],
    top: int,
) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("video", *columns)
    for video, found in zip(videos, results, strict=True):
        name = escape(str(video))
        if isinstance(found, FlowsightError):
            table.add_row(name, "error", end_section=True)
            continue
        lines = found.lines(top)
        for place, line in enumerate(lines):
            first = name if place == 0 else ""
            table.add_row(first, *map(escape, line), end_section=place + 1 == len(lines))
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
