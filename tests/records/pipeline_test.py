"""Tests of records/pipeline.py: who reads which record."""

import collections

import pytest
import tensorflow.compat.v1 as tf

from records import pipeline, report
from tests import record_data as records


@pytest.mark.parametrize("num_shards", [2, 4])
def test_shards_have_each_record_once_an_epoch(tmp_path, num_shards):
  # More files than shards, and fewer.
  files = [
    records.write(tmp_path / str(i), [b"%d %d" % (i, j) for j in range(3 + i)])
    for i in range(3)
  ]
  found = {}  # {epoch: [records of each shard]}
  with tf.Graph().as_default(), tf.Session() as session:
    for shard in range(num_shards):
      options = pipeline.Options(
        batch_size=100,
        num_epochs=2,
        shuffle_buffer=5,
        shard=(shard, num_shards),
      )
      batch = tf.data.experimental.get_single_element(
        pipeline.record_batches(
          files, options, report.ReadReport(), parse_ids=None
        )
      )
      read, _, _, epochs = session.run(batch)
      for epoch in range(2):
        found.setdefault(epoch, []).append(set(read[epochs == epoch]))
  written = {b"%d %d" % (i, j): 1 for i in range(3) for j in range(3 + i)}
  for shards in found.values():
    assert collections.Counter(r for shard in shards for r in shard) == written
    assert all(shards)
  assert found[0][0] != found[1][0]
