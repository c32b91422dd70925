"""`flowsight promote`: the gate, then the aliases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowsight.errors import GateError, InputError
from flowsight.params import config
from flowsight.params.promotion import PromotionParams
from flowsight.registry import aliases as moving
from flowsight.registry import evidence, gate, locks, model_answers, store, trail
from flowsight.registry.evidence import Evidence
from flowsight.registry.gate import Verdict
from flowsight.registry.store import CHALLENGER, CHAMPION, PREVIOUS, Registry
from flowsight.registry.trail import Plan

if TYPE_CHECKING:
    import pandas as pd

_SAME = ("item_id", "sha256", "label", "truth_sha256")
_SCORED = ("item_id", "score", "group", "weight")


@dataclass(frozen=True)
class Outcome:
    """What `promote` found and did."""

    verdict: Verdict
    champion: str | None
    """Version before."""
    challenger: str
    done: bool

    def lines(self) -> list[str]:
        """The table and the verdict, for a person."""
        verdict = "accepted" if self.verdict.accepted else "REFUSED"
        text = [*gate.table(self.verdict.checks), "", f"{verdict}: version {self.challenger}"]
        text[-1] += f" against champion {self.champion}" if self.champion else ", the first one"
        return text + [f"  {reason}" for reason in self.verdict.reasons]


def promote(
    model: str,
    *,
    dry_run: bool = False,
    force: str | None = None,
    root: Path = Path(),
    say: bool = True,
) -> Outcome:
    """Let the challenger take the champion's place, if the gate accepts it.

    Args:
        model: registered name.
        dry_run: only look; nothing is changed.
        force: a reason to do it against the gate's verdict.
        root: the repository, for its thresholds, its name, and videos to score anew.
        say: print the table.

    Raises:
        GateError: refused.
        NotThereError: no such model, no challenger, or a run that was deleted.
        ResourceError: the registry cannot be reached, or somebody else was faster.
    """
    params = config.load(root / "params.yaml")
    repository = locks.repository_id(root)
    registry = store.connect()
    registry.check_model(model)
    history = trail.entries(registry, model) if dry_run else moving.settle(registry, model)
    aliases = registry.aliases(model)
    challenger, champion = _both(registry, model, aliases)
    verdict = _judge(registry, challenger, champion, params, repository, root)
    outcome = Outcome(
        verdict, champion.version if champion else None, challenger.version, done=False
    )
    if say:
        print("\n".join(outcome.lines()), flush=True)
    if not verdict.accepted and force is None:
        raise GateError(f"{model} {challenger.version} refused: {'; '.join(verdict.reasons)}")
    if dry_run:
        return outcome
    plan = Plan(
        action="promote",
        champion=(aliases.get(CHAMPION), challenger.version),
        previous=(aliases.get(PREVIOUS), aliases.get(CHAMPION)),
        why=_why(verdict, force),
        numbers=verdict.numbers,
    )
    moving.change(registry, model, trail.next_number(history), plan)
    return Outcome(verdict, outcome.champion, outcome.challenger, done=True)


def _why(verdict: Verdict, force: str | None) -> str:
    if verdict.accepted:
        return "accepted by the gate" + (f"; {force}" if force else "")
    return f"FORCED: {force} (refused: {'; '.join(verdict.reasons)})"


def _both(
    registry: Registry, model: str, aliases: dict[str, str]
) -> tuple[Evidence, Evidence | None]:
    if CHALLENGER not in aliases:
        there = ", ".join(f"{a} is version {v}" for a, v in sorted(aliases.items())) or "no alias"
        raise store.NotThereError(
            f"expected a challenger of {model}, found none ({there}); `flowsight register {model}` "
            "makes one"
        )
    challenger = evidence.load(registry, registry.version(model, CHALLENGER))
    if CHAMPION not in aliases:
        return challenger, None
    if aliases[CHAMPION] == aliases[CHALLENGER]:
        raise InputError(f"version {aliases[CHAMPION]} of {model} is the champion already")
    return challenger, evidence.load(registry, registry.version(model, CHAMPION))


def _judge(
    registry: Registry,
    challenger: Evidence,
    champion: Evidence | None,
    params: config.Params,
    repository: str,
    root: Path,
) -> Verdict:
    limits: PromotionParams = params.system(challenger.tags.get("system", challenger.model)).promote
    times = 3 if limits.max_latency_sec is not None else 0
    own = model_answers.latency(registry, challenger, times)
    scores = _champion_scores(registry, challenger, champion, root) if champion else None
    return gate.judge(
        challenger,
        champion,
        limits,
        champion_scores=scores,
        latency_sec=own,
        repository=repository,
        seed=params.seed,
    )


def _champion_scores(
    registry: Registry, challenger: Evidence, champion: Evidence, root: Path
) -> pd.DataFrame:
    """The champion's scores of the challenger's test items, made anew where there are none."""
    import pandas as pd

    tested = challenger.tested
    # an item of the same name with other content, class or mask is another item
    keys = [name for name in _SAME if name in tested and name in champion.items]
    before = champion.scores[[c for c in _SCORED if c in champion.scores]].merge(
        champion.items[keys], on="item_id"
    )
    joined = tested[keys].merge(before, on=keys, how="left")
    missing = tested[joined["score"].isna().to_numpy()]
    own = joined.dropna(subset=["score"])
    if missing.empty:
        return own
    anew = challenger.subject.anew(registry, champion, challenger, missing, root)
    return pd.concat([own, anew], ignore_index=True)
