"""`params.yaml` from the Hydra groups in `conf/`, checked before it replaces the old one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowsight import files
from flowsight.errors import InputError
from flowsight.params import config
from flowsight.params.config import Params


def compose(overrides: Sequence[str], root: Path | str = ".") -> Params:
    """Write `<root>/params.yaml` as `dvc exp run -S ...` composes it, without running.

    Args:
        overrides: Hydra overrides (`dataset=weizmann`, `rows.spatial.train.lr=1e-4`).
        root: the repository.

    Raises:
        InputError: no such group, key or value; the old `params.yaml` is left as it was.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    root = Path(root)
    folder = root / "conf"
    if not folder.is_dir():
        raise InputError(f"expected the parameter groups in {folder.resolve()}, found no folder")
    with files.atomic_file(root / "params.yaml") as temporary:
        # DVC writes by suffix
        composed = temporary.with_name(temporary.name + ".yaml")
        try:
            compose_and_dump(
                composed, str(folder.resolve()), None, "config", str(folder), list(overrides)
            )
            params = config.load(composed)
            composed.replace(temporary)
        except (HydraException, OmegaConfBaseException) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            hint = _groups(folder) if "Could not find" in first else "see docs/parameters.md"
            raise InputError(f"cannot compose {' '.join(overrides)}: {first}; {hint}") from None
        finally:
            composed.unlink(missing_ok=True)
    return params


def _groups(folder: Path) -> str:
    return "groups: " + "; ".join(
        f"{group} = {', '.join(sorted(file.stem for file in (folder / group).glob('*.yaml')))}"
        for group in ("dataset", "scenes", "images", "recipe", "study")
    )


def describe(params: Params) -> str:
    """One line a person can check before a long run."""
    used = [name for name, row in params.rows.items() if row.system in params.systems]
    if params.scenes is not None and config.BACKGROUND in params.systems:
        used += [f"{name} on {params.scenes.name}" for name in params.scenes.rows]
    images = params.images if "saliency" in params.systems else None
    if images is not None:
        used += list(images.rows)
    return (
        f"dataset {params.dataset.name} (splits {', '.join(params.splits.ids)}), "
        + (f"images {images.name}, " if images is not None else "")
        + f"recipe {params.recipe}, rows {', '.join(used)}, seed {params.seed}"
    )
