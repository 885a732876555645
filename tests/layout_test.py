"""Who imports whom: downwards only, and in no circle."""

import ast
import graphlib
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
# Rooms, and modules of the root, from the top to the bottom. Each imports from
# lines below its own; a room also from itself.
_LINES = """
scripts
blend eval export_model extract inference merge predict report train
learnable_pooling
evaluation named recording reporting training
sharding
predictions
checkpoints
model_flags
data_flags frame_level_models video_level_models
extraction readers
eval_util losses mean_average_precision_calculator models
average_precision_calculator
records
console files pooling
"""
_LINE_OF = {
  name: number
  for number, line in enumerate(_LINES.split("\n"))
  for name in line.split()
}


def _sources():
  """{module's name: its file} of the product."""
  rooms = [path.parent for path in _ROOT.glob("*/__init__.py")]
  files = [path for folder in (_ROOT, *rooms) for path in folder.glob("*.py")]
  found = {path.relative_to(_ROOT).with_suffix(""): path for path in files}
  return {
    ".".join(name.parts).removesuffix(".__init__"): path
    for name, path in found.items()
    if name.parts[0] not in ("setup", "tests")
  }


def _imports(path, modules):
  """Names of the modules that a file imports, wherever in it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f"{node.module}.{alias.name}" for alias in node.names]
      names = [n if n in modules else node.module for n in names]
    else:
      continue
    yield from (name for name in names if name in modules)


def test_imports_go_down():
  modules = _sources()
  graph = {name: {*_imports(path, modules)} for name, path in modules.items()}
  rooms = {name.partition(".")[0] for name in graph}
  assert rooms == set(_LINE_OF), "a new one needs a line, see above"
  upwards = [
    f"{name} imports {other}"
    for name, others in graph.items()
    for other in others
    if (room := name.partition(".")[0]) != (below := other.partition(".")[0])
    and _LINE_OF[room] >= _LINE_OF[below]
  ]
  assert not upwards
  graphlib.TopologicalSorter(graph).prepare()  # Raises CycleError.
