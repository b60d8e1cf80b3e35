"""The example that reads a run, as a script and as a notebook.

`python -m tests.test_read_a_run` writes the notebook anew from the script.
"""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.fake_store import write_fake_run

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SCRIPT, NOTEBOOK = EXAMPLES / "read_a_run.py", EXAMPLES / "read_a_run.ipynb"


def notebook_of(script: str) -> dict[str, Any]:
    """The notebook (format 4.5) of a script with cells: each begins with "# %%", one of text with "# %% [markdown]"."""
    cells = []
    for number, (kind, text) in enumerate(re.findall(r"^# %%(.*)\n([\s\S]*?)(?=^# %%|\Z)", script, re.M)):
        text, common = text.strip("\n"), {"id": f"cell-{number}", "metadata": {}}
        if "markdown" in kind:
            source = re.sub(r"^# ?", "", text, flags=re.M).splitlines(keepends=True)
            cells.append({"cell_type": "markdown", **common, "source": source})
        else:
            source = text.splitlines(keepends=True)
            cells.append({"cell_type": "code", **common, "execution_count": None, "outputs": [], "source": source})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    """A folder with a run of the name that the example opens."""
    write_fake_run(tmp_path, "quickstart")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    plt.close("all")


def test_the_notebook_is_the_script():
    assert json.loads(NOTEBOOK.read_text(encoding="utf-8")) == notebook_of(SCRIPT.read_text(encoding="utf-8"))


def test_the_script_finds_the_planted_head_and_draws_it(quickstart, capsys):
    runpy.run_path(str(SCRIPT))
    assert "layer 1, head 2, by -2.0" in capsys.readouterr().out
    assert (quickstart / "my_figure.png").stat().st_size > 10_000


def test_the_cells_of_the_notebook_run_in_order(quickstart, capsys):
    names: dict[str, Any] = {}
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert "layer 1, head 2" in capsys.readouterr().out and (quickstart / "my_figure.png").is_file()


if __name__ == "__main__":
    notebook = notebook_of(SCRIPT.read_text(encoding="utf-8"))
    NOTEBOOK.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
