"""The tab Sweep: start, watch, stop, resume and grow the run; its scores and its report."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from deradiff.app import markup
from deradiff.app.error_messages import shows_errors
from deradiff.app.explore import guidance_field
from deradiff.app.requests import MAX_GUIDANCE, MAX_PROMPT
from deradiff.app.sweeps import MAX_SEEDS, Sweeps, objectives_of, report_of, tables_of
from deradiff.errors import ConfigError, DeradiffError
from deradiff.results import Results
from deradiff.rewards import reward_names
from deradiff.runs.cells import Request

PERIOD = 1.5  # seconds between looks at the sweep
_ROWS = 6  # prompts whose images are shown
_LAMS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]


@dataclass(frozen=True)
class Form:
    """What the form opens with: what the run was asked for, or a small new one."""

    prompts: tuple[str, ...]
    seeds: int
    lams: tuple[float, ...]
    guidance: float | None


def form_of(sweeps: Sweeps, prompts: Sequence[str], guidance: float | None) -> Form:
    """What was asked for last, else a beginning with some prompts."""
    earlier = sweeps.run.store.requests()
    if not earlier:
        return Form(tuple(prompts), 1, (0.0, 0.5, 1.0, 1.5), guidance)
    last = earlier[-1]
    scale = last.guidances[0]
    shown = sweeps.engine.default_guidance if scale is None else scale
    return Form(last.prompts, len(last.seeds), last.lams, shown)


def requests_of(text: str | None, seeds: int, lams: Sequence[float], guidance: float | None) -> list[Request]:
    """What the form asks for; a prompt a line.

    Raises:
        ConfigError: a value that can't be used.
    """
    prompts = tuple(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))
    if not prompts:
        raise ConfigError("no prompts; write one a line")
    if not lams:
        raise ConfigError("no lam; choose one or more")
    if longest := next((prompt for prompt in prompts if len(prompt) > MAX_PROMPT), ""):
        raise ConfigError(
            f"a prompt has {len(longest):,} characters, expected at most {MAX_PROMPT:,}: {longest[:40]!r}..."
        )
    if seeds not in range(1, MAX_SEEDS + 1):
        raise ConfigError(f"{seeds} seeds; expected a whole number from 1 to {MAX_SEEDS}")
    if guidance is not None and not 0 <= guidance <= MAX_GUIDANCE:
        raise ConfigError(f"guidance {guidance:g}; expected a number from 0 to {MAX_GUIDANCE:g}")
    return [Request(prompts=prompts, seeds=tuple(range(int(seeds))), lams=tuple(lams), guidances=(guidance,))]


def images_of(sweeps: Sweeps) -> str:
    """The images of the first prompts along lam, at the first seed of each guidance."""
    tables = tables_of(sweeps.run)
    if not tables:
        return markup.empty("No images yet.")
    parts = []
    for scale, results in tables.items():
        title = "" if len(tables) == 1 else f"<h3>Guidance {'default' if scale is None else f'{scale:g}'}</h3>"
        rows = range(min(_ROWS, len(results.prompts)))
        more = len(results.prompts) - len(rows)
        note = f"<p>The report shows {more:,} more prompts.</p>" if more else ""
        parts += [title, markup.grid(results, sweeps.run.folder, rows, 0), note, markup.score_table(results)]
    return "".join(parts)


def choices_of(tables: Iterable[Results]) -> tuple[list[str], list[str]]:
    """What can be raised, and what can be a guard, at any guidance."""
    tables = list(tables)
    raised = {name for results in tables for name in objectives_of(results)}
    return sorted(raised), sorted({name for results in tables for name in results.scores})


def _only(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def build(sweeps: Sweeps, form: Form) -> None:
    """Lay the tab out and connect it."""
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=280, elem_classes="controls"):
            prompts = gr.Textbox("\n".join(form.prompts), label="Prompts, one a line", lines=6, max_lines=12,
                                 elem_id="sweep-prompts")  # fmt: skip
            choices = sorted({*_LAMS, *form.lams})
            lams = gr.CheckboxGroup([(f"{lam:g}", lam) for lam in choices], value=list(form.lams), label="lam",
                                    elem_id="sweep-lams")  # fmt: skip
            with gr.Row():
                seeds = gr.Slider(1, MAX_SEEDS, form.seeds, step=1, label="Seeds", min_width=120, elem_id="sweep-seeds")
                guidance = guidance_field(form.guidance, 120)
            with gr.Row():
                start = gr.Button("Sample", variant="primary", elem_id="start", min_width=120)
                stop = gr.Button("Stop", elem_id="stop-sweep", min_width=80)
            status = gr.HTML(markup.sweep_progress(sweeps.state), elem_id="sweep-status")
            rewards = gr.CheckboxGroup(reward_names(), label="Score by", elem_id="rewards")
            score = gr.Button("Score", elem_id="score")
        with gr.Column(scale=6, min_width=280):
            shown = gr.HTML(images_of(sweeps), elem_id="sweep-images", elem_classes="stage")
    gr.Markdown("## Report", elem_classes="heading")
    with gr.Row(elem_classes="bottom"):
        objectives, scored = choices_of(tables_of(sweeps.run).values())
        objective = gr.Dropdown(objectives, value=_only(objectives), label="Reward to raise", elem_id="objective")
        guards = gr.Dropdown(scored, label="Rewards that must hold", multiselect=True, elem_id="guards")
        report = gr.Button("Write and open the report", elem_id="report", min_width=160)
    answer, frame = gr.HTML(elem_id="report-answer"), gr.HTML(elem_id="report-frame")
    version = gr.State(None)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

    def begin(text: str, seeds: int, lams: list[float], guidance: float | None) -> str:
        sweeps.start(requests_of(text, seeds, lams, sweeps.engine.as_guidance(guidance)))
        return markup.sweep_progress(sweeps.state)

    def score_by(names: list[str]) -> str:
        sweeps.score(names)
        return markup.sweep_progress(sweeps.state)

    outputs = [status, shown, objective, guards, version]
    looked: dict[str, Any] = {"inputs": [version, objective], "outputs": outputs, **quiet}
    start.click(shows_errors(begin, markup.problem), [prompts, seeds, lams, guidance], status, **quiet)
    score.click(shows_errors(score_by, markup.problem), rewards, status, **quiet)
    stop.click(sweeps.stop, queue=False, **quiet)
    gr.Timer(PERIOD).tick(_looking(sweeps), **looked)
    report.click(_writing(sweeps), [objective, guards], [answer, frame], api_visibility="private")


def _looking(sweeps: Sweeps) -> Callable[..., Any]:
    """A listener of the state last shown and the objective chosen: what has changed since."""

    def look(seen: object, chosen: str | None) -> tuple[Any, ...]:
        state = sweeps.state
        if seen == state:
            return (gr.skip(),) * 5
        progress = markup.sweep_progress(state)
        try:
            tables, images = tables_of(sweeps.run).values(), images_of(sweeps)
        except DeradiffError as error:  # shown once, not at every look
            return progress, markup.empty(str(error)), gr.skip(), gr.skip(), state
        objectives, scored = choices_of(tables)
        raised = gr.update(choices=objectives, value=chosen or _only(objectives))
        return progress, images, raised, gr.update(choices=scored), state

    return shows_errors(look, lambda words: (markup.problem(words), *(gr.skip(),) * 4))


def _writing(sweeps: Sweeps) -> Callable[..., Any]:
    """A listener of the objective and the guards: the answer and its report."""

    def write(objective: str | None, guards: list[str]) -> tuple[str, str]:
        if not objective:
            raise ConfigError("no reward to raise; choose one, once images are sampled and scored")
        path, words = report_of(sweeps.run, objective, guards or [])
        return markup.paragraphs([*words, f"Written to {path}."]), markup.report_frame(path.read_text("utf-8"))

    return shows_errors(write, lambda words: (markup.problem(words), gr.skip()))
