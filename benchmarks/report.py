"""How large a long report is, how soon it opens, how smoothly lam moves, and what votes by eye can decide.

    python benchmarks/report.py --json benchmarks/results/report.json

Draws 500 prompts x 9 lams of 512 px from photographs, writes the page, and drags lam in headless Chromium; then lets
simulated raters vote (`votes.py`).
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from playwright.sync_api import Page, sync_playwright
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_sample_images
from votes import measured

from deradiff import Guard, Results, recommend, write_report

LAMS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
OPENED = 5  # times
FRAMES = """() => {
  window.frames_at = [];
  const note = (now) => { window.frames_at.push(now); requestAnimationFrame(note); };
  requestAnimationFrame(note);
}"""


def draw(folder: Path, prompts: int) -> Results:
    """A run whose pictures are crops of photographs that change with lam."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    images = np.empty((prompts, 1, len(LAMS)), dtype=object)
    for prompt in range(prompts):
        side = int(rng.integers(200, 420))
        left, top = int(rng.integers(0, 640 - side)), int(rng.integers(0, 427 - side))
        whole = photographs[prompt % 2].crop((left, top, left + side, top + side)).resize((512, 512))
        for index, lam in enumerate(LAMS):
            image = ImageEnhance.Contrast(ImageEnhance.Color(whole).enhance(1 + 0.3 * lam)).enhance(1 + 0.1 * lam)
            images[prompt, 0, index] = folder / f"{prompt}-{index}.jpg"
            image.save(images[prompt, 0, index], quality=92)
    lams, noise = np.array(LAMS), rng.normal(size=(2, prompts, 1, len(LAMS)))
    scores = {"objective": lams + 0.3 * noise[0], "guard": 1 - 0.02 * lams**2 + 0.02 * noise[1]}
    texts = [f"photograph number {number}, cut out and coloured" for number in range(prompts)]
    return Results(prompts=texts, seeds=[0], lams=LAMS, scores=scores, images=images, path_kl=lams**2 + 0 * noise[0])


def report(quick: bool) -> dict[str, Any]:
    """Size of the page, time to write it and to open it, and frames a second while lam is dragged."""
    prompts = 50 if quick else 500
    with tempfile.TemporaryDirectory() as name:
        results = draw(Path(name), prompts)
        answer = recommend(results, "objective", [Guard("guard", margin=0.05)])
        start = time.perf_counter()
        path = write_report(results, answer, Path(name) / "report.html")
        written = time.perf_counter() - start
        opened, rate = _drive(path)
        size = path.stat().st_size / 1e6
    return {
        f"report_mb_{prompts}x9": round(size, 2),
        "open_s": round(median(opened), 2),
        "scrub_fps": round(rate, 1),
        "write_s": round(written, 1),
    }


def _drive(path: Path) -> tuple[list[float], float]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        opened = list[float]()
        for _ in range(OPENED):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(path.as_uri(), wait_until="commit", timeout=120_000)
            page.wait_for_selector("html[data-ready]", state="attached", timeout=120_000)
            opened.append(float(page.evaluate("Number(document.documentElement.dataset.ready)")) / 1000)
            if len(opened) < OPENED:
                page.close()
        rate = _frames_a_second(page)
        browser.close()
    return opened, rate


def _frames_a_second(page: Page) -> float:
    """The median rate while the pointer drags lam to and fro over a full wall of pictures."""
    page.evaluate("document.getElementById('wall').scrollIntoView()")
    page.wait_for_timeout(2000)
    box = page.locator("#lam").bounding_box()
    assert box is not None
    height = box["y"] + box["height"] / 2
    page.evaluate(FRAMES)
    page.mouse.move(box["x"] + 12, height)
    page.mouse.down()
    for turn in range(4):
        page.mouse.move(box["x"] + (box["width"] - 12 if turn % 2 == 0 else 12), height, steps=60)
    page.mouse.up()
    steps = np.diff(page.evaluate("window.frames_at"))
    return 1000 / float(np.median(steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a tenth of the prompts")
    options = parser.parse_args()
    found = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else {}
    found |= report(options.quick) | measured(options.quick)
    options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    table = Table("figure", "measured")
    for key, value in found.items():
        table.add_row(key, str(value))
    Console().print(table, f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
