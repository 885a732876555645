"""Joins what `--shard` made into one output, and checks that nothing is amiss.

  python inference.py --shard=0/2 --output_file=test.csv ...
  python inference.py --shard=1/2 --output_file=test.csv ...
  python merge.py --output_file=test.csv

finds test-00000-of-00002.csv and test-00001-of-00002.csv beside test.csv, which
it writes. Every shard has to be there, whole, of the same model, flags and
files, and no video twice: else an error names what is amiss, and nothing is
written. The format is that of the shards. With --input_data_pattern all ids of
the data are read, and each has to have a row.

  python merge.py --output_dir=data/own

joins the folders data/own-00000-of-00002 and so on of scripts/make_records.py.

The shards stay. In memory are 8 bytes a video, and an array or a class of the
shards: some MB for a million videos.
"""

from console import program  # isort: skip  (before TensorFlow)

import dataclasses

import tensorflow.compat.v1 as tf
from absl import logging

import files
import readers
from console import flag_fields
from recording import joining
from sharding import formats, manifest, videos
from sharding import shard as shard_lib


@dataclasses.dataclass(frozen=True)
class Config(flag_fields.Config, group="Joining"):
  """What merge.py is told."""

  output_file: str = flag_fields.path(
    "", "The --output_file of inference.py: the shards are beside it."
  )
  output_dir: str = flag_fields.path(
    "", "The --output_dir of scripts/make_records.py, likewise."
  )
  input_data_pattern: str = flag_fields.paths(
    "",
    "Read the ids of these files, all that were predicted for, and check that "
    "each has a row. Not of segments.",
  )

  def __post_init__(self):
    super().__post_init__()
    if bool(self.output_file) == bool(self.output_dir):
      raise ValueError(
        "Give the --output_file or the --output_dir of the shards' commands."
      )
    if self.output_dir and self.input_data_pattern:
      raise ValueError("--input_data_pattern goes with --output_file.")


def accounts(outputs):
  """The manifests of shards, which belong together.

  Args:
    outputs: {shard: path}, in their order.

  Raises:
    ValueError: a part that is not whole, or was made otherwise than the first.
  """
  known = {shard: manifest.load(path) for shard, path in outputs.items()}
  manifests = {shard: own for shard, own in known.items() if own}
  if broken := [shard for shard in outputs if shard not in manifests]:
    raise ValueError(
      f"{outputs[broken[0]]} is not whole: run "
      f"{shard_lib.some(f'--shard={shard}' for shard in broken)} again."
    )
  first = min(manifests, key=lambda shard: shard.index)
  for shard, own in manifests.items():
    if own.shard != str(shard):
      raise ValueError(f"{outputs[shard]} is shard {own.shard}, renamed.")
    if changed := own.differs(manifests[first]):
      raise ValueError(
        f"{outputs[shard]} was made with another {', '.join(changed)} than "
        f"{outputs[first]}."
      )
  return list(manifests.values())


def _check_videos(paths, manifests, kind, pattern):
  """Checks the ids of all parts, of a format of videos."""
  found, counts = videos.check_unique(paths, kind.ids)
  for path, own, count in zip(paths, manifests, counts):
    if count != own.num_rows:
      raise ValueError(
        f"{path} has {count} rows, where its account says {own.num_rows}."
      )
  if pattern:
    data = readers.expand_data_pattern(pattern, "input_data_pattern")
    listing = shard_lib.fingerprint(shard_lib.sizes_of(data))
    if listing != manifests[0].listing:
      raise ValueError(
        "--input_data_pattern: the files are not those that the shards were "
        "dealt: others, or of other sizes."
      )
    missing = videos.missing(data, found)
    if len(missing) > sum(own.num_unread for own in manifests):
      raise ValueError(
        f"{len(missing)} videos of --input_data_pattern have no row, such as "
        f"{shard_lib.some(missing)}."
      )


def join(config):
  """Joins the parts of a file of predictions; returns an exit status."""
  output = config.output_file
  found = shard_lib.find(output)
  shard_lib.check_complete(found, output)
  found = dict(sorted(found.items(), key=lambda item: item[0].index))
  paths, manifests = list(found.values()), accounts(found)
  made_by = manifests[0].made_by
  is_segments = made_by["segments"]
  kind = formats.FORMATS[made_by["--output_format"]]
  files.check_outputs({"--output_file": output}, {"merge.py": paths})
  if not is_segments:
    _check_videos(paths, manifests, kind, config.input_data_pattern)
  elif config.input_data_pattern:
    raise ValueError("--input_data_pattern is not for segments: leave it out.")
  with files.ReplacedFile(output, binary=True) as stream:
    if is_segments:
      limit = made_by["--segment_max_pred"]
      formats.join_segments(paths, stream, limit)
    else:
      kind.join(paths, stream)
  logging.info(
    "Joined %d shards with %d rows in %s.",
    len(paths),
    sum(own.num_rows for own in manifests),
    output,
  )
  return _tell_unread(output, paths, manifests)


def _tell_unread(output, paths, manifests):
  """Joins the lists of what could not be read; returns an exit status."""
  count = sum(own.num_unread for own in manifests)
  listing = f"{output}.unread.txt"
  if not count:
    if tf.io.gfile.exists(listing):  # Of what has just been replaced.
      tf.io.gfile.remove(listing)
    return None
  texts = [
    files.read_text(f"{path}.unread.txt")
    for path, own in zip(paths, manifests)
    if own.num_unread
  ]
  files.write_text(listing, "".join(texts))
  logging.error("%d records have no row: %s lists them.", count, listing)
  return program.INCOMPLETE


def main():
  """Joins what the flags name."""
  config = flag_fields.from_flags(Config)
  if config.output_dir:
    return joining.join(config.output_dir)
  return join(config)


if __name__ == "__main__":
  flag_fields.define(Config)
  program.run(main)
