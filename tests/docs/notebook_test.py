"""Runs docs/own_data.ipynb, from a folder of videos to names, on few videos."""

import ast
import pathlib
import re
import threading
from multiprocessing import connection

import nbclient
import nbformat
import pytest

from tests import programs

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# The test starts programs, which fork from one that has loaded TensorFlow.
_STARTING = """
import shlex
from multiprocessing import connection

def start(command):
  with connection.Client({address!r}) as test:
    test.send(shlex.split(command))
    status, *said = test.recv()
  print(*said)
  assert not status
"""
_COMMAND = re.compile(r"^!\{sys\.executable\} ((?:.*\\\n)*.*)$", re.M)


def _start_what_is_asked_for(listener, count):
  for _ in range(count):
    with listener.accept() as notebook:
      notebook.send(programs.run_program(*notebook.recv()))


@pytest.mark.slow
def test_own_data_becomes_names(tmp_path, monkeypatch):
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  notebook = nbformat.read(_ROOT / "docs/own_data.ipynb", as_version=4)
  sizes = "num_videos, steps = 60, 600"
  assert sizes in notebook.cells[1].source
  started = 0
  for cell in notebook.cells:
    if cell.cell_type == "code":
      cell.source, count = _COMMAND.subn(r'start(f"""\1""")', cell.source)
      started += count
  assert started == 5
  first = notebook.cells[1]
  first.source = first.source.replace(sizes, "num_videos, steps = 12, 4")
  with connection.Listener() as listener:
    first.source += _STARTING.format(address=listener.address)
    threading.Thread(
      target=_start_what_is_asked_for, args=(listener, started), daemon=True
    ).start()
    nbclient.NotebookClient(
      notebook,
      timeout=300,
      resources={"metadata": {"path": str(_ROOT / "docs")}},
    ).execute()  # Raises what a cell raises.
  said = [
    "".join(output.get("text", "") for output in cell.get("outputs", []))
    for cell in notebook.cells
  ]
  assert "12 clips in " in said[5]
  assert "Saved" in said[7] and "GAP: " in said[7]
  assert "clip000.mp4 (5 frames)" in said[10] and "0 - 2 s" in said[10]
  scores = ast.literal_eval(_value(notebook.cells[9]))
  assert len(scores) == 5 and all(0.0 < each < 1.0 for each in scores.values())
  assert _value(notebook.cells[12]).count("[") == 9  # 8 rows of a matrix.


def _value(cell):
  """What a cell shows of its last line."""
  return cell.outputs[-1]["data"]["text/plain"]
