"""What a shard's output says of itself: OUTPUT.json beside it.

It is written last. So an output with it is whole, and one without it, or of
another size than it says, is made anew.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import files
from sharding import shard as shard_lib

_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What is said.

  Attributes:
    shard: str, "3/16".
    num_files: int, of this shard.
    listing: str, `shard.fingerprint` of the files of all shards.
    made_by: dict for JSON of all that the rows depend on: of the model, of
      flags.
    num_rows: int, the rows of the output.
    num_unread: int, records without one.
    num_bytes: int, the output's size.
  """

  shard: str
  num_files: int
  listing: str
  made_by: Mapping[str, Any]
  num_rows: int = 0
  num_unread: int = 0
  num_bytes: int = 0

  def differs(self, other: "Manifest") -> list[str]:
    """Names of what outputs of one job have in common, and these have not."""
    found = ["files to read"] if self.listing != other.listing else []
    names = dict.fromkeys([*self.made_by, *other.made_by])
    return found + [
      name
      for name in names
      if self.made_by.get(name) != other.made_by.get(name)
    ]


def path_of(output: str) -> str:
  """Where an output's manifest is."""
  return f"{output}.json"


def load(output: str) -> Manifest | None:
  """The manifest of an output that is whole; None if it is not."""
  try:
    values = json.loads(files.read_text(path_of(output)))
    if values.pop("version") != _VERSION:
      return None
    found = Manifest(**values)
  except FileNotFoundError:
    return None
  except (AttributeError, KeyError, TypeError, ValueError):
    raise ValueError(
      f"{path_of(output)} is not what --shard writes beside an output: move it."
    ) from None
  gfile = files.gfile()
  if not gfile.exists(output) or gfile.stat(output).length != found.num_bytes:
    return None
  return found


class Task:
  """A shard's work on one output file.

  Attributes:
    paths: list of str, the shard's files.
    output: str, where its output goes.
  """

  def __init__(
    self,
    shard: shard_lib.Shard,
    paths: Sequence[str],
    output: str,
    made_by: Mapping[str, Any],
  ):
    """Deals the files out.

    Args:
      shard: the share to take.
      paths: the files of all shards.
      output: the shard's own.
      made_by: as of `Manifest`.
    """
    sizes = shard_lib.sizes_of(paths)
    self.paths = shard.deal(sizes)
    self.output = output
    self._manifest = Manifest(
      str(shard), len(self.paths), shard_lib.fingerprint(sizes), made_by
    )

  def done(self) -> Manifest | None:
    """What an earlier run of the same command made; None if there is nothing.

    Raises:
      ValueError: what is there is whole, and was made in another way.
    """
    found = load(self.output)
    if found and (changed := found.differs(self._manifest)):
      raise ValueError(
        f"{self.output} is whole, but was made with another "
        f"{', '.join(changed)}: give another --output_file, or delete it."
      )
    return found

  def finish(self, num_rows: int, num_unread: int) -> None:
    """Says that the output is whole."""
    manifest = dataclasses.replace(
      self._manifest,
      num_rows=num_rows,
      num_unread=num_unread,
      num_bytes=files.gfile().stat(self.output).length,
    )
    values = {"version": _VERSION, **dataclasses.asdict(manifest)}
    files.write_text(path_of(self.output), json.dumps(values, indent=1) + "\n")


def of_model(checkpoint: str, values: Mapping[str, Any]) -> str:
  """A text that differs where a model's weights or flags do.

  Args:
    checkpoint: path prefix; its index has the checksum of each variable.
    values: of the model flags.
  """
  with files.gfile().GFile(f"{checkpoint}.index", "rb") as stream:
    index = stream.read()
  return shard_lib.digest((index, sorted(values.items())))
