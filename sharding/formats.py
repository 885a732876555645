"""Joining the shards of each format of predictions.

A format has two functions: `ids`, which yields the ids of a file in batches,
and `join`, which writes the files one after the other to a stream. Neither
holds more than a batch of rows, an array of one shard, or a class's segments.

Axes: N videos, P pairs of class and score.
"""

import heapq
import io
import itertools
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

import files
from predictions import segment_submission, stored_predictions, submission

_BATCH = 4096


class Format(NamedTuple):
  """See the module."""

  ids: Callable[[str], Iterator[list[bytes]]]
  join: Callable[[Sequence[str], IO[bytes]], None]


def _csv_ids(path):
  lines = submission.iter_lines(path, submission.VIDEO_HEADER)
  while batch := list(itertools.islice(lines, _BATCH)):
    yield [line.partition(b",")[0] for _, line in batch]


def _join_csv(paths, stream):
  stream.write(f"{submission.VIDEO_HEADER}\n".encode())
  for path in paths:
    for _, line in submission.iter_lines(path, submission.VIDEO_HEADER):
      stream.write(line + b"\n")


def _npz_ids(path):
  with _arrays(path) as arrays:
    text, ends = arrays["ids"].tobytes(), arrays["id_ends"].tolist()
  for start in range(0, len(ends), _BATCH):
    batch = ends[max(start - 1, 0) : start + _BATCH]
    pairs = itertools.pairwise(batch if start else [0, *batch])
    yield [text[a:b] for a, b in pairs]


def _join_npz(paths, stream):
  """An array of all shards after the other; numbers of places are shifted."""
  shifted = {"id_ends": "ids", "pair_ends": "classes"}
  with zipfile.ZipFile(stream, "w") as archive:
    for name, dtype in stored_predictions.ARRAYS.items():
      if name == "num_classes":
        with _arrays(paths[0]) as arrays, _member(archive, name) as member:
          np.lib.format.write_array(member, arrays[name])
        continue
      sizes = []
      for path in paths:
        with _arrays(path) as arrays:
          sizes.append(arrays[name].size)
      with _member(archive, name) as member:
        header = {
          "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
          "fortran_order": False,
          "shape": (sum(sizes),),
        }
        np.lib.format.write_array_header_1_0(member, header)
        offset = 0
        for path in paths:
          with _arrays(path) as arrays:
            values = np.asarray(arrays[name], dtype)
            if name in shifted:
              values = values + offset
              offset = values[-1] if values.size else offset
          member.write(values.tobytes())


def _member(archive, name):
  return archive.open(f"{name}.npy", "w", force_zip64=True)


def _arrays(path):
  return np.load(_opened(path), allow_pickle=False)


def _opened(path):
  """A file to read and to seek in; a remote one is held in memory."""
  if "://" not in path:
    return open(path, "rb")
  with files.gfile().GFile(path, "rb") as stream:
    return io.BytesIO(stream.read())


def _parquet_ids(path):
  for group in _row_groups(path, ["id"]):
    yield [video_id.encode() for video_id in group["id"].to_pylist()]


def _join_parquet(paths, stream):
  from pyarrow import parquet

  writer: Any = None
  for path in paths:
    for table in _row_groups(path):
      writer = writer or parquet.ParquetWriter(stream, table.schema)
      writer.write_table(table)
  if writer:
    writer.close()
    return
  with _opened(paths[0]) as source:  # All are empty.
    stream.write(source.read())


def _row_groups(path, columns=None):
  """Yields tables, none of them empty."""
  from pyarrow import parquet

  with _opened(path) as stream:
    file = parquet.ParquetFile(stream)
    for i in range(file.num_row_groups):
      table = file.read_row_group(i, columns=columns)
      if table.num_rows:
        yield table


def join_segments(
  paths: Sequence[str], stream: IO[bytes], max_per_class: int
) -> None:
  """Writes the segment CSV of parts: for each class the best of all.

  Raises:
    ValueError: a part lists what another does, or is none.
  """
  stream.write(f"{segment_submission.SEGMENT_HEADER}\n".encode())
  lines = [segment_submission.iter_part(path) for path in paths]
  ranked = heapq.merge(*lines, key=lambda line: line[0])
  for label, group in itertools.groupby(ranked, key=lambda line: line[0]):
    pairs = [pair for _, own in group for pair in own]
    # Stable: equal scores stay in the order of the shards.
    pairs.sort(key=lambda pair: -pair[1])
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
      raise ValueError(
        f"A segment of class {label} is in more than one of the shards, "
        f"{os.path.basename(paths[0])} and so on."
      )
    best = b" ".join(names[:max_per_class])
    stream.write(b"%d,%s\n" % (label, best))


FORMATS = {
  "csv": Format(_csv_ids, _join_csv),
  "npz": Format(_npz_ids, _join_npz),
  "parquet": Format(_parquet_ids, _join_parquet),
}
