"""The work of `flowsight predict`: choose the model, go through the files, say what they show."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight import contract, progress
from flowsight.errors import FlowsightError, InputError
from flowsight.pipeline import dvc_yaml
from flowsight.serving import bundle as bundles
from flowsight.serving import registered

if TYPE_CHECKING:
    from flowsight.serving.bundle import Bundle
    from flowsight.serving.result import Result


def predict(
    videos: Sequence[Path],
    model: str | None,
    top: int,
    as_json: bool,
    overlay: Path | None,
    system: str | None = None,
    masks: Path | None = None,
) -> None:
    """Predict files and print a table or JSON on stdout; a bad one does not stop the others.

    Args:
        videos: files; of a system that looks at images, those.
        model: `models:/...`, a folder with a bundle, or None for the system's champion; where
            there is none, the working tree's checkpoints, and stderr says so.
        top: classes to show.
        as_json: a JSON list instead of a table.
        overlay: film (of an image a picture) to write; of several files `<stem>_<file's
            stem><ending>` each.
        system: whose champion; with a model, what it must be. None: the first of the
            parameters, or whatever
            the model is.
        masks: folder for the masks that a system finds: `<stem>.png`, `<stem>.zip`.

    Raises:
        InputError: no such system or model, a model of another system, no maps for the film, no
            masks to write, or at the end, naming the videos that failed.
        ResourceError: the registry cannot be reached.
    """
    if overlay is not None:  # before anything is fetched
        named = [system or _first()] if model is None or system else contract.names()
        _check_ending(overlay, [end for name in named for end in contract.find(name).ENDINGS])
    with tempfile.TemporaryDirectory(prefix="flowsight-model-") as scratch:
        bundle = _load(model, system, Path(scratch))
    films = _films(bundle, videos, overlay)
    _check_masks(bundle, videos, masks)
    wanted = overlay is not None or (masks is not None and bundle.system.REQUEST == "masks")
    if wanted:
        _check_attention(bundle)
    kind = bundle.system.INPUT
    results: list[Result | FlowsightError] = []
    for video, found in zip(videos, _results(bundle, videos, wanted), strict=True):
        results.append(_written(bundle, found, films.get(video), masks, video.stem))
    if as_json:
        print(json.dumps(_records(kind, videos, results, top), ensure_ascii=False, indent=2))
    else:
        _print_table(bundle, videos, results, top)
    _raise_failures(kind, videos, results)


def _load(model: str | None, system: str | None, scratch: Path) -> Bundle:
    """The model's bundle; what was downloaded may go once it is loaded."""
    if system is not None:
        contract.find(system)
    if model is None:
        return _champion(system or _first(), scratch)
    if model.startswith("models:/"):
        found = bundles.load_bundle(registered.fetch(model, scratch / "registered"))
    else:
        found = bundles.load_bundle(registered.bundle_in(_folder(model), model))
    own = found.description["system"]
    if system not in (None, own):
        raise InputError(f"expected a model of {system}, got {model}, which is of {own}")
    return found


def _first() -> str:
    """The system that the parameters name first: whose champion predicts where nobody says."""
    if not Path("params.yaml").is_file():
        known = ", ".join(contract.names())
        raise InputError(f"expected --system NAME ({known}) or --model where no params.yaml is")
    return str(next(iter(dvc_yaml.read_yaml(Path("params.yaml"))["systems"])))


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


def _check_ending(overlay: Path, endings: Sequence[str]) -> None:
    if overlay.suffix.lower() not in endings:
        known = ", ".join(dict.fromkeys(endings))
        raise InputError(f"expected a name for --overlay ending with {known}, got {overlay.name!r}")


def _films(bundle: Bundle, videos: Sequence[Path], overlay: Path | None) -> dict[Path, Path]:
    if overlay is None:
        return {}
    _check_ending(overlay, bundle.system.ENDINGS)
    if len(videos) == 1:
        return {videos[0]: overlay}
    names: dict[Path, Path] = {}
    for video in dict.fromkeys(videos):
        name = overlay.with_name(f"{overlay.stem}_{video.stem}{overlay.suffix}")
        if name in names.values():
            raise InputError(f"expected different names for --overlay, got two {name}")
        names[video] = name
    return names


def _check_masks(bundle: Bundle, videos: Sequence[Path], masks: Path | None) -> None:
    if masks is None:
        return
    if not {"mask", "masks"} & set(bundle.system.OUTPUTS):
        own = bundle.description["system"]
        raise InputError(f"expected a model that finds masks for --masks, got {own}")
    stems = [video.stem for video in dict.fromkeys(videos)]
    twice = sorted({stem for stem in stems if stems.count(stem) > 1})
    if twice:
        raise InputError(f"expected different names for --masks, got {', '.join(twice)} twice")


def _results(
    bundle: Bundle, videos: Sequence[Path], attention: bool
) -> Iterator[Result | FlowsightError]:
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


def _written(
    bundle: Bundle,
    found: Result | FlowsightError,
    film: Path | None,
    masks: Path | None,
    stem: str,
) -> Result | FlowsightError:
    """Write film and masks, then let what only they needed go."""
    if isinstance(found, FlowsightError):
        return found
    if masks is not None:
        masks.mkdir(parents=True, exist_ok=True)
        print(f"{found.save_masks(masks, stem)} is ready", file=sys.stderr)
    if film is not None:
        bundle.system.write_overlay(found, film)
        print(f"{film} is ready", file=sys.stderr)
    return found.light()


def _records(
    kind: str, videos: Sequence[Path], results: Sequence[Result | FlowsightError], top: int
) -> list[dict[str, object]]:
    return [
        {kind: str(video), "error": " ".join(str(found).split())}
        if isinstance(found, FlowsightError)
        else {**found.record(top), "error": None}
        for video, found in zip(videos, results, strict=True)
    ]


def _print_table(
    bundle: Bundle, videos: Sequence[Path], results: Sequence[Result | FlowsightError], top: int
) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(bundle.system.INPUT, *bundle.system.COLUMNS)
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


def _raise_failures(
    kind: str, videos: Sequence[Path], results: Sequence[Result | FlowsightError]
) -> None:
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
    raise InputError(f"{len(failed)} of {len(videos)} {kind}s could not be predicted: {names}")
