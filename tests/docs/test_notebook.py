"""The tutorial's notebook is its page: every block that is run is a cell, and Jupyter runs the cells."""

import os
import re
import runpy
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tests.docs.pages import ROOT, blocks, small

PAGE, NOTEBOOK = ROOT / "docs/tutorial.md", ROOT / "docs/tutorial.ipynb"
NAMES = runpy.run_path(str(ROOT / "docs/notebook.py"))


def test_the_notebook_is_that_of_the_page() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook == NAMES["notebook_of"](PAGE.read_text()), "write it anew: python docs/notebook.py"


def test_its_cells_are_the_blocks_that_the_tests_of_pages_run() -> None:
    run = [block for block in blocks(PAGE) if block.runs and "pip install" not in block.text]
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.replace("!deradiff", "deradiff") for cell in cells] == [block.text.rstrip("\n") for block in run]


def checked(source: str) -> str:
    """A cell that fails where one of its commands does, after which Jupyter itself would go on."""
    return re.sub(r"^(!(?:.*\\\n)*.*)$", r"\1\nassert _exit_code == 0", source, flags=re.MULTILINE)


@pytest.mark.notebook
def test_jupyter_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a kernel, commands in processes of their own; the tests of pages run the same blocks in this process."""
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("JUPYTER_PATH", str(Path(sys.prefix) / "share/jupyter"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        cell.source = checked(small(cell.source)) if cell.cell_type == "code" else cell.source
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert {"image/png", "application/vnd.plotly.v1+json"} <= shown
    for made in ("report.html", "../tutorial-lora/bake.html", "../tutorial-lora/pytorch_lora_weights.safetensors"):
        assert (tmp_path / "runs/tutorial" / made).is_file()
