"""Run the notebooks and keep the outputs that nbval compares: ``.venv/bin/python tests/refresh_notebooks.py``.

Cells marked ``NBVAL_CHECK_OUTPUT`` keep their output and every code cell its execution count; all other outputs are
stripped, so that no picture, path or timing enters the repository.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

MARK = "NBVAL_CHECK_OUTPUT"


def refresh(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code" and MARK not in cell.source:
            cell.outputs = []
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


if __name__ == "__main__":
    folder = Path(__file__).parents[1] / "notebooks"
    for path in [Path(name) for name in sys.argv[1:]] or sorted(folder.glob("*.ipynb")):
        refresh(path)
