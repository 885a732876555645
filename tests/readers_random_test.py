"""Random mixtures of good and flawed records, against what was written."""

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from tests import readers_test
from tests import record_data as records

NUM_CLASSES = readers_test.NUM_CLASSES
MAX_FRAMES = 4


def field(number, content):
  """A length-delimited field of a protocol buffer."""
  prefix, size = [number << 3 | 2], len(content)
  while size > 127:
    prefix.append(size & 127 | 128)
    size >>= 7
  return bytes([*prefix, size]) + content


def shuffled_record(rng, video_id, labels, features, id_key):
  """A SequenceExample whose fields come in any order, with some more of them.

  Args:
    rng: numpy generator.
    video_id: see `records.frame_record`, as what follows.
    labels: list of int, or None.
    features: dict of name to a list of strings for each frame.
    id_key: str.
  """
  whole = tf.train.SequenceExample.FromString(
    records.frame_record(video_id, labels, {}, id_key=id_key)
  )
  for name, frames in features.items():
    steps = whole.feature_lists.feature_list[name].feature
    for strings in frames:
      steps.add().bytes_list.value.extend(strings)
  if rng.random() < 0.5:
    whole.context.feature["start"].float_list.value.append(2.5)
  if rng.random() < 0.5:
    extra = whole.feature_lists.feature_list["motion"].feature
    extra.add().float_list.value.extend([1.0, 2.0])
  context = [
    field(1, field(1, key.encode()) + field(2, value.SerializeToString()))
    for key, value in whole.context.feature.items()
  ]
  lists = [
    field(1, field(1, key.encode()) + field(2, value.SerializeToString()))
    for key, value in whole.feature_lists.feature_list.items()
  ]
  rng.shuffle(context)
  rng.shuffle(lists)
  parts = [field(1, b"".join(context)), field(2, b"".join(lists))]
  rng.shuffle(parts)
  return b"".join(parts)


def random_record(rng, video_id, sizes):
  """(serialized, flaw or None, (labels, frames) that are to come, or None)."""
  flaw = rng.choice([*readers_test.RECORD_KINDS, *[""] * 12])
  if flaw in ("missing_feature", "unequal_lengths") and len(sizes) == 1:
    flaw = ""
  count = int(rng.integers(1, 2 * MAX_FRAMES))
  features = {
    name: [[rng.bytes(size)] for _ in range(count)]
    for name, size in sizes.items()
  }
  labels = rng.choice(NUM_CLASSES, 2, replace=False).tolist()
  written_labels, written = list(labels), dict(features)
  some = str(rng.choice(list(sizes)))
  if flaw == "unparsable_record":
    return b"\xff" + rng.bytes(9), flaw, None
  if flaw == "missing_id":
    video_id = None
  elif flaw == "missing_feature":
    del written[some]
  elif flaw == "bad_feature_size":
    row = int(rng.integers(count))
    written[some] = list(features[some])
    (frame,) = features[some][row]
    wrong = [[frame + b"!"], [frame[1:]], [frame, frame], []]
    written[some][row] = wrong[rng.integers(len(wrong))]
  elif flaw == "no_frames":
    written = {name: [] for name in sizes}
  elif flaw == "unequal_lengths":
    written[some] = [*features[some], features[some][0]]
  elif flaw == "label_out_of_range":
    written_labels.insert(1, NUM_CLASSES)
  elif flaw == "no_labels":
    written_labels = []
  record = shuffled_record(
    rng,
    video_id,
    written_labels,
    written,
    str(rng.choice(["id", "video_id"])),
  )
  if flaw not in ("", "unequal_lengths", "label_out_of_range"):
    return record, flaw, None
  rows = [
    b"".join(features[name][row][0] for name in sizes)
    for row in range(min(count, MAX_FRAMES))
  ]
  return record, flaw, (sorted(labels), rows)


@pytest.mark.parametrize(
  ("sizes", "shuffle"),
  [
    ({"rgb": 5, "audio": 3}, False),
    ({"rgb": 5, "audio": 3}, True),
    ({"audio": 127}, False),
    ({"rgb": 128, "audio": 1}, True),
    ({"rgb": 16383, "b/c d": 2, "audio": 16384}, False),
  ],
)
def test_what_comes_is_what_was_written(tmp_path, sizes, shuffle):
  rng = np.random.default_rng([len(sizes), sum(sizes.values()), shuffle])
  expected, counts, files = {}, {}, []
  for shard in range(3):
    written = []
    for number in range(40):
      video_id = b"%d_%d" % (shard, number)
      record, flaw, video = random_record(rng, video_id, sizes)
      written.append(record)
      if flaw:
        counts[flaw] = counts.get(flaw, 0) + 1
      if video is not None:
        expected[video_id] = video
    files.append(records.write(tmp_path / str(shard), written))
  assert len(counts) >= 5
  reader = readers_test.frame_reader(
    feature_names=list(sizes),
    feature_sizes=list(sizes.values()),
    max_frames=MAX_FRAMES,
  )
  options = {"shuffle_buffer": 50, "deterministic": False} if shuffle else {}
  batches = readers_test.read(
    reader, files, batch_size=7, skip_unlabelled=True, **options
  )
  found = readers_test.ids(batches)
  assert sorted(found) == sorted(expected)
  if not shuffle:
    by_file = [[i for i in found if i[:1] == b"%d" % n] for n in range(3)]
    in_file = [[i for i in expected if i[:1] == b"%d" % n] for n in range(3)]
    assert by_file == in_file
  assert reader.report.counts() == counts
  for batch in batches:
    start = 0
    for row, video_id in enumerate(batch["video_ids"]):
      labels, frames = expected[video_id]
      assert np.flatnonzero(batch["labels"][row]).tolist() == labels
      assert batch["num_frames"][row] == len(frames)
      end = start + len(frames)
      assert [bytes(frame) for frame in batch["features"][start:end]] == frames
      start = end
    assert start == len(batch["features"])


@pytest.mark.slow
def test_a_holdout_is_the_same_in_order_and_shuffled(tmp_path):
  rng = np.random.default_rng(3)
  sizes = readers_test.SIZES
  written = [random_record(rng, b"v%d" % i, sizes)[0] for i in range(90)]
  path = records.write(tmp_path / "a", written)

  def read(**kwargs):
    reader = readers_test.frame_reader()
    batches = readers_test.read(reader, [path], **kwargs)
    return sorted(readers_test.ids(batches)), reader.report.counts()

  everything, counts = read()
  found, found_counts = [], {}
  for holdout in (False, True):
    kwargs = {"holdout_fraction": 0.4, "holdout": holdout}
    side, side_counts = read(**kwargs)
    assert read(shuffle_buffer=20, **kwargs) == (side, side_counts)
    found += side
    for kind, count in side_counts.items():
      found_counts[kind] = found_counts.get(kind, 0) + count
  assert "unparsable_record" not in side_counts
  assert sorted(found) == everything
  assert found_counts == counts


@pytest.mark.parametrize("strings", [[], [b"12345"] * 2])
@pytest.mark.parametrize("wrong", [0, 1])
def test_a_frame_of_no_or_two_strings_costs_no_neighbour(
  tmp_path, strings, wrong
):
  rng = np.random.default_rng(0)
  good = [[b"12345"], [b"67890"]]
  short = [[b"12345"], [b"67890"]]
  short[wrong] = [b"1234"]
  written = [
    shuffled_record(rng, video_id, [1], {"rgb": frames}, "id")
    for video_id, frames in [
      (b"a", good),
      (b"b", [good[0], strings]),
      (b"c", short),
      (b"d", good),
    ]
  ]
  reader = readers_test.frame_reader(feature_names=["rgb"], feature_sizes=[5])
  path = records.write(tmp_path / "a", written)
  (batch,) = readers_test.read(reader, [path])
  assert batch["video_ids"].tolist() == [b"a", b"d"]
  assert [bytes(frame) for frame in batch["features"]] == [
    b"12345",
    b"67890",
  ] * 2
  assert reader.report.counts() == {"bad_feature_size": 2}
