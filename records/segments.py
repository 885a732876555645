"""Five-second segments of videos, as YouTube-8M labels them since 2019.

Axes: B videos, N frames of the whole batch, D features, S segments, L rated
(segment, class) pairs.
"""

import tensorflow.compat.v1 as tf

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
