"""The parameters: `params.yaml` as frozen dataclasses, checked once, here.

`params.yaml` is composed by Hydra from `conf/` (see `docs/parameters.md`), so explanations stand
there and here, not in the composed file. What is a system's own stands in its `params.Block`. Stage
scripts call `load()` and hand plain values on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowsight import contract
from flowsight.errors import InputError
from flowsight.params import schema
from flowsight.params.data import (
    DatasetParams,
    FlowParams,
    FramesParams,
    ImagesParams,
    SampleParams,
    ScenesParams,
    SplitsParams,
)
from flowsight.params.schema import check

__all__ = [
    "DatasetParams",
    "FlowParams",
    "FramesParams",
    "ImagesParams",
    "Params",
    "SampleParams",
    "ScenesParams",
    "SplitsParams",
    "load",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Params:
    """All of `params.yaml`."""

    seed: int
    threads: int
    """CPU threads of torch: training is exact to the bit for the same number."""
    recipe: str
    """Name of the group of numbers in use: sample, smoke, small or paper."""
    dataset: DatasetParams
    """Of clips."""
    sample: SampleParams
    shards: tuple[int, ...]
    frames: FramesParams
    flow: FlowParams
    splits: SplitsParams
    """Of clips."""
    scenes: ScenesParams
    images: ImagesParams
    systems: dict[str, Any]
    """Those that run: name -> the `Block` of `flowsight.systems.<name>.params`."""
    instances: dict[str, Any] = field(default_factory=dict)
    """Rows x splits as DVC's `foreach` walks them; made by the resolver in `conf/`."""

    def __post_init__(self) -> None:
        check(self.threads >= 1, "threads must be at least 1")
        check(len(self.shards) > 0, "shards must name at least one shard")
        check(len(set(self.shards)) == len(self.shards), "shards repeat")
        check(len(self.systems) > 0, f"expected systems of {', '.join(contract.names())}, got none")
        owners: dict[str, str] = {}
        for system, block in self.systems.items():
            for name in block.rows:
                check(bool(_NAME.fullmatch(name)), f"row name {name!r} is not a file name")
                other = owners.setdefault(name, system)
                check(
                    other == system, f"row {name!r} stands in {other} and in {system}; rename one"
                )

    def system(self, name: str) -> Any:
        """A system's block.

        Raises:
            InputError: the parameters have none of it.
        """
        if name not in self.systems:
            known = ", ".join(self.systems)
            raise InputError(f"expected {name!r} among the systems that run ({known}), found none")
        return self.systems[name]

    def owner(self, row: str) -> str:
        """The system that a row belongs to.

        Raises:
            InputError: there is no such row.
        """
        for system, block in self.systems.items():
            if row in block.rows:
                return system
        rows = ", ".join(name for block in self.systems.values() for name in block.rows)
        raise InputError(f"no row {row!r} in the parameters; rows: {rows}")

    def row(self, name: str) -> Any:
        """One row by name, of whichever system.

        Raises:
            InputError: there is no such row.
        """
        return self.systems[self.owner(name)].rows[name]


def load(path: Path | str = "params.yaml") -> Params:
    """Read and check the parameters.

    YAML is read with ruamel, as DVC does: PyYAML takes `1e-3` for text.

    Raises:
        InputError: no such file, not YAML, or a key or value that is wrong; one line.
    """
    from ruamel.yaml import YAML, YAMLError

    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected parameters in {path.resolve()}, found no such file")
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    return schema.read(Params, _with_blocks(values), "params")


def _with_blocks(values: Any) -> Any:
    """The same with each system's mapping as its `Block`."""
    systems = values.get("systems") if isinstance(values, dict) else None
    if not isinstance(systems, dict):
        return values
    blocks = {
        name: schema.read(contract.part(name, "params").Block, own, f"params.systems.{name}")
        for name, own in systems.items()
    }
    return {**values, "systems": blocks}
