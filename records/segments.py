"""Five-second segments of videos, as YouTube-8M labels them since 2019.

Axes: B videos, N frames of the whole batch, D features, S segments, L rated
(segment, class) pairs.
"""

import tensorflow.compat.v1 as tf

from records import tensors

# Frames of a segment, one a second.
SIZE = 5
# Above any start time: makes one number of a video and a start.
_STRIDE = 1 << 31


def windows(num_frames):
  """Every segment of every video, one after the other.

  Args:
    num_frames: int32 [B].

  Returns:
    (int64 [S] video, int64 [S] first frame within it); the last of a video may
    be shorter than `SIZE`.
  """
  counts = tf.cast((num_frames + SIZE - 1) // SIZE, tf.int64)
  videos = tf.repeat(tf.range(tf.size(counts, out_type=tf.int64)), counts)
  before = tf.repeat(tf.cumsum(counts, exclusive=True), counts)
  return videos, (tf.range(tf.size(videos, out_type=tf.int64)) - before) * SIZE


def distinct(videos, starts):
  """The segments among rated pairs, each once.

  Args:
    videos: int64 [L].
    starts: int64 [L], >= 0 and below 2^31.

  Returns:
    (int64 [S] videos, int64 [S] starts, int64 [L] segment of each pair).
  """
  keys, index = tf.unique(videos * _STRIDE + starts, out_idx=tf.int64)
  return keys // _STRIDE, keys % _STRIDE, index


def cut(frames, num_frames, videos, starts):
  """The frames of segments, flat.

  Args:
    frames: [N, D], those of one video after those of the other.
    num_frames: int32 [B].
    videos: int64 [S].
    starts: int64 [S], below num_frames of their video.

  Returns:
    ([M, D] frames of one segment after those of the other, int32 [S] frames of
    each, at most `SIZE`).
  """
  counts = tf.cast(num_frames, tf.int64)
  lengths = tf.minimum(tf.gather(counts, videos) - starts, SIZE)
  first = tf.gather(tf.cumsum(counts, exclusive=True), videos) + starts
  shift = tf.repeat(first - tf.cumsum(lengths, exclusive=True), lengths)
  rows = shift + tf.range(tf.size(shift, out_type=tf.int64))
  return tf.gather(frames, rows), tf.cast(lengths, tf.int32)


def names(video_ids, videos, starts):
  """`id:start` of each segment: string [S]."""
  ids = tf.gather(video_ids, videos)
  return tf.strings.join([ids, tf.strings.as_string(starts)], separator=":")


def all_of(batch, num_classes):
  """A reader's batch of videos as one of all their segments, without labels.

  Args:
    batch: dict as in `readers.py`.
    num_classes: int, C.
  """
  videos, starts = windows(batch["num_frames"])
  none = tf.zeros([tf.size(videos), num_classes], tf.bool)
  return {**_batch(batch, videos, starts), "labels": none}


def rated(batch, ratings, num_frames, keep, num_classes):
  """A reader's batch of videos as one of their rated segments.

  Args:
    batch: dict as in `readers.py`, of the records that are kept.
    ratings: see `tensors.parse_ratings`, of all records.
    num_frames: int32 [records].
    keep: bool [records].
    num_classes: int, C.
  """
  videos, starts, classes, scores = ratings
  counts = tf.cast(tf.gather(num_frames, videos), tf.int64)
  inside = (starts >= 0) & (starts < counts) & tf.gather(keep, videos)
  inside &= (classes >= 0) & (classes < num_classes)
  # From rows of the records to rows of those that are kept.
  rows = tf.cumsum(tf.cast(keep, tf.int64), exclusive=True)
  videos, starts, classes, scores = tensors.kept(
    [tf.gather(rows, videos), starts, classes, scores], inside
  )
  videos, starts, index = distinct(videos, starts)
  places = tf.stack([index, classes], axis=1)
  shape = [tf.size(videos), num_classes]
  return {
    **_batch(batch, videos, starts),
    "labels": tf.tensor_scatter_nd_update(
      tf.zeros(shape, tf.bool), places, scores >= 0.5
    ),
    "label_weights": tf.tensor_scatter_nd_update(
      tf.zeros(shape), places, tf.ones_like(scores)
    ),
  }


def _batch(batch, videos, starts):
  """The batch of segments, labels aside."""
  frames, lengths = cut(batch["features"], batch["num_frames"], videos, starts)
  return {
    "video_ids": names(batch["video_ids"], videos, starts),
    "features": frames,
    "num_frames": lengths,
  }
