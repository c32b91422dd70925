"""`flowsight lineage`: what led to a model, and which models came from a commit, data or a clip.

Only the registry and the repository are asked: the tags of versions, their lists of clips, and
`git show <commit>:dvc.lock`. So a stage that was restored from DVC's run cache, which no run in
MLflow tells of, has its lineage too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight.errors import FlowsightError, InputError
from flowsight.registry import evidence, locks, subject
from flowsight.registry.candidate import stage_tag
from flowsight.registry.store import NotThereError, Registry, speaking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

_MODEL = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<number>\d+))")
_HEX = re.compile(r"[0-9a-f]{7,40}")
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_CHECKPOINT = "dvc.checkpoint."


def trace(registry: Registry, reference: str, root: Path) -> dict[str, Any]:
    """Everything that is known of a reference.

    Args:
        registry: where models are.
        reference: `models:/name@alias`, `models:/name/3`, a run's id, a path of a checkpoint, a
            commit, DVC's hash of a data set, splits or a checkpoint, or an item: a clip
            (`<label>/<stem>`), an image's id, a video of scenes (`<category>/<name>`) or a frame.
        root: the repository.

    Returns:
        kind, reference and, by kind: `model` and `run`: see `of_version`; else `models`, a list of
        those that came from it.

    Raises:
        InputError: nothing is known of it.
    """
    if reference.startswith("models:"):
        return {"kind": "model", **of_version(registry, parse(registry, reference), root)}
    if _is_checkpoint(root, reference):
        return {"kind": "checkpoint", **_of_checkpoint(registry, reference, root)}
    if _MD5.fullmatch(reference):
        # a run's id looks like the hash of a file
        version = None if reference.endswith(".dir") else _of_run(registry, reference)
        if version is not None:
            return {"kind": "run", **of_version(registry, version, root)}
        return {"kind": "data", **_of_hash(registry, reference, root)}
    if not _is_commit(root, reference):  # a branch may have a slash too
        return _item(registry, reference, root)
    return {"kind": "commit", **_of_commit(registry, reference, root)}


def parse(registry: Registry, reference: str) -> ModelVersion:
    """The version that `models:/name@alias` or `models:/name/3` names.

    Raises:
        InputError: another form.
        NotThereError: no such model, alias or version.
    """
    match = _MODEL.fullmatch(reference)
    if match is None:
        raise InputError(
            f"expected models:/NAME@ALIAS or models:/NAME/VERSION, got {reference!r}; for example "
            "models:/SYSTEM@champion"
        )
    return registry.version(match["name"], match["alias"] or match["number"])


def of_version(registry: Registry, version: ModelVersion, root: Path) -> dict[str, Any]:
    """What led to a version.

    Returns:
        reference, model, version, aliases, run_id, commit, repository (`here` or another one's
        id), dataset, data (name -> DVC's hash), split, checkpoints (name -> hash), numbers,
        quarantine_share, paper_comparable, params, stages (each: stage, cmd, deps, outs, params,
        runs: trainings that MLflow knows), and consistent: whether the commit's `dvc.lock` has
        these checkpoints; None where the commit is not here.
    """
    tags = version.tags
    run = registry.run(version)
    checkpoints = {k.removeprefix(_CHECKPOINT): v for k, v in tags.items() if _CHECKPOINT in k}
    lock, problem = _lock_of(root, tags.get("git_commit", ""))
    known = set(locks.outs(lock).values())
    return {
        "reference": f"models:/{version.name}/{version.version}",
        "model": version.name,
        "version": str(version.version),
        "aliases": _aliases(registry, version),
        "run_id": version.run_id,
        "commit": tags.get("git_commit"),
        "repository": "here" if _is_here(root, tags) else tags.get("repository"),
        "dataset": tags.get("dataset"),
        "data": {k.removeprefix("dvc."): v for k, v in tags.items() if _is_data(k)},
        "split": tags.get("split"),
        "checkpoints": checkpoints,
        "consistent": None if problem else set(checkpoints.values()) <= known,
        "problem": problem,
        "numbers": {
            k: tags.get(k) for k in subject.of_version(version.name, tags).KIND.tagged if k in tags
        },
        "quarantine_share": tags.get("quarantine_share"),
        "paper_comparable": tags.get("paper_comparable"),
        "params": dict(run.data.params),
        "stages": list(_stages(registry, version, lock, checkpoints)),
    }


def _is_data(tag: str) -> bool:
    return tag.startswith("dvc.") and not tag.startswith(_CHECKPOINT)


def _is_here(root: Path, tags: Mapping[str, str]) -> bool:
    return tags.get("repository") == locks.repository_id(root)


def _lock_of(root: Path, commit: str) -> tuple[locks.Lock, str | None]:
    """The lock of a commit, or why there is none."""
    try:
        lock = locks.at_commit(root, commit)
    except FlowsightError as error:
        return {}, str(error)
    return lock, None if lock else f"commit {commit[:10]} has no dvc.lock"


def _stages(
    registry: Registry, version: ModelVersion, lock: locks.Lock, checkpoints: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    paths = [path for md5 in checkpoints.values() for _, path in locks.makers(lock, md5)]
    system = version.tags.get("system", version.name)
    for name in locks.leading_to(lock, [*paths, f"results/{system}"]):
        entry = lock[name]
        yield {
            "stage": name,
            "cmd": entry.get("cmd", ""),
            "deps": {dep["path"]: dep.get("md5") for dep in entry.get("deps", ())},
            "outs": {out["path"]: out.get("md5") for out in entry.get("outs", ())},
            "params": dict(entry.get("params", {}).get("params.yaml", {})),
            "runs": _runs(registry, version.tags.get(stage_tag(name))),
        }


def _runs(registry: Registry, stage_hash: str | None) -> list[str]:
    """Trainings of exactly this stage that MLflow knows; none for one from the run cache."""
    if not stage_hash:
        return []
    with speaking(registry.uri):
        experiments = [one.experiment_id for one in registry.client.search_experiments(
            filter_string="name = 'flowsight'"
        )]  # fmt: skip
        found = registry.client.search_runs(
            experiments, f"tags.stage_hash = '{stage_hash}'", max_results=20
        )
    return [run.info.run_id for run in found]


def _aliases(registry: Registry, version: ModelVersion) -> list[str]:
    aliases = registry.aliases(version.name)
    return sorted(alias for alias, number in aliases.items() if number == str(version.version))


def _brief(registry: Registry, version: ModelVersion, **more: Any) -> dict[str, Any]:
    return {
        "model": version.name,
        "version": str(version.version),
        "aliases": _aliases(registry, version),
        "commit": version.tags.get("git_commit"),
        **more,
    }


def _of_run(registry: Registry, run_id: str) -> ModelVersion | None:
    found = [one for one in registry.every_version() if one.run_id == run_id]
    if found:
        return found[0]
    try:
        with speaking(registry.uri):
            run = registry.client.get_run(run_id)
    except NotThereError:
        return None
    stage_hash = run.data.tags.get("stage_hash", "")
    stage = run.data.tags.get("stage", "")
    for one in registry.every_version():
        if stage_hash and one.tags.get(stage_tag(stage)) == stage_hash:
            return one
    raise InputError(f"run {run_id} ({run.info.run_name}) led to no registered model")


def _is_checkpoint(root: Path, reference: str) -> bool:
    return reference.startswith("checkpoints/") or (
        reference.endswith(".pt") and (root / reference).is_file()
    )


def _of_checkpoint(registry: Registry, path: str, root: Path) -> dict[str, Any]:
    """A checkpoint of the working tree: the stages that made it, and the models that hold it."""
    folder = path.removesuffix("/").removesuffix("/model.pt")
    lock = locks.read(root)
    md5 = locks.outs(lock).get(folder)
    if md5 is None:
        near = [out for out in locks.outs(lock) if out.startswith("checkpoints/")]
        raise InputError(f"expected a checkpoint of dvc.lock, found no {path!r}; {', '.join(near)}")
    return {
        "reference": folder,
        "md5": md5,
        "stages": [{"stage": name} for name in locks.leading_to(lock, [folder])],
        "models": list(_with_checkpoint(registry, {md5})),
    }


def _with_checkpoint(registry: Registry, hashes: set[str]) -> Iterator[dict[str, Any]]:
    for version in registry.every_version():
        held = {k: v for k, v in version.tags.items() if k.startswith(_CHECKPOINT) and v in hashes}
        if held:
            names = sorted(name.removeprefix(_CHECKPOINT) for name in held)
            yield _brief(registry, version, holds=names)


def _of_commit(registry: Registry, reference: str, root: Path) -> dict[str, Any]:
    commit = locks.check_commit(root, reference)
    outs = set(locks.outs(locks.at_commit(root, commit)).values())
    exact = [v for v in registry.every_version() if v.tags.get("git_commit") == commit]
    names = {(one.name, str(one.version)) for one in exact}
    models = [_brief(registry, one, how="registered from this commit") for one in exact]
    for one in _with_checkpoint(registry, outs):
        if (one["model"], one["version"]) not in names:
            models.append({**one, "how": "its dvc.lock has the same checkpoints"})
    return {"reference": commit, "models": models}


def _of_hash(registry: Registry, md5: str, root: Path) -> dict[str, Any]:
    """A version of data: models whose tags name it, or whose commit's lock has it among inputs."""
    wanted, models = {md5, md5.removesuffix(".dir"), f"{md5}.dir"}, []
    for version in registry.every_version():
        tags = sorted(k for k, v in version.tags.items() if k.startswith("dvc.") and v in wanted)
        lock, _ = _lock_of(root, version.tags.get("git_commit", ""))
        ends = [out["path"] for e in lock.values() for out in e.get("outs", ())
                if out["path"].startswith("checkpoints/")]  # fmt: skip
        stages = [name for name in locks.leading_to(lock, ends) if _touches(lock[name], wanted)]
        if tags or stages:
            models.append(_brief(registry, version, tags=tags, stages=stages))
    if not models:
        raise InputError(f"expected a run or a hash that some model came from, got {md5!r}")
    return {"reference": md5, "models": models}


def _touches(entry: Mapping[str, Any], hashes: set[str]) -> bool:
    return any(one.get("md5") in hashes for key in ("deps", "outs") for one in entry.get(key, ()))


def _is_commit(root: Path, reference: str) -> bool:
    try:
        locks.check_commit(root, reference)
    except InputError:
        return False
    return True


def _item(registry: Registry, item: str, root: Path) -> dict[str, Any]:
    models = list(of_item(registry, item))
    known = [one for one in models if one["subset"]]
    if _HEX.fullmatch(item) and all(one["subset"] == "unknown" for one in known):
        locks.check_commit(root, item)  # says that there is no such commit
    if not known:
        raise InputError(
            "expected a branch, or a clip (<label>/<stem>), an image or a video of scenes that "
            f"some registered model knows, got {item!r}; {len(models)} versions were asked"
        )
    return {"kind": "item", "reference": item, "models": models}


def of_item(registry: Registry, item: str) -> Iterator[dict[str, Any]]:
    """Every version, and what the item was to it: `train`, `val`, `test`, None or `unknown`.

    A video of scenes is all its frames, whose subsets are joined by commas. `unknown` is said where
    a version's list of items is gone: nobody can rule out that it has learnt from the item.
    """
    subsets: dict[tuple[str, str], list[str]] = {}
    for version in registry.every_version():
        splits = version.tags.get("dvc.splits", version.run_id)
        key = (splits, version.tags.get("split", ""))
        if key not in subsets:
            try:
                table = evidence.load(registry, version).items
            except InputError:
                yield _brief(registry, version, subset="unknown", learnt=True)
                continue
            own = (table["item_id"] == item) | table["item_id"].str.startswith(f"{item}/")
            subsets[key] = list(dict.fromkeys(table.loc[own, "subset"]))
        found = subsets[key]
        learnt = any(subset in evidence.LEARNS for subset in found)
        yield _brief(registry, version, subset=", ".join(found) or None, learnt=learnt)
