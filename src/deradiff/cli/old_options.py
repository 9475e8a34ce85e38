"""Commands and options of version 0.1 in today's words; they go with the next release."""

from collections.abc import Sequence

_RENAMED = {
    "--mode": "--policy",
    "--quality": "--target-error",
    "--half": "--dtype float16",
    "--accumulation": "--gradient-accumulation-steps",
    "--precision": "--mixed-precision",
    "--checkpointing": "--gradient-checkpointing",
    "--targets": "--target-modules",
    "--pairs": "--train-batch-size",
    "--save-every": "--checkpointing-steps",
    "--tracker": "--report-to",
    "--scratch": "--retrained",
}
_GONE = {"--resume": "the same command goes on by itself"}
_RENAMED_COMMANDS = {"study": "export --format optuna"}


def in_todays_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """A command line's words as they are now, and a note on each that was another."""
    now: list[str] = []
    notes: list[str] = []
    for index, word in enumerate(words):
        if index == 0 and word in _RENAMED_COMMANDS:
            notes.append(f"deradiff {word} is deradiff {_RENAMED_COMMANDS[word]} now")
            now += _RENAMED_COMMANDS[word].split()
            continue
        name, equals, value = word.partition("=")
        if name in _GONE:
            notes.append(f"{name} has gone: {_GONE[name]}")
            continue
        if name in _RENAMED:
            notes.append(f"{name} is {_RENAMED[name]} now")
            now += _RENAMED[name].split()
            if equals:
                now.append(value)
        else:
            now.append(word)
    return now, notes
