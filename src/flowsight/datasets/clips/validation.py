"""The gates, run by Great Expectations: the only file that imports it.

Three subjects: `manifest` before frames, `clips` after flow, `splits` before training; what each
expects stands in `expectations.py`. A failed expectation names its rows on stderr and raises
GateError (exit 3); a failed warning is only told and recorded. `report.json` has the same bytes for
the same tables. Data Docs (HTML, with clocks in its names) go to a folder outside DVC.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowsight import files
from flowsight.datasets import tables
from flowsight.datasets.clips import expectations, gate_tables
from flowsight.datasets.clips.expectations import Check, Table
from flowsight.errors import GateError

if TYPE_CHECKING:
    import pandas as pd

DATA_DOCS = Path("build/data-docs")
NUM_EXAMPLES = 5


def validate_manifest(
    manifest: Path, out: Path, *, max_quarantined: float, data_docs: Path | None = DATA_DOCS
) -> None:
    """Check the manifest of a data set; write `out/report.json` and `out/passed.json`.

    Args:
        manifest: folder of `clips.csv`, `status.csv`, `classes.csv` and `official_splits.csv`.
        out: folder to make.
        max_quarantined: largest share of the clips found that may be quarantined.
        data_docs: folder below which Data Docs are written, at `<data set>/manifest`; None: none.

    Raises:
        GateError: an expectation failed; `out` is left as it was.
        InputError: a table is missing or broken.
    """
    subject = expectations.manifest_tables(manifest, max_quarantined)
    report = _gate("manifest", subject, data_docs and data_docs / manifest.name)
    status = tables.read(manifest / "status.csv", tables.STATUS)
    with files.atomic_dir(out) as folder:
        _write(folder, report, _counts(status))


def validate_clips(
    manifest: Path,
    frames: Path,
    flow: Path,
    out: Path,
    *,
    shards: Sequence[int],
    max_quarantined: float,
    data_docs: Path | None = DATA_DOCS,
) -> None:
    """Check what frames and flow left; write the reports and the merged `out/status.csv`.

    Args:
        manifest: folder of the manifest.
        frames: folder of `<k>/status.csv` and `<k>/<clip_id>.zip`.
        flow: the same for flow.
        out: folder to make.
        shards: the shards that count; other folders are leftovers.
        max_quarantined: largest share of the clips found that may be quarantined.
        data_docs: folder below which Data Docs are written; None: none.

    Raises:
        GateError: an expectation failed; `out` is left as it was.
        InputError: a table is missing or broken.
    """
    status = gate_tables.merged_status(manifest, [frames, flow], shards)
    subject = expectations.clips_tables(manifest, frames, flow, status, max_quarantined)
    report = _gate("clips", subject, data_docs and data_docs / manifest.name)
    with files.atomic_dir(out) as folder:
        files.write_csv(status, folder / "status.csv")
        _write(folder, report, _counts(status))


def validate_splits(
    manifest: Path,
    splits: Path,
    out: Path,
    *,
    ids: Sequence[str],
    max_absent: float = 0.0,
    data_docs: Path | None = DATA_DOCS,
) -> None:
    """Check the splits; write `out/report.json` and `out/passed.json`.

    Args:
        manifest: folder of the manifest.
        splits: folder of `<split_id>.csv`.
        out: folder to make.
        ids: the splits that count.
        max_absent: share of classes that a split may do without.
        data_docs: folder below which Data Docs are written; None: none.

    Raises:
        GateError: an expectation failed; `out` is left as it was.
        InputError: a table is missing or broken.
    """
    rows = gate_tables.split_rows(manifest, splits, ids)
    subject = expectations.splits_tables(manifest, rows, ids, max_absent)
    report = _gate("splits", subject, data_docs and data_docs / manifest.name)
    counts = {
        split_id: dict(Counter(rows.subset[rows.split_id == split_id].tolist())) for split_id in ids
    }
    with files.atomic_dir(out) as folder:
        _write(folder, report, counts)


def _write(folder: Path, report: dict[str, Any], counts: dict[str, Any]) -> None:
    """`report.json`, and `passed.json`, which says no more than that.

    The report changes with every clip; what depends on `passed.json` waits for the gate and yet is
    not run again because some other shard got a clip.
    """
    files.write_json({**report, "counts": counts}, folder / "report.json")
    files.write_json({"passed": report["subject"]}, folder / "passed.json")


def _counts(status: pd.DataFrame) -> dict[str, int]:
    return {name: int((status.status == name).sum()) for name in tables.STATUSES}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came out of one check."""

    table: Table
    check: Check
    success: bool
    rows: list[tuple[str, ...]]
    """Keys of the rows that failed, sorted."""
    observed: Any = None
    """The value of a check on a whole column."""

    def lines(self) -> list[str]:
        """For people: what was expected, and the first rows that are otherwise."""
        word = "warning" if self.check.warning else "failed"
        seen = "" if self.observed is None else f", observed {self.observed:.4g}"
        head = f"{word}: {self.table.name}: expected that {self.check.says}{seen}"
        shown = [f"  {' | '.join(row)}" for row in self.rows[:NUM_EXAMPLES]]
        more = len(self.rows) - len(shown)
        count = f"; {len(self.rows)} of {len(self.table.frame)} rows:" if shown else ""
        return [head + count, *shown, *([f"  and {more} more"] if more > 0 else [])]

    def as_json(self) -> dict[str, Any]:
        """Plain values without clocks or run ids."""
        return {
            "table": self.table.name,
            "expectation": self.check.name,
            "says": self.check.says,
            "options": self.check.options,
            "warning": self.check.warning,
            "success": self.success,
            "observed": self.observed,
            "num_rows": len(self.table.frame),
            "num_failed": len(self.rows),
            "examples": [list(row) for row in self.rows[:NUM_EXAMPLES]],
        }


def _gate(subject: str, checked: Sequence[Table], data_docs: Path | None) -> dict[str, Any]:
    """Run all checks; tell what failed; refuse or return the report."""
    site = data_docs and data_docs / subject
    outcomes = run_checks(subject, checked, site)
    failed = [outcome for outcome in outcomes if not outcome.success]
    for outcome in failed:
        print("\n".join(outcome.lines()), file=sys.stderr)
    fatal = [outcome for outcome in failed if not outcome.check.warning]
    if fatal:
        what = "; ".join(f"{one.table.name}: {one.check.says}" for one in fatal[:2])
        rows = ", ".join(" ".join(row[:2]) for row in fatal[0].rows[:2])
        raise GateError(
            f"expected all of {len(outcomes)} expectations of {subject} to hold, {len(fatal)} "
            f"failed ({what}{'; ...' if len(fatal) > 2 else ''})"
            + (f", as {rows}" if rows else "")
            + (f"; see {site / 'index.html'}" if site else "")
        )
    return {
        "subject": subject,
        "success": True,
        "checks": [outcome.as_json() for outcome in outcomes],
    }


def run_checks(subject: str, checked: Sequence[Table], site: Path | None) -> list[Outcome]:
    """Let Great Expectations check the tables and write Data Docs.

    Args:
        subject: name in the docs.
        checked: tables with at least one check each.
        site: folder of the docs, replaced; None: none are written.

    Returns:
        One outcome for each check, in order.
    """
    context = _quiet_context(site)
    outcomes: list[Outcome] = []
    source = context.data_sources.add_pandas(subject)
    for table in checked:
        result = _run_table(context, source, table)
        outcomes += [
            _outcome(table, check, row) for check, row in zip(table.checks, result, strict=True)
        ]
    if site is not None:
        context.build_data_docs(site_names=["flowsight"])
    return outcomes


def _quiet_context(site: Path | None) -> Any:
    os.environ["GX_ANALYTICS_ENABLED"] = "False"  # read when the library is imported
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    for name in list(context.variables.data_docs_sites or {}):
        context.delete_data_docs_site(name)  # its own, below the system's temporary folder
    if site is None:
        return context
    shutil.rmtree(site, ignore_errors=True)
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.resolve())}
    context.add_data_docs_site(
        "flowsight",
        {
            "class_name": "SiteBuilder",
            "store_backend": store,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    return context


def _run_table(context: Any, source: Any, table: Table) -> list[Any]:
    """The results of a table's checks, in the order of the checks."""
    import great_expectations as gx
    import great_expectations.expectations as gxe

    batch = source.add_dataframe_asset(table.name).add_batch_definition_whole_dataframe("all")
    made = [
        getattr(gxe, check.name)(
            **check.options,
            meta={"order": order},
            notes=check.says,
            severity="warning" if check.warning else "critical",
        )
        for order, check in enumerate(table.checks)
    ]
    suite = context.suites.add(gx.ExpectationSuite(name=table.name, expectations=made))
    definition = gx.ValidationDefinition(name=table.name, data=batch, suite=suite)
    definition = context.validation_definitions.add(definition)
    result = definition.run(
        batch_parameters={"dataframe": table.frame},
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": list(table.key),
        },
    )
    return sorted(result.results, key=lambda one: one.expectation_config.meta["order"])


def _outcome(table: Table, check: Check, result: Any) -> Outcome:
    info = result.exception_info or {}
    raised = [value for value in info.values() if isinstance(value, dict)]
    if info.get("raised_exception") or any(value.get("raised_exception") for value in raised):
        raise RuntimeError(f"{check.name} on {table.name} broke: {info}")
    rows: set[tuple[str, ...]] = set()
    if not result.success:
        for entry in result.result.get("unexpected_index_list") or []:
            rows.add(tuple(str(entry[name]) for name in table.key))
        if check.culprits is not None:
            guilty = table.frame[table.frame[check.culprits] == 1]
            rows.update(tuple(map(str, row)) for row in guilty[list(table.key)].values.tolist())
    observed = result.result.get("observed_value")
    observed = float(observed) if isinstance(observed, int | float) else None
    return Outcome(
        table=table, check=check, success=bool(result.success), rows=sorted(rows), observed=observed
    )
