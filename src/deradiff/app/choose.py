"""The tab Choose by eye: which of two images is better, without knowing their lams."""

from collections.abc import Callable, Sequence
from typing import Any, get_args

import gradio as gr

from deradiff.app import markup
from deradiff.app.ballots import Ballot, Ballots
from deradiff.app.error_messages import shows_errors
from deradiff.app.sweeps import Sweeps, tables_of
from deradiff.errors import ConfigError
from deradiff.votes import Outcome

HELP = (
    "Which image would you rather have for the prompt? Press <kbd>←</kbd> or <kbd>→</kbd>, or <kbd>↓</kbd> for a tie. "
    "Votes are only ever added: one that is given can't be taken back."
)
_LABELS = {"left": "Left", "tie": "Tie", "right": "Right"}
START = "Give your name, and begin."
END = "You have judged every pair of this run. Sample more, or let somebody else judge."


def pair_html(ballot: Ballot) -> str:
    """Both images, named by their sides alone."""
    width = int.from_bytes(ballot.left[16:20], "big")  # of a PNG file
    crisp = ' class="crisp"' if width <= markup.SMALL else ""
    sides = "".join(
        f'<figure{crisp}><img src="{markup.data_uri(png)}" alt="The image on the {side}"></figure>'
        for side, png in (("left", ballot.left), ("right", ballot.right))
    )
    return f'<p class="prompt">{markup.text(ballot.prompt)}</p><div class="pair">{sides}</div>'


class Booth:
    """What the tab's controls do."""

    def __init__(self, ballots: Ballots, sweeps: Sweeps) -> None:
        self._ballots, self._sweeps = ballots, sweeps

    def guidance(self) -> float | None:
        """The guidance whose images are compared: the run's first."""
        return next(iter(tables_of(self._sweeps.run)), None)

    def show(self, rater: str) -> tuple[str, str, str]:
        """The pair, its ticket, and how many votes this rater gave."""
        guidance = self.guidance()
        ballot = self._ballots.next(rater, guidance)
        n_votes = self._ballots.count(rater, guidance)
        count = markup.status(f"{n_votes:,} vote{'s' * (n_votes != 1)} by you")
        if ballot is None:
            return markup.empty(END), "", count
        return pair_html(ballot), ballot.ticket, count

    def vote(self, rater: str, ticket: str, outcome: str) -> tuple[str, str, str]:
        """Note a vote and show the next pair.

        Raises:
            ConfigError: there is no such outcome.
        """
        known: dict[str, Outcome] = {name: name for name in get_args(Outcome)}
        if outcome not in known:
            raise ConfigError(f"no outcome {outcome!r}; choose from {', '.join(known)}")
        self._ballots.vote(ticket, known[outcome])
        return self.show(rater)

    def standing(self, guards: Sequence[str]) -> str:
        """What all votes say."""
        return markup.paragraphs(self._ballots.standing(self.guidance(), guards))

    def guard_names(self) -> list[str]:
        """Rewards that may be guards."""
        return sorted({name for results in tables_of(self._sweeps.run).values() for name in results.scores})


def build(booth: Booth) -> gr.Textbox:
    """Lay the tab out and connect it; returns the rater's name, which a visitor's browser remembers."""
    with gr.Row(elem_classes="bottom"):
        rater = gr.Textbox(label="Your name", max_length=100, scale=3, elem_id="rater", min_width=160)
        begin = gr.Button("Begin", variant="primary", elem_id="begin", min_width=100, scale=1)
    gr.HTML(f'<p class="hint">{HELP}</p>')
    pair = gr.HTML(markup.empty(START), elem_id="pair", elem_classes="stage")
    with gr.Row(elem_classes="sides"):
        buttons = {name: gr.Button(label, elem_id=f"vote-{name}", min_width=90) for name, label in _LABELS.items()}
    count = gr.HTML(markup.status(), elem_id="vote-count")
    gr.Markdown("## What the votes say", elem_classes="heading")
    with gr.Row(elem_classes="bottom"):
        guards = gr.Dropdown([], label="Rewards that must hold", multiselect=True, elem_id="vote-guards", min_width=220)
        ask = gr.Button("Show the recommended lam", elem_id="standing-button", min_width=220)
    standing = gr.HTML(elem_id="standing")
    ticket = gr.Textbox(visible="hidden", elem_id="ticket", label="ticket", interactive=False)
    shown: dict[str, Any] = {"outputs": [pair, ticket, count], "show_progress": "hidden", "api_visibility": "private"}

    def voting(outcome: str) -> Callable[..., Any]:
        def vote(rater: Any, ticket: Any) -> Any:
            return booth.vote(rater, ticket, outcome)

        return shows_errors(vote, lambda words: (gr.skip(), gr.skip(), markup.problem(words)))

    def no_pair(words: str) -> tuple[str, str, str]:
        return markup.empty(words), "", markup.status()

    gr.on([begin.click, rater.submit], shows_errors(booth.show, no_pair), rater, **shown)
    for name, button in buttons.items():
        button.click(voting(name), [rater, ticket], trigger_mode="once", **shown)
    ask.click(shows_errors(booth.standing, markup.problem), guards, standing, api_visibility="private")
    guards.focus(lambda: gr.update(choices=booth.guard_names()), outputs=guards, show_progress="hidden",
                 api_visibility="private")  # fmt: skip
    return rater
