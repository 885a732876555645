"""Learning from teachers: their probabilities beside the labels.

Hinton, Vinyals, Dean 2015 (arXiv:1503.02531, section 2), for many labels a
video, each class a yes or no of its own. Of a video with the label loss L, the
labels y, the student's probabilities p and the teachers' t,

    (1 - weight) L(p, y) + weight T^2 L(p', t'),

where p' and t' are at the temperature T: sigmoid(logit / T). For a yes or no
the logit is that of the probability, log p - log (1 - p), whatever the model
made it of, so

    p' = p^(1/T) / (p^(1/T) + (1 - p)^(1/T)).

Gradients of the second part fall with 1 / T^2, which its factor makes up for.
Of several teachers t is the mean. A video without any, as a file of stored
predictions may lack some, has the loss L(p, y).

Of a segment both parts count the rated classes alone: the loss is a sum over
classes, so that teachers of all C would outweigh the label of the one that was
rated.

Axes: B videos, C classes.
"""

import numpy as np
import tensorflow.compat.v1 as tf
from absl import logging

from console import messages

# Keeps the gradients of powers finite where a student is certain.
_EPSILON = 1e-6


def tempered(probabilities, temperature):
  """sigmoid(logit / T) of probabilities; 0 and 1 stay."""
  if temperature == 1.0:
    return probabilities
  yes = probabilities ** (1.0 / temperature)
  no = (1.0 - probabilities) ** (1.0 / temperature)
  return yes / (yes + no)


def of_teacher(
  label_loss, predictions, teacher, temperature, label_weights=None
):
  """What the teachers' probabilities cost each video: float32 [B].

  Args:
    label_loss: `losses.BaseLoss`.
    predictions: float32 [B, C], the student's.
    teacher: float32 [B, C], in [0, 1].
    temperature: float > 0.
    label_weights: float32 [B, C], or None for 1 everywhere.
  """
  if temperature != 1.0:
    predictions = tf.clip_by_value(predictions, _EPSILON, 1.0 - _EPSILON)
  losses = label_loss.per_example(
    tempered(predictions, temperature),
    tf.stop_gradient(tempered(teacher, temperature)),
    label_weights,
  )
  return temperature**2 * losses


class Join:
  """Adds stored predictions of teachers to batches, by the videos' ids."""

  def __init__(self, predictions, num_classes):
    """Keeps what is stored.

    Args:
      predictions: `stored_predictions.StoredPredictions`.
      num_classes: int, C.
    """
    self._predictions = predictions
    self._num_classes = num_classes
    self._num_videos = self._num_missing = 0
    self._is_told = False

  def __call__(self, batch):
    """The batch with `teacher`, float32 [B, C], and `has_teacher`, bool [B].

    Args:
      batch: dict as `readers.py` makes it, in a `tf.data` pipeline.
    """
    teacher, has_teacher = tf.numpy_function(
      self._look_up, [batch["video_ids"]], [tf.float32, tf.bool]
    )
    teacher.set_shape([None, self._num_classes])
    has_teacher.set_shape([None])
    return {**batch, "teacher": teacher, "has_teacher": has_teacher}

  def _look_up(self, video_ids):
    teacher = np.zeros([len(video_ids), self._num_classes], np.float32)
    has_teacher = np.zeros([len(video_ids)], bool)
    for i, video_id in enumerate(video_ids):
      found = self._predictions.of(video_id)
      if found:
        classes, scores = found
        teacher[i, classes] = scores
        has_teacher[i] = True
      elif not self._is_told:
        self._is_told = True
        logging.warning(
          "--teacher_predictions lacks video %s, for one: such videos learn "
          "from their labels alone.",
          messages.short(video_id),
        )
    self._num_videos += len(video_ids)
    self._num_missing += int(np.count_nonzero(~has_teacher))
    return teacher, has_teacher

  def log_summary(self):
    """Logs how many videos had no teacher."""
    if self._num_missing:
      logging.warning(
        "--teacher_predictions lacked %d of the %d videos that were read (each "
        "as often as it was): they learnt from their labels alone.",
        self._num_missing,
        self._num_videos,
      )
