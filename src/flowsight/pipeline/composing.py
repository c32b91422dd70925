"""`params.yaml` from the Hydra groups in `conf/`, checked before it replaces the old one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flowsight import contract, files
from flowsight.errors import InputError
from flowsight.params import config
from flowsight.params.config import Params


def compose(overrides: Sequence[str], root: Path | str = ".") -> Params:
    """Write `<root>/params.yaml` as `dvc exp run -S ...` composes it, without running.

    Args:
        overrides: Hydra overrides (`dataset=weizmann`, `systems.NAME.rows.ROW.train.lr=1e-4`).
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
                composed, str(folder.resolve()), None, "config", str(folder), _named(overrides)
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


def _named(overrides: Sequence[str]) -> list[str]:
    """The overrides with `systems=[a,b]` as Hydra has it: every other system is left out.

    Raises:
        InputError: an unknown system, or none.
    """
    found = []
    for override in overrides:
        key, _, value = override.partition("=")
        if key != "systems":
            found.append(override)
            continue
        chosen = [name.strip() for name in value.strip("[]").split(",") if name.strip()]
        known = contract.names()
        for name in chosen:
            if name not in known:
                raise InputError(f"expected systems of {', '.join(known)}, got {name!r}")
        if not chosen:
            raise InputError(f"expected systems of {', '.join(known)}, got none")
        found += [f"~systems/{name}" for name in known if name not in chosen]
    return found


def _groups(folder: Path) -> str:
    return "groups: " + "; ".join(
        f"{group} = {', '.join(sorted(file.stem for file in (folder / group).glob('*.yaml')))}"
        for group in ("dataset", "scenes", "images", "recipe", "study")
    )


def describe(params: Params) -> str:
    """One line a person can check before a long run."""
    used = [f"{name} ({', '.join(block.rows)})" for name, block in params.systems.items()]
    return (
        f"clips {params.dataset.name} (splits {', '.join(params.splits.ids)}), images "
        f"{params.images.name}, scenes {params.scenes.name}, recipe {params.recipe}, systems "
        f"{', '.join(used)}, seed {params.seed}"
    )
