"""The tab Explore: a prompt, lam on a slider with previews, several lams side by side."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from PIL.Image import Image

from deradiff.app import markup
from deradiff.app.engine import Engine
from deradiff.app.error_messages import shows_errors
from deradiff.app.requests import MAX_LAM, MAX_STEPS, ImageRequest
from deradiff.app.turns import Job, Sessions, Stopped
from deradiff.errors import ConfigError

_POLL = 0.15  # seconds between looks at a job
_SIDE_BY_SIDE = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0]
EMPTY = "Say what to draw, and move lam."
AT_ONCE = 16  # listeners of visitors that wait for their turns


@dataclass(frozen=True)
class Defaults:
    """What the tab opens with."""

    prompt: str
    steps: int
    guidance: float | None


class Explorer:
    """What the tab's controls do; each value of a control comes with the call, nothing is kept between visitors.

    Args:
        engine: that draws.
        sessions: jobs by visitor.
    """

    def __init__(self, engine: Engine, sessions: Sessions) -> None:
        self._engine, self._sessions = engine, sessions

    def request(self, values: Sequence[Any], *, preview: bool) -> ImageRequest:
        """What the controls ask for: prompt, seed, steps, guidance, then a lam an anchor.

        Raises:
            ConfigError: a value that can't be used.
        """
        prompt, seed, steps, guidance, *lams = values
        if not (prompt or "").strip():
            raise ConfigError("the prompt is empty; say what to draw")
        return ImageRequest(
            prompt=prompt,
            lams=tuple(zip(self._engine.anchors, lams, strict=True)),
            seed=seed,
            steps=steps,
            guidance=self._engine.as_guidance(guidance),
            preview=preview,
        )

    def draw(self, session: str, request: ImageRequest) -> Iterator[tuple[str | None, str]]:
        """The image as html and the progress, as they come; None keeps the image that is shown."""
        with self._sessions.job_of(session) as job:
            for image in self._watched(job, lambda: self._engine.draw(request, job)):
                if image is None:
                    yield None, markup.progress(job)
                else:
                    yield markup.figure(image, caption_of(request), kind="exact"), markup.status()
                    return
            if self._sessions.is_current(session, job):  # else a newer one has taken its place
                yield None, markup.status("Stopped")

    def compare(self, session: str, requests: Sequence[ImageRequest]) -> Iterator[tuple[str, str]]:
        """Several images side by side, as they come, and the progress."""
        drawn: list[str] = []
        with self._sessions.job_of(session) as job:
            for number, request in enumerate(requests, start=1):
                label = f"Image {number} of {len(requests)}"
                ended = False
                for image in self._watched(job, lambda request=request: self._engine.draw(request, job)):
                    if image is None:
                        yield markup.figures(drawn), markup.progress(job, label)
                    else:
                        drawn.append(markup.figure(image, _lams_of(request)))
                        ended = True
                if not ended:
                    yield markup.figures(drawn), markup.status("Stopped")
                    return
            yield markup.figures(drawn), markup.status()

    def _watched(self, job: Job, work: Callable[[], Image]) -> Iterator[Image | None]:
        """None while it works, then what it made; nothing at the end where it was stopped."""
        made: list[Image] = []
        errors: list[Exception] = []

        def run() -> None:
            try:
                made.append(work())
            except Exception as error:  # noqa: BLE001  (raised below, where the visitor is)
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(_POLL)
        while thread.is_alive():
            yield None
            thread.join(_POLL)
        if errors and not isinstance(errors[0], Stopped):
            raise errors[0]
        yield from made


def caption_of(request: ImageRequest) -> str:
    """How an image was made."""
    kind = "preview, fewer steps" if request.preview else f"exact, {request.steps} steps"
    return f"{_lams_of(request)} · {kind} · seed {request.seed}"


def _lams_of(request: ImageRequest) -> str:
    if len(request.lams) == 1:
        return f"lam {request.lams[0][1]:g}"
    return ", ".join(f"lam of {name} {value:g}" for name, value in request.lams)


def build(explorer: Explorer, sessions: Sessions, anchors: Sequence[str], defaults: Defaults) -> list[Any]:
    """Lay the tab out and connect it; returns the controls that a visitor's browser remembers."""
    with gr.Row(elem_classes="split"):
        with gr.Column(scale=4, min_width=280, elem_classes="controls"):
            prompt = gr.Textbox(defaults.prompt, label="Prompt", lines=2, max_length=2000, elem_id="prompt")
            lams = [_slider(name, len(anchors), index) for index, name in enumerate(anchors)]
            with gr.Row():
                seed = gr.Number(0, label="Seed", precision=0, min_width=90, elem_id="seed")
                steps = gr.Number(
                    defaults.steps,
                    label="Steps",
                    precision=0,
                    minimum=1,
                    maximum=MAX_STEPS,
                    min_width=90,
                    elem_id="steps",
                )
                guidance = guidance_field(defaults.guidance, 90)
            with gr.Row():
                draw = gr.Button("Draw", variant="primary", elem_id="draw", min_width=90)
                stop = gr.Button("Stop", elem_id="stop", min_width=90)
        with gr.Column(scale=6, min_width=280):
            shown = gr.HTML(markup.empty(EMPTY), elem_id="shown", elem_classes="stage")
            status = gr.HTML(markup.status(), elem_id="explore-status")
    gr.Markdown("## Side by side", elem_classes="heading")
    chosen = gr.CheckboxGroup(
        [(f"{lam:g}", lam) for lam in _SIDE_BY_SIDE], value=[0.0, 0.5, 1.0, 1.5], label="lam", elem_id="side-lams"
    )
    compare = gr.Button("Draw side by side", elem_id="compare")
    row, row_status = gr.HTML(elem_id="side", elem_classes="stage"), gr.HTML(elem_id="side-status")
    controls = [prompt, seed, steps, guidance, *lams]

    common: dict[str, Any] = {"inputs": controls, "outputs": [shown, status], "show_progress": "hidden"}
    common |= {"concurrency_limit": AT_ONCE, "api_visibility": "private"}
    exact = _drawing(explorer, preview=False)
    for slider in lams:
        slider.input(_drawing(explorer, preview=True), trigger_mode="always_last", **common)
        slider.release(exact, **common)
    gr.on([draw.click, prompt.submit], exact, **common)
    compare.click(
        _comparing(explorer), [chosen, *controls],
        [row, row_status], show_progress="hidden", concurrency_limit=AT_ONCE, api_visibility="private",
    )  # fmt: skip
    stop.click(stopper(sessions), queue=False, api_visibility="private")
    return controls


def _drawing(explorer: Explorer, *, preview: bool) -> Callable[..., Any]:
    """A listener of the controls: the image, and how far it is."""

    def listener(request: gr.Request, *values: Any) -> Any:
        asked = explorer.request(values, preview=preview)
        for image, progress in explorer.draw(str(request.session_hash), asked):
            yield gr.skip() if image is None else image, progress

    return shows_errors(listener, lambda words: (gr.skip(), markup.problem(words)))


def _comparing(explorer: Explorer) -> Callable[..., Any]:
    """A listener of lams and the controls: images at these lams, and how far they are."""

    def listener(request: gr.Request, lams: list[float], *values: Any) -> Any:
        if not lams:
            raise ConfigError("no lam; choose one or more to draw side by side")
        others = values[5:]  # of several anchors the first varies
        asked = [explorer.request([*values[:4], lam, *others], preview=False) for lam in sorted(lams)]
        yield from explorer.compare(str(request.session_hash), asked)

    return shows_errors(listener, lambda words: (gr.skip(), markup.problem(words)))


def guidance_field(scale: float | None, min_width: int) -> gr.Number:
    """A field for the guidance scale, hidden where the pipeline takes none; browsers send 0 for none."""
    return gr.Number(scale, label="Guidance", min_width=min_width, elem_classes="guidance", visible=scale is not None)


def _slider(name: str, count: int, index: int) -> gr.Slider:
    label = "lam" if count == 1 else f"lam of {name}"
    info = "0 is the reference, 1 the anchor; above 1 extrapolates." if index == 0 else None
    return gr.Slider(0, MAX_LAM, 0.5 if index == 0 else 0.0, step=0.05, label=label, info=info,
                     elem_id=f"lam-{index}", elem_classes="lam")  # fmt: skip


def stopper(sessions: Sessions) -> Callable[..., None]:
    """A listener that stops the job of whoever calls it."""

    def stop(request: gr.Request) -> None:
        sessions.stop(str(request.session_hash))

    return stop
