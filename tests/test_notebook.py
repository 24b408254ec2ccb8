"""docs/example.ipynb, run from the first cell to the last in a real kernel; its asserts are what is tested."""

import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import ROOT
from nbclient import NotebookClient

EXAMPLE = ROOT / "docs" / "example.ipynb"


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a kernel with this interpreter that can import the project; nothing of it is left behind."""
    name = "fedarena-test"
    folder = tmp_path / "jupyter" / "kernels" / name
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": name, "language": "python", "env": {"PYTHONPATH": str(ROOT)}}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    for place in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR", "MPLCONFIGDIR", "FEDARENA_CACHE"):
        monkeypatch.setenv(place, str(tmp_path / place.lower()))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    return name


def outputs(notebook: Any, cell_id: str) -> list[Any]:
    return list(next(cell for cell in notebook.cells if cell.id == cell_id).outputs)


def test_the_example_runs_and_its_asserts_hold(kernel: str, tmp_path: Path):
    notebook = nbformat.read(EXAMPLE, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)  # committed without
    work = tmp_path / "work"
    work.mkdir()
    resources = {"metadata": {"path": str(work)}}
    NotebookClient(
        notebook, timeout=240, kernel_name=kernel, resources=resources
    ).execute()  # raises what a cell raises
    said = [output for cell in code for output in cell.outputs if output.output_type == "stream"]
    assert said == []  # what libraries say went to run.log
    (shown,) = outputs(notebook, "run")
    assert "<table" in shown.data["text/html"]
    assert 'href="hospitals/report.html"' in shown.data["text/html"]
    assert "image/png" in outputs(notebook, "plot")[-1].data
    assert (work / "hospitals" / "report.html").exists()
