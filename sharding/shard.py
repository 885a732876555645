"""`--shard=3/16`: the fourth of sixteen shares of the input.

Files are dealt out by size, the largest first, each to the shard that has the
fewest bytes so far. Whoever lists the same files deals them in the same way.
"""

import concurrent.futures
import dataclasses
import hashlib
import heapq
import os
import re
from collections.abc import Iterable, Mapping, Sequence

import files
from console import flag_fields

# As of the shards of a data set.
_PLACE = "-{:05d}-of-{:05d}"
_IN_NAME = r"-(\d{5,})-of-(\d{5,})"
# Asking a remote file's size takes a while, and little of this machine.
_ASKED_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Shard:
  """The share `index` of `count`, from 0."""

  index: int
  count: int

  def __str__(self) -> str:
    """As the flag has it."""
    return f"{self.index}/{self.count}"

  def deal(self, sizes: Mapping[str, int]) -> list[str]:
    """The names that are this shard's, sorted.

    Args:
      sizes: {name: its size}, of all shards.
    """
    names = sorted(sizes)
    order = sorted(range(len(names)), key=lambda i: (-sizes[names[i]], i))
    loads = [(0, i) for i in range(self.count)]
    own = []
    for i in order:
      load, shard = loads[0]
      if shard == self.index:
        own.append(names[i])
      # An empty file takes its turn too.
      heapq.heapreplace(loads, (load + max(sizes[names[i]], 1), shard))
    return sorted(own)

  def path(self, path: str) -> str:
    """The shard's output: out/a.csv is out/a-00003-of-00016.csv."""
    stem, ending = os.path.splitext(path.rstrip("/"))
    return stem + _PLACE.format(self.index, self.count) + ending


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Shards"):
  """The flag."""

  shard: str = flag_fields.text(
    "",
    "Do share I of N alone, I from 0 to N - 1, such as 3/16: files are dealt "
    "out by size, and the output's name gets -0000I-of-0000N. merge.py joins.",
  )

  def __post_init__(self):
    super().__post_init__()
    parse(self.shard)

  @property
  def own_shard(self) -> Shard | None:
    """What the flag says; None without it."""
    return parse(self.shard)


def parse(text: str) -> Shard | None:
  """The shard that "3/16" names; None of "".

  Raises:
    ValueError: it is none.
  """
  if not text:
    return None
  match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
  if not match or int(match[1]) >= int(match[2]):
    raise ValueError(
      f"Need --shard=I/N with I from 0 to N - 1, such as 3/16, got {text!r}."
    )
  return Shard(int(match[1]), int(match[2]))


def find(path: str) -> dict[Shard, str]:
  """{shard: its path} of the outputs beside the path they were named after."""
  directory, name = os.path.split(path.rstrip("/"))
  stem, ending = os.path.splitext(name)
  pattern = re.compile(re.escape(stem) + _IN_NAME + re.escape(ending))
  found = {}
  listed = files.gfile().listdir(directory or ".")
  for entry in sorted(each.rstrip("/") for each in listed):
    if match := pattern.fullmatch(entry):
      shard = Shard(int(match[1]), int(match[2]))
      found[shard] = os.path.join(directory, entry)
  return found


def check_complete(found: Mapping[Shard, str], path: str) -> int:
  """How many shards there are, once all of them are there.

  Args:
    found: as of `find`.
    path: what they were looked for by, for errors.

  Raises:
    ValueError: there is none, they are shards of different numbers, or some
      are missing, which are named.
  """
  counts = sorted({shard.count for shard in found})
  if not counts:
    raise ValueError(f"There are no shards {Shard(0, 1).path(path)} and so on.")
  if len(counts) > 1:
    raise ValueError(
      f"There are shards of {' and of '.join(map(str, counts))} beside {path}: "
      "move those away that are not meant."
    )
  missing = [
    shard
    for i in range(counts[0])
    if (shard := Shard(i, counts[0])) not in found
  ]
  if missing:
    raise ValueError(
      f"{len(missing)} of {counts[0]} shards of {path} are missing: run them "
      f"with {some(f'--shard={shard}' for shard in missing)}."
    )
  return counts[0]


def some(texts: Iterable[str]) -> str:
  """The first of some texts, and how many more there are."""
  names = list(texts)
  more = f" and {len(names) - 5} more" if len(names) > 5 else ""
  return ", ".join(names[:5]) + more


def sizes_of(paths: Sequence[str]) -> dict[str, int]:
  """{path: bytes} of files, local or remote.

  One that can't be looked at has 0: its reader reports it.
  """
  gfile = files.gfile()

  def size(path):
    try:
      return gfile.stat(path).length
    except Exception:  # Of whatever file system.
      return 0

  with concurrent.futures.ThreadPoolExecutor(_ASKED_AT_ONCE) as threads:
    return dict(zip(paths, threads.map(size, paths)))


def fingerprint(sizes: Mapping[str, int]) -> str:
  """Differs where files are others, or would be dealt out in another way."""
  listed = [(os.path.basename(path), sizes[path]) for path in sorted(sizes)]
  return digest(listed)


def digest(value: object) -> str:
  """A short text that differs where a value's `repr` does."""
  data = value if isinstance(value, bytes) else repr(value).encode()
  return hashlib.sha256(data).hexdigest()[:16]
