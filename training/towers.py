"""Splits a batch over devices, builds a tower on each, merges gradients.

The merged gradient is that of the whole batch: each tower's label loss, and the
regularisation that its model returns, count with its share of the videos, so
that with equal towers they are the mean over towers, and a last batch that does
not divide costs nothing. What a model puts into
`tf.GraphKeys.REGULARIZATION_LOSSES` is a function of the variables: it counts
once.

Axes: B videos, N frames (or videos, at video level) of the whole batch,
C classes.
"""

import dataclasses
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

import losses
from models import scopes
from training import collectives, distillation
from training import gradients as gradients_lib


@dataclasses.dataclass(frozen=True)
class Objective:
  """What training minimises.

  Attributes:
    label_loss: `losses.BaseLoss`.
    regularization_penalty: float, weight of the regularisation; the label loss
      has 1.
    label_smoothing: float in [0, 1), epsilon of `losses.smooth_labels`; only
      the label loss sees smoothed labels.
    distillation_weight: float in [0, 1], how much teachers count beside the
      labels, where a batch has what they predict.
    distillation_temperature: float > 0, see `distillation.py`.
  """

  label_loss: losses.BaseLoss
  regularization_penalty: float = 1.0
  label_smoothing: float = 0.0
  distillation_weight: float = 0.5
  distillation_temperature: float = 1.0

  def of_model(self, result, batch):
    """The label loss of all that a model predicts: float32 scalar.

    Args:
      result: dict, see `models.BaseModel.create_model`.
      batch: see `of_labels`.
    """
    loss = self.of_labels(result["predictions"], batch)
    loss *= result.get("prediction_weight", 1.0)
    for weight, predictions in result.get("auxiliary_predictions", ()):
      loss += weight * self.of_labels(predictions, batch)
    return loss

  def of_labels(self, predictions, batch):
    """The label loss of some videos: float32 scalar, the mean over them.

    Args:
      predictions: float32 [B, C].
      batch: dict of the same videos, as `readers.py` makes it. It may have
        `teacher`, float32 [B, C], what teachers predict, and `has_teacher`,
        bool [B], for which videos, all if not there.
    """
    labels, weights = batch["labels"], batch.get("label_weights")
    if self.label_smoothing:
      labels = losses.smooth_labels(labels, self.label_smoothing, weights)
    if "teacher" not in batch:
      return self.label_loss.calculate_loss(predictions, labels, weights)
    of_labels = self.label_loss.per_example(predictions, labels, weights)
    of_teacher = distillation.of_teacher(
      self.label_loss,
      predictions,
      batch["teacher"],
      self.distillation_temperature,
      weights,
    )
    share = self.distillation_weight * tf.ones_like(of_labels)
    if "has_teacher" in batch:
      share *= tf.cast(batch["has_teacher"], tf.float32)
    total = tf.reduce_sum((1.0 - share) * of_labels + share * of_teacher)
    return tf.math.divide_no_nan(total, tf.cast(tf.size(of_labels), tf.float32))


class Towers(NamedTuple):
  """What the towers make of a batch.

  Attributes:
    num_videos: int32 scalar, of the whole batch, all tasks' of the group.
    label_loss: float32 scalar, mean over the same.
    reg_loss: float32 scalar, all regularisation, not yet multiplied by its
      penalty.
    reg_terms: dict of name to float32 scalar, those parts of reg_loss that the
      model gave a name.
    predictions: float32 [B, C], of this task's videos, in their order.
    gradients: list of (gradient, variable).
    update_ops: operations to run once a step (batch-norm averages).
  """

  num_videos: Any
  label_loss: Any
  reg_loss: Any
  reg_terms: dict
  predictions: Any
  gradients: list
  update_ops: list


def split_batch(batch, num_towers):
  """Cuts a reader's batch into one for each tower.

  Args:
    batch: dict as `readers.py` makes it.
    num_towers: int >= 1.

  Returns:
    list of dicts; sizes differ by 1 at most, the larger first. A batch of fewer
    videos than towers leaves the last towers with none.
  """
  if num_towers == 1:
    return [batch]
  num_videos = tf.size(batch["num_frames"])
  tower = tf.range(num_towers)
  sizes = num_videos // num_towers
  sizes += tf.cast(tower < num_videos % num_towers, tf.int32)
  num_frames = tf.split(batch["num_frames"], sizes, num=num_towers)
  rows = tf.stack([tf.reduce_sum(count) for count in num_frames])
  pieces = {
    "num_frames": num_frames,
    # Of frames there are as many rows as frames, of videos one each, which is
    # their num_frames: one sum serves both.
    "features": tf.split(batch["features"], rows, num=num_towers),
    "labels": tf.split(batch["labels"], sizes, num=num_towers),
  }
  for name in ("label_weights", "teacher", "has_teacher"):
    if name in batch:
      pieces[name] = tf.split(batch[name], sizes, num=num_towers)
  return [
    {name: parts[i] for name, parts in pieces.items()}
    for i in range(num_towers)
  ]


def prepare(parts, devices, changes, teachers=None, *, num_classes):
  """What the towers see and learn from.

  Args:
    parts: list of batches, one for each tower, as of `split_batch`.
    devices: `placement.Devices`.
    changes: `augmentation.Augmentation`.
    teachers: `teachers.Teachers`, who see what is changed, or None.
    num_classes: int, C.

  Returns:
    list of batches, with `teacher` where there are any.
  """
  prepared = []
  for device, part in zip(devices.towers, parts):
    with tf.name_scope("prepare"):
      with tf.device(devices.host):
        part = changes.apply(part)
      if teachers:
        with tf.device(device):
          part = {**part, "teacher": teachers.predict(part, num_classes)}
      prepared.append(part)
  return prepared


def choose(parts, model, devices):
  """What goes to the towers' devices: of stored frames those that are seen.

  Args:
    parts: list of batches, one for each tower, as of `prepare`.
    model: `models.BaseModel`.
    devices: `placement.Devices`.

  Returns:
    list of batches, whose features and num_frames are of
    `models.BaseModel.choose_input`.
  """
  chosen = []
  for part in parts:
    with tf.device(devices.host), tf.name_scope("choose"):
      features, num_frames = model.choose_input(
        part["features"], part["num_frames"], is_training=True
      )
    chosen.append({**part, "features": features, "num_frames": num_frames})
  return chosen


def build(
  parts,
  model,
  objective,
  devices,
  *,
  num_classes,
  precision=None,
  scope=scopes.SCOPE,
  group=collectives.ALONE,
  batch_size=None,
):
  """Builds the towers.

  What another model has put into the graph's collections is not read, and its
  variables get no gradient.

  Args:
    parts: list of batches, one for each tower, as of `choose`.
    model: `models.BaseModel`.
    objective: `Objective`.
    devices: `placement.Devices`. What variables alone decide is computed where
      gradients are merged.
    num_classes: int, C.
    precision: see `models.BaseModel.create_model`.
    scope: str, where the model's variables are made; no other model's.
    group: `collectives.Group` of the tasks that take each step together.
    batch_size: int, the most videos of a tower; None if unknown.

  Returns:
    `Towers`.

  Raises:
    ValueError: label_smoothing is not in [0, 1), or a regularisation that the
      model returns is no scalar.
  """
  with tf.name_scope("shares"):
    sizes = [tf.size(part["num_frames"]) for part in parts]
    num_videos = group.sum(tf.add_n(sizes))
    total = tf.maximum(num_videos, 1)
  built = []
  for i, (device, part) in enumerate(zip(devices.towers, parts)):
    with (
      tf.device(device),
      tf.name_scope(f"{scope}_{i}"),
      tf.variable_scope(scope, reuse=i > 0, auxiliary_name_scope=False),
      scopes.collecting(tf.GraphKeys.REGULARIZATION_LOSSES) as regularizers,
      scopes.collecting(tf.GraphKeys.UPDATE_OPS) as updates,
    ):
      share = tf.cast(sizes[i] / total, tf.float32)
      result = _predict(model, part, num_classes, precision)
      variables = scopes.trainable_variables(scope)
      built.append(_tower(objective, result, part, share, variables))
    if i == 0:
      # The other towers' updates would pull the same averages again; and what
      # variables alone decide is made with the variables.
      update_ops, shared = updates, regularizers
  with tf.device(devices.merging or devices.towers[0]), tf.name_scope("merge"):
    merged, shared_loss = _merge(
      built, shared, variables, objective, devices, group, batch_size
    )
    return _joined(group, num_videos, built, shared_loss, merged, update_ops)


def _merge(built, shared, variables, objective, devices, group, batch_size):
  """Sums gradients over towers and tasks, and what variables alone decide.

  Args:
    built: list of `_Tower`.
    shared: list of float32 scalars, the regularisation of variables alone.
    variables: list, the model's.
    objective: `Objective`.
    devices: `placement.Devices`.
    group: `collectives.Group`.
    batch_size: see `build`.

  Returns:
    (list of (gradient, variable), float32 scalar, the sum of `shared`).
  """
  gradients = [tower.gradients for tower in built]
  # Each task of a group counts its part.
  shared_loss = tf.add_n(shared) / group.size if shared else tf.zeros([])
  if shared:
    # Before the towers' own they would be held for nothing.
    found = [g for g in tf.nest.flatten(gradients) if g is not None]
    # What products are made of: they are made later, see `gradients.py`.
    with tf.control_dependencies([i for g in found for i in g.op.inputs]):
      penalty = objective.regularization_penalty * shared_loss
      gradients.append(tf.gradients(penalty, variables))
  # What tasks add up they add up as it is.
  num_rows = (batch_size or 0) * len(built) if group.size == 1 else 0
  summed = _sum_gradients(gradients, variables, devices.merging, num_rows)
  merged = [
    (group.sum(gradient, gradient.device), variable)
    for gradient, variable in summed
  ]
  return merged, shared_loss


def _joined(group, num_videos, built, shared_loss, gradients, update_ops):
  """`Towers` of what each has made.

  Args:
    group: `collectives.Group`.
    num_videos: see `Towers`.
    built: list of `_Tower`.
    shared_loss: float32 scalar, the regularisation of variables alone.
    gradients: see `Towers`.
    update_ops: see `Towers`.
  """
  terms = [term for tower in built for term in tower.terms]
  names = dict.fromkeys(name for name, _ in terms if name)
  label_loss, reg_loss, *named = group.sums(
    [
      tf.add_n([tower.label_loss for tower in built]),
      tf.add_n([shared_loss, *(term for _, term in terms)]),
      *(
        tf.add_n([term for own, term in terms if own == name]) for name in names
      ),
    ]
  )
  return Towers(
    num_videos=num_videos,
    label_loss=label_loss,
    reg_loss=reg_loss,
    reg_terms=dict(zip(names, named)),
    predictions=tf.concat([tower.predictions for tower in built], axis=0),
    gradients=gradients,
    update_ops=update_ops,
  )


def _predict(model, part, num_classes, precision):
  """What a model makes of one tower's videos, in training.

  Args:
    model: `models.BaseModel`.
    part: dict, the tower's batch.
    num_classes: int, C.
    precision: see `models.BaseModel.create_model`.

  Returns:
    dict, see `models.BaseModel.create_model`.
  """
  model_input, num_frames = model.scale_input(
    part["features"], part["num_frames"], is_training=True
  )
  return model.create_model(
    model_input,
    num_classes,
    num_frames=num_frames,
    is_training=True,
    precision=precision,
    labels=part["labels"],
  )


class _Tower(NamedTuple):
  """What one tower makes of its videos: its share of the batch's.

  Attributes:
    predictions: float32 [B, C], of its videos.
    label_loss: float32 scalar.
    terms: list of (name, float32 scalar), of what the model regularises.
    gradients: list, one for each variable; None without any.
  """

  predictions: Any
  label_loss: Any
  terms: list
  gradients: list


def _tower(objective, result, part, share, variables):
  """`_Tower` of what training minimises.

  Args:
    objective: `Objective`.
    result: dict, see `_predict`.
    part: dict, the tower's batch.
    share: float32 scalar, of the batch's videos.
    variables: list, the model's.
  """
  label_loss = share * objective.of_model(result, part)
  terms = [(name, share * term) for name, term in _model_losses(result)]
  loss = label_loss
  for _, term in terms:
    loss += objective.regularization_penalty * term
  gradients = tf.gradients(loss, variables, colocate_gradients_with_ops=True)
  return _Tower(result["predictions"], label_loss, terms, gradients)


def _model_losses(result):
  """[(name, scalar)] of the regularisation that a model returns.

  Args:
    result: dict as `models.BaseModel.create_model` returns it.

  Returns:
    list; the name of the starter code's one is None.

  Raises:
    ValueError: one is no scalar.
  """
  terms = list(result.get("regularization_losses", {}).items())
  if "regularization_loss" in result:
    terms.append((None, result["regularization_loss"]))
  terms = [(name, tf.convert_to_tensor(term)) for name, term in terms]
  for name, term in terms:
    # Its gradient would be that of the sum, without a word.
    if not term.shape.is_compatible_with([]):
      raise ValueError(
        f"Need a scalar as regularisation {name or 'loss'!r}, got shape "
        f"{term.shape}."
      )
  return terms


def _sum_gradients(gradients, variables, merging_device, num_rows):
  """[(sum over towers, variable)] of the variables that have a gradient."""
  merged = []
  for of_towers, variable in zip(zip(*gradients), variables):
    parts = [tf.convert_to_tensor(p) for p in of_towers if p is not None]
    if parts:
      with tf.device(merging_device or variable.device):
        merged.append((gradients_lib.total(parts, num_rows), variable))
  return merged
