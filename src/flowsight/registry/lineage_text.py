"""A lineage as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def as_text(found: Mapping[str, Any]) -> str:
    """What `lineage.trace` returned, as text."""
    return "\n".join(_of_model(found) if "params" in found else _of_source(found))


def _of_model(found: Mapping[str, Any]) -> list[str]:
    named = f" ({', '.join(found['aliases'])})" if found["aliases"] else ""
    lines = [
        f"{found['model']} version {found['version']}{named}",
        f"  run          {found['run_id']}",
        f"  commit       {found['commit']} (repository: {found['repository']})",
        f"  data set     {found['dataset']}, split {found['split']}",
        *(f"    {name:<11}{md5}" for name, md5 in sorted(found["data"].items())),
        "  checkpoints",
        *(f"    {name:<28}{md5}" for name, md5 in sorted(found["checkpoints"].items())),
        f"  numbers      {', '.join(f'{k} {v}' for k, v in found['numbers'].items())}",
        f"  quarantined  {found['quarantine_share']}",
        f"  paper        {found['paper_comparable']}",
    ]
    if found["consistent"] is False:
        lines.append("  WARNING: the commit's dvc.lock has other checkpoints")
    if found["problem"]:
        lines.append(f"  stages unknown: {found['problem']}")
    if found["stages"]:
        lines.append("  stages that led there (dvc.lock of the commit)")
    for one in found["stages"]:
        runs = f"  runs {', '.join(one['runs'])}" if one["runs"] else ""
        lines.append(f"    {one['stage']:<38} {_first(one['outs'])}{runs}")
    lines.append(f"  {len(found['params'])} parameters (--json shows them)")
    return lines


def _first(outs: Mapping[str, Any]) -> str:
    path, md5 = next(iter(outs.items()), ("", ""))
    return f"{path} {md5}"


def _of_source(found: Mapping[str, Any]) -> list[str]:
    lines = [f"{found['kind']} {found['reference']}"]
    if found.get("stages"):
        lines.append(f"  made by {', '.join(one['stage'] for one in found['stages'])}")
    lines += [f"  {_line(one)}" for one in found["models"]]
    return lines if found["models"] else [*lines, "  no registered model"]


def _line(one: Mapping[str, Any]) -> str:
    named = f" ({', '.join(one['aliases'])})" if one["aliases"] else ""
    text = f"{one['model']} version {one['version']}{named}: "
    if "subset" in one:
        if one["subset"] == "unknown":
            return text + "UNKNOWN, its list of clips is gone: take it for trained on it"
        verb = "LEARNT from it" if one["learnt"] else "did not learn from it"
        return text + f"{verb} ({one['subset'] or 'not in its data'})"
    said = [one.get("how", ""), ", ".join(one.get("holds", [])), ", ".join(one.get("stages", []))]
    return text + "; ".join(part for part in said if part)
