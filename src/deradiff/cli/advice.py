"""What to do next as commands that can be pasted, with what they cost."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deradiff.analysis.criteria import Guard
    from deradiff.analysis.recommend import Recommendation
    from deradiff.results import Results
    from deradiff.runs.store import Store


def commands(answer: "Recommendation", results: "Results", run: Path) -> Iterator[tuple[str, str]]:
    """What each is for, and the command."""
    from deradiff.runs.store import Store

    store = Store.open(run)
    common = f"deradiff sweep --out {shlex.quote(str(run))}"
    scoring = _scoring(answer)
    if answer.suggested_lams:
        lams = ",".join(f"{lam:g}" for lam in answer.suggested_lams)
        cost = _cost(store, results, lams=answer.suggested_lams)
        yield "More lams", f"{common} --lams {lams} {scoring}{cost}"
    if answer.settled_by is not None and answer.settled_by[1] > answer.prompts:
        more = answer.settled_by[1] - answer.prompts
        cost = _cost(store, results, prompts=more)
        yield f"{more} more prompts, one a line of more.txt", f"{common} --prompts more.txt {scoring}{cost}"


def _scoring(answer: "Recommendation") -> str:
    """The options that make a sweep end with the same question."""
    criteria = answer.criteria
    rewards, objectives = (shlex.quote(",".join(names)) for names in (answer.curves, criteria.objectives))
    text = f"--rewards {rewards} --objective {objectives}"
    guards = ",".join(map(format_guard, criteria.guards))
    return text + (f" --guard {shlex.quote(guards)}" if guards else "")


def format_guard(guard: "Guard") -> str:
    """A guard as `deradiff.cli.parsing.parse_guards` reads it."""
    if guard.margin is None:
        return guard.reward
    share = f"{100 * guard.margin:.12g}%" if guard.relative else f"{guard.margin:.12g}"
    return f"{guard.reward}:{'±' if guard.both else '-'}{share}"


def _cost(store: "Store", results: "Results", *, lams: Sequence[float] = (), prompts: int = 0) -> str:
    """Images and time of a command, from what the run has recorded."""
    from deradiff.cli.running import duration
    from deradiff.runs.costs import recorded_rates

    count, seeds, _ = results.shape
    sampled = lams or results.lams
    guidances = len({guidance for request in store.requests() for guidance in request.guidances})
    images = (prompts or count) * seeds * len(sampled) * guidances
    rates = recorded_rates(store)
    text = f"  # {images:,} images"
    if rates is None:
        return text
    nfe = sum(store.recipe.nfe(lam) for lam in sampled) / len(sampled) * images * rates.nfe_share
    return f"{text}, about {duration(nfe * rates.seconds_per_nfe)} here"
