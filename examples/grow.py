"""A run that grows, from Python, on the embedded pipeline: `python examples/grow.py`, about 20 s on two CPU cores."""

from pathlib import Path
from tempfile import mkdtemp

import deradiff
from deradiff import testbed


def main() -> None:
    recipe = deradiff.Recipe(model="embedded", anchor="embedded", anchor_beta=0.2, steps=8, batch_size=32)
    run = deradiff.Run(Path(mkdtemp()) / "run", recipe)
    run.sample(testbed.prompts(24, seed=1), seeds=1, lams=[0, 1], guidances=[1.0])
    run.sample(lams=[0.5])  # only what is missing
    run.score(["warmth", "faithfulness"])
    guard = deradiff.Guard("faithfulness", margin=0.2, relative=True)
    answer = deradiff.recommend(run.results(), objectives=["warmth"], guards=[guard])
    print(f"lam = {answer.lam:g}; {deradiff.write_report(run, answer)}")


if __name__ == "__main__":
    main()
