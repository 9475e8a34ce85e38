"""The tutorial's notebook is its page: every block that is run is a cell, and the cells are valid."""

import runpy

import nbformat
from tests.docs.pages import ROOT, blocks

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
