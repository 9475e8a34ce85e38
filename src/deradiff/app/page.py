"""The page: three tabs on one run, in the reports' colours, with nothing fetched from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from deradiff.app import choose, explore, sweep
from deradiff.app.ballots import Ballots
from deradiff.app.engine import Engine
from deradiff.app.markup import text
from deradiff.app.sweeps import Sweeps
from deradiff.app.turns import Sessions
from deradiff.runs.run import Run

TITLE = "deradiff"
_HERE = Path(__file__).parent
STYLE, KEYS = _HERE / "app.css", _HERE / "keys.js"
_SANS = ["system-ui", "Segoe UI", "Helvetica", "Arial", "sans-serif"]


@dataclass(frozen=True)
class Served:
    """What a page works on.

    Attributes:
        engine: draws.
        sessions: jobs of its visitors.
        sweeps: of the run; None where there are several anchors, which only Explore mixes.
    """

    engine: Engine
    sessions: Sessions
    sweeps: Sweeps | None

    def stop(self) -> None:
        """Stop all that is running, and wait for the sweep to leave its run whole."""
        self.sessions.stop_all()
        if self.sweeps is not None:
            self.sweeps.stop()
            self.sweeps.join()


def serve_run(engine: Engine, run: Run | None) -> Served:
    """An engine and the run that it grows, for one page."""
    return Served(engine, Sessions(), None if run is None else Sweeps(run, engine))


def build_page(served: Served, prompts: Sequence[str], guidance: float | None) -> gr.Blocks:
    """The page, not yet served.

    Args:
        served: what it works on.
        prompts: that its forms open with.
        guidance: likewise; None is the pipeline's default.
    """
    engine = served.engine
    guidance = engine.default_guidance if guidance is None else guidance
    defaults = explore.Defaults(prompts[0], min(engine.recipe.steps, 200), guidance)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=False) as page:
        gr.HTML(_header(engine), elem_id="header")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Explore", id="explore"):
                explorer = explore.Explorer(engine, served.sessions)
                controls = explore.build(explorer, served.sessions, engine.anchors, defaults)
            rater = _run_tabs(served, prompts, guidance)
        _remember(page, [*controls, *([] if rater is None else [rater])])
        page.unload(explore.stopper(served.sessions))
    return page


def _run_tabs(served: Served, prompts: Sequence[str], guidance: float | None) -> Any:
    """The tabs of a run; returns the rater's name."""
    if served.sweeps is None:
        return None
    with gr.Tab("Sweep", id="sweep"):
        sweep.build(served.sweeps, sweep.form_of(served.sweeps, prompts, guidance))
    with gr.Tab("Choose by eye", id="choose"):
        return choose.build(choose.Booth(Ballots(served.sweeps.run), served.sweeps))


def _remember(page: gr.Blocks, controls: list[Any]) -> None:
    """Keep what a visitor set in the visitor's browser, so that a reload loses nothing."""
    kept = gr.BrowserState(None, storage_key="deradiff", secret="deradiff")

    def restore(values: Any) -> list[Any]:
        if not isinstance(values, list) or len(values) != len(controls):
            return [gr.skip() for _ in controls]
        return values

    page.load(restore, kept, controls, show_progress="hidden", api_visibility="private")
    gr.on(
        [control.change for control in controls],
        lambda *values: list(values),
        controls,
        kept,
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="always_last",
    )


def _header(engine: Engine) -> str:
    recipe = engine.recipe
    beta = "" if recipe.anchor_beta is None else f" (aligned at beta {recipe.anchor_beta:g})"
    anchors = ", ".join(engine.anchors) if len(engine.anchors) > 1 else recipe.anchor
    models = text(f"Reference: {recipe.model}. Anchor: {anchors}{beta}.")
    return f'<header><h1>How strongly should the model be aligned?</h1><p class="kicker">{models}</p></header>'


def theme() -> gr.themes.Base:
    """Gradio's plainest theme on the fonts that are there."""
    mono = ["ui-monospace", "monospace"]
    return gr.themes.Base(font=_SANS, font_mono=mono, primary_hue="orange", neutral_hue="stone")
