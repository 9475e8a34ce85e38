"""The tutorial as a notebook: `python docs/notebook.py` writes tutorial.ipynb anew from tutorial.md.

Python blocks become cells, and so do commands, with Jupyter's exclamation mark; what isn't run stays text.
"""

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PAGE, NOTEBOOK = Path(__file__).with_name("tutorial.md"), Path(__file__).with_name("tutorial.ipynb")
_BLOCK = re.compile(r"^(<!-- not run: .+ -->\n)?```(\w*)\n(.*?)^```$\n?", re.MULTILINE | re.DOTALL)
_PAGES = re.compile(r"\]\((\w+)\.md")  # links to other pages


def notebook_of(page: str) -> NotebookNode:
    """The notebook of a page in Markdown; equal pages give equal notebooks."""
    cells: list[NotebookNode] = []
    text, end = "", 0
    for block in _BLOCK.finditer(page):
        not_run, language, code = block.groups()
        text += page[end : block.start()]
        end = block.end()
        if not_run or "pip install" in code:
            text += f"```{language}\n{code}```\n"
            continue
        cells.append(new_markdown_cell(_links(text)))
        cells.append(new_code_cell(code.rstrip("\n") if language == "python" else _commands(code)))
        text = ""
    cells.append(new_markdown_cell(_links(text + page[end:])))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def _links(text: str) -> str:
    return _PAGES.sub(r"](\1.html", text.strip("\n"))


def _commands(code: str) -> str:
    """Commands as Jupyter runs them; one that goes on over several lines keeps them."""
    return re.sub(r"^(?=\S)", "!", code.rstrip("\n"), flags=re.MULTILINE)


def main() -> None:
    """Write it."""
    nbformat.write(notebook_of(PAGE.read_text(encoding="utf-8")), NOTEBOOK)


if __name__ == "__main__":
    main()
