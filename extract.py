"""Makes features of videos and sounds: an .npz a clip.

  python extract.py --input=clips --output_dir=features
  python extract.py --input=songs --output_dir=features --encoder=audio=logmel
  python extract.py --input=list.csv --output_dir=features \\
      --encoder=rgb=mobilenet.onnx --encoder=audio=logmel --fps=2

--input is a folder, searched for videos and sounds with the folders in it; a
CSV with a column `file`, whose paths start at the CSV's folder, and maybe a
column `id`; or one file.

An encoder is `efficientnet-lite0` (1280 features of a picture), `logmel` (6144
of a second of sound, the log-mel patches of VGGish), or the path of an .onnx or
.tflite file or of a SavedModel's directory, with a file PATH.json beside it
that says what the network takes; docs/extraction.md lists its keys.

A clip's .npz holds an array float32 [frames, size] for each feature, a row for
each 1 / fps seconds. features.json says how they were made, and skipped.csv
which files gave nothing and why: the exit status is then 3. The same command
again makes what is missing.

With --shard=I/N it takes a share of the files, into the same folder; its list
is skipped-0000I-of-0000N.csv. The command without --shard then looks whether
all are there, and lists what gave nothing.

It needs the extra [extract]: pip install -c constraints.txt -e '.[extract]'
"""

import dataclasses

from console import flag_fields
from extraction import decoding
from sharding import shard as shard_lib

# Nothing here may load TensorFlow: the processes that decode import this
# module, start in a moment and stay small.


@dataclasses.dataclass(frozen=True)
class Config(shard_lib.Config, group="Extraction"):
  """What extract.py is told."""

  input: str = flag_fields.path(
    "", "A folder, a CSV of files, or one file.", required=True
  )
  output_dir: str = flag_fields.path(
    "", "Directory to write the features to.", required=True
  )
  encoder: str = flag_fields.text(
    "rgb=efficientnet-lite0,audio=logmel",
    "Features and what makes them, as NAME=ENCODER; give it again for each, or "
    "separate them by commas.",
    repeated=True,
  )
  fps: float = flag_fields.real(
    1.0, "Rows a second of each feature.", low=0.001, high=1000.0
  )
  max_frames: int = flag_fields.integer(
    300, "At most so many rows of a clip, its first.", low=1, high=1_000_000
  )
  jobs: int = flag_fields.integer(
    0, "Files to decode at a time; 0 for as many as there are cores.", low=0
  )
  timeout_secs: float = decoding.timeout_flag()


def parse_encoders(text):
  """(declarations by feature, directories of their files) of --encoder.

  Raises:
    ValueError: it is not of that form, or see `encoders.declare`.
  """
  from extraction import encoders

  declarations, search = {}, []
  for part in flag_fields.parse_names(text):
    name, equals, source = part.partition("=")
    if not (name and equals and source) or name in declarations:
      raise ValueError(
        f"--encoder={part}: need NAME=ENCODER, such as rgb=efficientnet-lite0, "
        "each name once."
      )
    try:
      declarations[name], directory = encoders.declare(source)
    except ValueError as error:
      raise ValueError(f"--encoder={part}: {error}") from None
    if directory:
      search.append(directory)
  if not declarations:
    raise ValueError("--encoder names no encoder.")
  return declarations, search


def run(config):
  """Extracts; returns the exit status."""
  from absl import logging

  from console import program
  from extraction import clips, media

  declarations, search = parse_encoders(config.encoder)
  declaration = {
    "fps": config.fps,
    "max_frames": config.max_frames,
    "encoders": declarations,
  }
  shard = config.own_shard
  skipped = shard.path(clips.SKIPPED) if shard else clips.SKIPPED
  job = clips.Job(
    declaration,
    search,
    config.output_dir,
    config.jobs,
    config.timeout_secs,
    skipped,
  )
  try:
    found = clips.find(config.input)
  except ValueError as error:
    raise ValueError(f"--input: {error}") from None
  if shard:
    sizes = shard_lib.sizes_of([clip.path for clip in found])
    own = set(shard.deal(sizes))
    logging.info("Shard %s: %d of %d files.", shard, len(own), len(sizes))
    found = [clip for clip in found if clip.path in own]
  report = clips.extract_all(found, job)
  logging.info(
    "%d clips in %s: %d made, %d there before, %d skipped%s.",
    report.made + report.kept,
    config.output_dir,
    report.made,
    report.kept,
    len(report.skipped),
    f", see {skipped}" if report.skipped else "",
  )
  for kind, other in ((media.NO_SOUND, "rgb"), (media.NO_PICTURE, "audio")):
    count = sum(reason == kind for _, reason in report.skipped)
    if count and len(declarations) > 1:
      logging.info(
        "%d files are skipped as %s: another --output_dir with the encoder of "
        "%s alone can have them.",
        count, kind, other,
      )  # fmt: skip
  return program.INCOMPLETE if report.skipped else None


if __name__ == "__main__":
  from console import program

  flag_fields.define(Config)
  program.run(lambda: run(flag_fields.from_flags(Config)))
