"""The stages of `dvc.yaml` as nodes of a task graph: what Airflow draws and schedules.

A stage whose instances parameters decide (`foreach: ${shards}`) is one node, mapped over its
instances at run time, for another run may have other shards; where they belong to systems it is a
node a system (`train@<system>`), so that none waits for another's. Every other instance is a node
of its own: a plain stage, and each key of a `foreach` that is written out in `dvc.yaml` (`validate`
stands at three places of the graph, so its three keys are three nodes). Edges are those of the
stages, less the ones that others imply. Stdlib and ruamel only; `dvc.lock` is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from itertools import count
from pathlib import Path

from flowsight.errors import InputError
from flowsight.pipeline import dvc_yaml
from flowsight.pipeline.dvc_yaml import Stage

SEVERAL = "several"
"""Section of a node whose instances belong to several of them."""


@dataclass(frozen=True)
class Needs:
    """What a stage needs to run; of several instances, the largest."""

    gpus: int = 0
    memory_gb: float = 2
    timeout_min: float = 60
    queue: str = "cpu"
    retries: int = 1


@dataclass(frozen=True)
class Node:
    """One node of the task graph."""

    name: str
    """`frames`, `train@<system>`, or `validate@manifest`."""
    stages: tuple[str, ...]
    """Its instances with the parameters as they are now; a mapped node may get others, or have none
    now."""
    mapped: bool
    upstream: tuple[str, ...]
    """Nodes right before it, by name."""
    section: str
    """The part of the graph it is drawn in: `meta.group`."""
    needs: Needs
    desc: str = ""

    @property
    def task_id(self) -> str:
        """The name in characters that Airflow takes."""
        return re.sub(r"[^\w.-]", "-", self.name)


def load(root: Path | str = ".") -> dict[str, Node]:
    """The nodes of `<root>/dvc.yaml`, each after the ones it needs.

    Raises:
        InputError: a file is missing, the nodes form a cycle, or instances of one node ask for
            different queues.
    """
    return build(dvc_yaml.load(root, unused=True))


def build(stages: Mapping[str, Stage]) -> dict[str, Node]:
    """Nodes of the given stages, each after the ones it needs.

    Args:
        stages: in the order of `dvc.yaml`.

    Raises:
        InputError: as for `load`.
    """
    members: dict[str, list[Stage]] = {}
    for stage in stages.values():
        members.setdefault(node_of(stage), []).append(stage)
    before = _edges(stages)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise InputError(
            f"dvc.yaml: expected stage groups without a cycle, got {' -> '.join(error.args[1])}; "
            f"write the foreach of one of them out, then each key is a node of its own"
        ) from None
    direct = _without_detours(order, before)
    found = {name: _node(name, members[name], sorted(direct[name])) for name in order}
    return _in_sections(found)


def node_of(stage: Stage) -> str:
    """The node that a stage is an instance of."""
    if not stage.from_params:
        return stage.name
    return f"{stage.group}@{stage.system}" if stage.system else stage.group


def _edges(stages: Mapping[str, Stage]) -> dict[str, set[str]]:
    """For each node the nodes whose instances one of its instances reads.

    What an unused group reads and writes is known in part, so it may seem to read what reads it,
    or what another system writes. There the order of `dvc.yaml` decides: stages stand below those
    that they read; and systems read nothing of each other.
    """
    place = {name: number for number, name in enumerate(stages)}
    edges: dict[str, set[str]] = {node_of(stage): set() for stage in stages.values()}
    for name, needed in dvc_yaml.upstream(stages).items():
        for other in needed:
            guessed = stages[name].unused or stages[other].unused
            systems = {stages[name].system, stages[other].system} - {""}
            if not guessed or (place[other] < place[name] and len(systems) < 2):
                edges[node_of(stages[name])].add(node_of(stages[other]))
    return edges


def _without_detours(order: Iterable[str], before: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Edges less those that a longer way implies; the same order, a graph one can read."""
    ancestors: dict[str, set[str]] = {}
    direct: dict[str, set[str]] = {}
    for name in order:
        implied: set[str] = set().union(*(ancestors[other] for other in before[name]))
        ancestors[name] = implied | before[name]
        direct[name] = before[name] - implied
    return direct


def _node(name: str, stages: list[Stage], upstream: Iterable[str]) -> Node:
    sections = {stage.system or str(stage.meta.get("group", "")) for stage in stages}
    return Node(
        name=name,
        stages=tuple(stage.name for stage in stages if not stage.unused),
        mapped=stages[0].from_params,
        upstream=tuple(upstream),
        section=sections.pop() if len(sections) == 1 else SEVERAL,
        needs=_needs(name, stages),
        desc=stages[0].desc,
    )


def _needs(name: str, stages: Iterable[Stage]) -> Needs:
    default = Needs()
    metas = [stage.meta for stage in stages]
    queues = {str(meta.get("queue", default.queue)) for meta in metas}
    if len(queues) > 1:
        raise InputError(
            f"dvc.yaml: expected one meta.queue for all of {name}, got {', '.join(sorted(queues))}"
        )
    return Needs(
        gpus=max(int(meta.get("gpus", default.gpus)) for meta in metas),
        memory_gb=max(float(meta.get("memory_gb", default.memory_gb)) for meta in metas),
        timeout_min=max(float(meta.get("timeout_min", default.timeout_min)) for meta in metas),
        queue=queues.pop(),
        retries=max(int(meta.get("retries", default.retries)) for meta in metas),
    )


def _in_sections(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Number sections (`data`, `data 2`) where drawing them whole would make a cycle of sections.

    Airflow cannot show task groups that wait for each other.
    """
    placed: dict[str, str] = {}
    edges: dict[str, set[str]] = {}
    for name, node in nodes.items():
        before = {placed[other] for other in node.upstream}
        for number in count(1):
            section = node.section if number == 1 else f"{node.section} {number}"
            if not any(_leads_to(section, other, edges) for other in before - {section}):
                break
        placed[name] = section
        edges.setdefault(section, set()).update(before - {section})
    return {name: replace(node, section=placed[name]) for name, node in nodes.items()}


def _leads_to(start: str, end: str, before: Mapping[str, set[str]]) -> bool:
    """Whether `start` stands, directly or not, before `end`."""
    todo, seen = [end], set()
    while todo:
        here = todo.pop()
        if here == start:
            return True
        if here not in seen:
            seen.add(here)
            todo += before.get(here, set())
    return False


def assign(groups: Mapping[str, Iterable[str]], names: Iterable[str]) -> dict[str, list[str]]:
    """Which instances of a run each node has.

    Args:
        groups: node to stage names, as `flowsight prepare` prints them.
        names: names of the nodes.

    Returns:
        Node name to stage names; empty for a node that this run does not need.

    Raises:
        InputError: a stage has no node: the revision has another `dvc.yaml` than the graph.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    for group, stages in groups.items():
        for stage in stages:
            name = stage if stage in found else group
            if name not in found:
                raise InputError(
                    f"expected stages of the nodes {', '.join(found)}, got {stage}: the run's "
                    f"revision has another dvc.yaml than this graph; use DAGs of that revision"
                )
            found[name].append(stage)
    return found
