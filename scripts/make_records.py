"""Makes records to train on of one's own clips, and of labels for them.

  python scripts/make_records.py --features=clips/ --labels=labels.csv \\
      --output_dir=data/own

--features is a folder of .npz files, one a clip, with an array [frames,
numbers] for each feature; or of .npy files of one feature; or of folders of
.npy files, one a feature; or a CSV or Parquet file of a row a frame, or a row a
clip; or of videos and sounds, whose features extract.py makes first (the extra
[extract]; they stay in output_dir/extracted). --labels has an id and names
separated by ; in a line.

Written are train-*.tfrecord, validate-*.tfrecord and test-*.tfrecord,
features.json and vocabulary.csv, which train.py reads, report.txt, and
skipped.csv of what could not be used; the exit status is 3 then. The same
command goes on where a stopped run was. Clips are read one at a time, two or
three times.
"""

import os
import sys

# Run as a script, from anywhere.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from console import program  # isort: skip  (before TensorFlow)

from console import flag_fields
from recording import config, maker

if __name__ == "__main__":
  flag_fields.define(config.Config)
  program.run(lambda: maker.run(flag_fields.from_flags(config.Config)))
