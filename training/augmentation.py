"""What training changes about its videos at random, before a model sees them.

Mixup (Zhang et al. 2018, arXiv:1710.09412, equation 2) trains on

    x = lambda x_i + (1 - lambda) x_j,    y = lambda y_i + (1 - lambda) y_j

with lambda ~ Beta(alpha, alpha), for each video i of a batch and a random
partner j. Of video-level features that is what is done, before they are scaled
to unit length. A frame-level video is a bag of frames, and what is mixed are
the bags: ceil(lambda n_i) of its frames, evenly spread, then
floor((1 - lambda) n_j) of its partner's. Every frame is one that a camera saw,
no length needs to agree with another, and in all that is linear in the bag,
such as a mean or a sum of residuals, it is the equation above. Its labels are
mixed by the share of frames that each video gave. All of that happens to the
stored bytes, before frames are sampled and dequantised.

Frame dropout leaves out each frame of a video with the same chance, but for
one.

Axes: B videos, N frames (or videos, at video level) of the whole batch,
D features, C classes.
"""

import dataclasses

import tensorflow.compat.v1 as tf


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """What is changed.

  Attributes:
    mixup_alpha: float >= 0, of the beta distribution; 0 for no mixup.
    frame_dropout: float in [0, 1), the chance of a frame to be left out.
    is_frame_level: bool, whether videos are frames, rather than one vector.
  """

  mixup_alpha: float = 0.0
  frame_dropout: float = 0.0
  is_frame_level: bool = True

  def apply(self, batch):
    """Changes a batch.

    Args:
      batch: dict as `readers.py` makes it.

    Returns:
      dict of the same; after mixup labels are float32, in [0, 1].
    """
    with tf.name_scope("augmentation"):
      if self.mixup_alpha:
        size = tf.size(batch["num_frames"])
        share = beta(size, self.mixup_alpha)
        partner = tf.random.shuffle(tf.range(size))
        batch = mix(batch, share, partner, self.is_frame_level)
      if self.frame_dropout and self.is_frame_level:
        draws = tf.random.uniform(tf.shape(batch["features"])[:1])
        batch = drop_frames(batch, draws, self.frame_dropout)
    return batch


def beta(size, alpha):
  """Draws from Beta(alpha, alpha): float32 [B].

  Args:
    size: int scalar, B.
    alpha: float > 0.
  """
  # Float64, as gammas of a small alpha often are 0 in float32. Where both are,
  # which takes an alpha below 0.01, the share is that of one video alone.
  gammas = tf.random.gamma([2, size], alpha, dtype=tf.float64)
  share = tf.math.divide_no_nan(gammas[0], tf.reduce_sum(gammas, axis=0))
  return tf.cast(share, tf.float32)


def mix(batch, share, partner, is_frame_level):
  """Mixes each video with its partner; see the module's docstring.

  Args:
    batch: dict as `readers.py` makes it.
    share: float32 [B], in [0, 1]: lambda.
    partner: int32 [B], in [0, B).
    is_frame_level: bool.

  Returns:
    dict of the same. Where no frame is left, the labels stay as they were.
  """
  batch = dict(batch)
  if is_frame_level:
    features, num_frames, share = _mix_frames(
      batch["features"], batch["num_frames"], share, partner
    )
    batch |= {"features": features, "num_frames": num_frames}
  else:
    batch["features"] = _between(batch["features"], share, partner)
  if "teacher" in batch:  # What is stored of each video, see `distillation`.
    batch["teacher"] = _between(batch["teacher"], share, partner)
    batch["has_teacher"] &= tf.gather(batch["has_teacher"], partner)
  labels = tf.cast(batch["labels"], tf.float32)
  if "label_weights" not in batch:
    batch["labels"] = _between(labels, share, partner)
    return batch
  # A rated class and one that nobody rated: the loss is that of the rating. So
  # are two losses mixed that are linear in a label.
  weights = tf.cast(batch["label_weights"], tf.float32)
  mixed = _between(weights, share, partner)
  batch["label_weights"] = mixed
  batch["labels"] = tf.math.divide_no_nan(
    _between(weights * labels, share, partner), mixed
  )
  return batch


def _between(values, share, partner):
  """lambda x_i + (1 - lambda) x_j of float32 [B, anything]."""
  share = share[:, tf.newaxis]
  return share * values + (1.0 - share) * tf.gather(values, partner)


def _mix_frames(features, num_frames, share, partner):
  """Parts of two videos' frames, one after the other.

  Args:
    features: [N, D].
    num_frames: int32 [B].
    share: float32 [B].
    partner: int32 [B].

  Returns:
    ([N', D] features, int32 [B] frames, float32 [B] share of the first's).
  """
  starts = tf.cumsum(num_frames, exclusive=True)
  pairs = [num_frames, tf.gather(num_frames, partner)]
  of_first = tf.cast(
    tf.math.ceil(share * tf.cast(pairs[0], tf.float32)), tf.int32
  )
  of_second = tf.cast((1.0 - share) * tf.cast(pairs[1], tf.float32), tf.int32)
  # Two pieces a video: [B, 2], then one after the other.
  taken = tf.stack([of_first, of_second], axis=1)
  piece = tf.repeat(tf.range(tf.size(taken)), tf.reshape(taken, [-1]))

  def of_piece(pair):
    return tf.gather(tf.reshape(tf.stack(pair, axis=1), [-1]), piece)

  place = tf.ragged.range(tf.reshape(taken, [-1])).flat_values
  index = of_piece([starts, tf.gather(starts, partner)])
  index += place * of_piece(pairs) // of_piece([of_first, of_second])
  total = tf.reduce_sum(taken, axis=1)
  real_share = tf.where_v2(
    total > 0, tf.cast(of_first / total, tf.float32), 1.0
  )
  return tf.gather(features, index), total, real_share


def drop_frames(batch, draws, rate):
  """Leaves out frames, but at least one of each video.

  Args:
    batch: dict as `readers.py` makes it, of frames.
    draws: float32 [N], uniform in [0, 1).
    rate: float in [0, 1); frames of lower draws go, but for a video's highest.

  Returns:
    dict of the same.
  """
  num_frames = batch["num_frames"]
  size = tf.size(num_frames)
  video = tf.repeat(tf.range(size), num_frames)
  highest = tf.math.unsorted_segment_max(draws, video, size)
  is_kept = draws >= tf.minimum(rate, tf.gather(highest, video))
  return {
    **batch,
    "features": tf.boolean_mask(batch["features"], is_kept),
    "num_frames": tf.math.unsorted_segment_sum(
      tf.cast(is_kept, tf.int32), video, size
    ),
  }
