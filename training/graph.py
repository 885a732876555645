"""The training graph: a batch in, one step of training out."""

import dataclasses
from typing import Any, NamedTuple

import tensorflow.compat.v1 as tf

from checkpoints import weight_averages
from models import scopes
from predictions import predictor
from training import (
  augmentation,
  collectives,
  learning_rate,
  optimizers,
  prefetch,
  towers,
)
from training import gradients as gradients_lib

# What is needed of a batch as a whole.
_WHOLE = ("num_frames", "labels", "label_weights", "epoch")


@dataclasses.dataclass(frozen=True)
class Graph:
  """What the loop runs.

  Attributes:
    step_fetches: dict of what a step fetches: `step`, which runs all updates,
      and `num_videos`, of all tasks of the group; with several `told`, see
      `collectives.Group.agree`. All lie on the host.
    loss: float32 scalar, the label loss of the step.
    last_loss: the same of the step before, for another run of the session.
    fill: operation to run before the first step, or None, see `prefetch.py`.
    metrics: dict of tensors, see `predictor.batch_metrics`.
    summary: serialised summaries of the step.
    finish: operation that marks the epochs as done; the chief's alone.
    settle: what tasks run together before a checkpoint, see
      `collectives.Group.settle`; None for one task alone.
    group: `collectives.Group`.
    variables: list of the variables that training made, which are those of its
      checkpoints. Another model in the graph has its own.
    model_variables: list of those that are the model's, without the
      optimiser's, the averages of weights, step and epoch.
  """

  step_fetches: dict
  loss: Any
  last_loss: Any
  fill: Any
  metrics: dict
  summary: Any
  finish: Any
  settle: Any
  group: collectives.Group
  variables: list
  model_variables: list

  @property
  def num_parameters(self):
    """How many numbers the model learns."""
    learnt = [each for each in self.model_variables if each.trainable]
    return sum(each.shape.num_elements() for each in learnt)


def build(
  batch,
  model,
  label_loss,
  config,
  devices,
  *,
  num_classes,
  total_steps=None,
  teachers=None,
  group=collectives.ALONE,
):
  """Builds the graph of a batch, in the default graph.

  Other models that are in the graph are left as they are.

  Args:
    batch: dict as `readers.py` makes it, with its `epoch`.
    model: `models.BaseModel`.
    label_loss: `losses.BaseLoss`.
    config: `config.Config`.
    devices: `placement.Devices`.
    num_classes: int, C.
    total_steps: int, the step at which the run will end; None if unknown.
    teachers: `teachers.Teachers` to learn from, or None.
    group: `collectives.Group` of the tasks that take each step together.

  Returns:
    `Graph`.
  """
  # Teachers' variables are none of the training's.
  parts = _parts(batch, model, config, devices, teachers, num_classes)
  taken = _staged(parts, batch, devices)
  with scopes.collecting(tf.GraphKeys.GLOBAL_VARIABLES) as made:
    with tf.device(devices.host):
      progress = _progress(config, len(parts) * group.size, total_steps)
    with scopes.collecting(tf.GraphKeys.GLOBAL_VARIABLES) as of_model:
      result = towers.build(
        taken.parts,
        model,
        _objective(label_loss, config),
        devices,
        num_classes=num_classes,
        precision=tf.bfloat16 if config.mixed_precision else None,
        group=group,
        batch_size=config.batch_size,
      )
    with tf.device(devices.merging or devices.towers[0]):
      told = group.agree(batch) if group.size > 1 else {}
      fetches, last_loss = _step(result, taken, told, progress, config, devices)
      return Graph(
        step_fetches=fetches,
        loss=result.label_loss,
        last_loss=last_loss,
        fill=taken.fill,
        metrics=_metrics(result, taken.seen),
        summary=_summary(result, progress.rate),
        finish=tf.assign(progress.epochs_done, config.num_epochs),
        settle=group.settle(of_model) if group.size > 1 else None,
        group=group,
        variables=made,
        model_variables=of_model,
      )


def _parts(batch, model, config, devices, teachers, num_classes):
  """List of what each tower sees and learns from, see `towers.choose`."""
  with tf.device(devices.host), tf.name_scope("split"):
    parts = towers.split_batch(batch, len(devices.towers))
  changes = augmentation.Augmentation(
    config.mixup_alpha, config.frame_dropout, model.is_frame_level
  )
  parts = towers.prepare(
    parts, devices, changes, teachers, num_classes=num_classes
  )
  return towers.choose(parts, model, devices)


class _Taken(NamedTuple):
  """What a step takes.

  Attributes:
    parts: list of what each tower sees and learns from.
    seen: dict of what is of the whole batch.
    fill: see `Graph`.
  """

  parts: list
  seen: dict
  fill: Any = None

  @property
  def operations(self):
    """What each step runs for it, whatever is fetched: list."""
    if self.fill is None:
      return []
    return [self.fill, *tf.nest.flatten([*self.parts, self.seen])]


def _staged(parts, batch, devices):
  """`_Taken`, which devices may take a step ahead."""
  seen = {name: batch[name] for name in _WHOLE if name in batch}
  if not devices.prefetches:
    return _Taken(parts, seen)
  (*parts, seen), fill = prefetch.one_ahead(
    [*parts, seen],
    [*devices.towers, devices.merging or devices.towers[0]],
    devices.host,
  )
  return _Taken(parts, seen, fill)


class _Progress(NamedTuple):
  """Where a run is: two variables, and the learning rate there."""

  step: Any
  epochs_done: Any
  rate: Any


def _progress(config, num_towers, total_steps):
  """Makes `_Progress`; num_towers are those of all tasks."""
  step = tf.train.get_or_create_global_step()
  zero = tf.zeros_initializer()
  epochs_done = tf.get_variable(
    "epoch", [], tf.int64, initializer=zero, trainable=False
  )
  with tf.name_scope("schedule"):
    rate = learning_rate.build(
      step,
      schedule=config.learning_rate_schedule,
      base_rate=config.base_learning_rate,
      batch_size=config.batch_size * num_towers,
      decay=config.learning_rate_decay,
      decay_examples=config.learning_rate_decay_examples,
      total_steps=total_steps,
      warmup_steps=config.learning_rate_warmup_steps,
    )
  return _Progress(step, epochs_done, rate)


def _last(loss):
  """A variable for a step's loss, where the loss is; of no checkpoint."""
  with tf.device(None), tf.device(loss.device):
    return tf.get_variable("last_loss", [], trainable=False, collections=[])


def _objective(label_loss, config):
  """`towers.Objective` of what the flags say."""
  return towers.Objective(
    label_loss,
    config.regularization_penalty,
    config.label_smoothing,
    config.distillation_weight,
    config.distillation_temperature,
  )


def _step(result, taken, told, progress, config, devices):
  """All that a step does.

  Args:
    result: `towers.Towers`.
    taken: `_Taken`.
    told: dict of what tasks tell each other, see `collectives.Group.agree`.
    progress: `_Progress`.
    config: `config.Config`.
    devices: `placement.Devices`.

  Returns:
    (`Graph.step_fetches`, `Graph.last_loss`).
  """
  updates = _updates(result, progress, config) + taken.operations
  last_loss = _last(result.label_loss)
  updates.append(tf.assign(last_loss, result.label_loss))
  if devices.counts_epochs:
    epoch = told.get("epoch", taken.seen["epoch"])
    updates.append(tf.assign(progress.epochs_done, epoch))
  with tf.control_dependencies(updates), tf.device(devices.host):
    step = tf.identity(progress.step.read_value())
  fetches = {"step": step, "num_videos": result.num_videos}
  if told:
    fetches["told"] = told
  return fetches, last_loss.read_value()


def _updates(result, progress, config):
  """List of operations: the weights', the averages of batch norm and weights.

  Args:
    result: `towers.Towers`.
    progress: `_Progress`.
    config: `config.Config`.
  """
  update = optimizers.update(
    result.gradients, result.label_loss, progress.rate, progress.step, config
  )
  updates = [update, *result.update_ops]
  if config.ema_decay:
    weights = scopes.trainable_variables()
    with tf.control_dependencies([update]):
      updates.append(
        weight_averages.update(
          weights,
          config.ema_decay,
          progress.step if config.ema_warmup else None,
        )
      )
  return updates


def _metrics(result, seen):
  """dict of tensors, see `predictor.batch_metrics`."""
  with tf.name_scope("metrics"):
    return predictor.batch_metrics(
      result.predictions,
      seen["labels"],
      predictor.TOP_K,
      seen.get("label_weights"),
    )


def _summary(result, rate):
  """Serialised summaries of a step."""
  scalars = {
    "learning_rate": rate,
    "label_loss": result.label_loss,
    "reg_loss": result.reg_loss,
  }
  for name, term in result.reg_terms.items():
    scalars[f"reg_loss/{name}"] = term
  for name, norm in _gradient_norms(result.gradients).items():
    scalars[f"gradient_norm/{name}"] = norm
  return tf.summary.merge(
    [tf.summary.scalar(name, value) for name, value in scalars.items()]
  )


def _gradient_norms(gradients):
  """Norms before clipping, of all gradients and of each part of the model's.

  Args:
    gradients: list of (gradient, variable); a part is what stands after the
      first scope of the variables' names.

  Returns:
    dict of name to float32 scalar.
  """
  squares = {"all": []}
  with tf.name_scope("norms"):
    for gradient, variable in gradients:
      # As clipping has it: TensorFlow computes it once.
      square = gradients_lib.square_norm(gradient)
      part = variable.op.name.split("/")[1]
      squares.setdefault(part, []).append(square)
      squares["all"].append(square)
    return {name: tf.sqrt(tf.add_n(terms)) for name, terms in squares.items()}
