"""One task's run of training: checked, begun, gone through, ended."""

import contextlib
import math
import secrets
import sys

import tensorflow
import tensorflow.compat.v1 as tf
from absl import logging

import data_flags
import losses
import model_flags
import readers
from checkpoints import (
  description,
  evaluations,
  events,
  restore,
  resume,
  saved_model,
  train_dir,
  transfer,
)
from console import flag_fields, program
from models import ensemble, registry
from predictions import predictor, stored_predictions
from training import (
  banner,
  class_weights,
  collectives,
  distillation,
  graph,
  loop,
  meeting,
  placement,
  prefetch,
  saver,
  servers,
)
from training import log as train_log
from training import teachers as trained

# Of tasks that take each step with the chief.
_ECHO_SECS = 600


class Trainer:
  """One task's run of training.

  Attributes:
    total_steps: int, the step at which the run will end, about; None if
      unknown.
  """

  def __init__(self, config, values, task):
    """Checks all that can be checked before anything is written.

    Args:
      config: `config.Config`.
      values: dict of the model flags.
      task: `placement.Task`, not a parameter server.

    Raises:
      ValueError: flags that do not go together, or a pattern without files.
    """
    self._config = config
    self._values = values
    self._task = task
    if not registry.get(values["model"]).is_trainable:
      raise ValueError(
        f"--model={values['model']} is not for train.py. {ensemble.WAY_OUT}"
      )
    self._reader = model_flags.build_reader(values)
    self._model = model_flags.build_model(values)
    self._loss = losses.get_loss(values["label_loss"], values)
    if config.frame_dropout and not self._model.is_frame_level:
      raise ValueError(
        f"--frame_dropout={config.frame_dropout} needs a frame-level model, "
        f"got --model={values['model']}."
      )
    if config.class_weights:
      self._loss = self._loss.with_class_weights(
        class_weights.read(config.class_weights, self._reader.num_classes)
      )
    self._paths = readers.expand_data_pattern(
      config.train_data_pattern, "train_data_pattern"
    )
    self._devices = placement.devices(task, config.num_gpu, config.num_towers)
    self._batch_size = config.batch_size * len(self._devices.towers)
    self._group, self._meeting = collectives.ALONE, None
    if task.is_synchronous:
      self._group = collectives.Group(task.num_computing, task.number)
      self._meeting = meeting.Meeting(task, config.worker_timeout_secs)
    if config.data_service:
      placement.check_service(config.data_service)
    # All tasks of a run share out what a data service reads under this name.
    self._job = secrets.token_hex(8)
    self._teachers = self._join = None
    self._prepare_teachers()
    self.total_steps = self._count_steps()
    if config.learning_rate_schedule == "cosine" and not self.total_steps:
      raise ValueError(
        "--learning_rate_schedule=cosine falls to 0 at the run's end, which is "
        "not known: give --max_steps (or --num_epochs, of files whose records "
        f"can be counted); got --max_steps={config.max_steps}, "
        f"--num_epochs={config.num_epochs}."
      )

  def _prepare_teachers(self):
    """Reads what there is to learn from besides labels."""
    config, values = self._config, self._values
    if config.teachers:
      if self._task.is_distributed and not self._task.is_synchronous:
        raise ValueError(
          "--teachers can't be with parameter servers: give --synchronous, or "
          "store what they predict, and give --teacher_predictions."
        )
      self._teachers = trained.Teachers(
        flag_fields.parse_names(config.teachers), values
      )
    if config.teacher_predictions:
      if values["segment_labels"]:
        raise ValueError(
          "--teacher_predictions are of videos, not of the segments of "
          "--segment_labels: give --teachers."
        )
      path = config.teacher_predictions
      if not tf.io.gfile.exists(path):
        raise ValueError(f"--teacher_predictions={path} does not exist.")
      try:
        stored = stored_predictions.StoredPredictions(
          path, values["num_classes"]
        )
      except (ValueError, tf.errors.OpError) as error:
        raise ValueError(f"--teacher_predictions: {error}") from None
      logging.info("Learning from predictions of %d videos.", stored.num_videos)
      self._join = distillation.Join(stored, values["num_classes"])

  def run(self):
    """Trains until the data or the steps end, or a signal asks to stop.

    Raises:
      ValueError: another run is training in train_dir, or it holds another
        model, or nothing of --init_checkpoint fits.
      program.UserError: no usable data, or a number that is not finite.
    """
    config, task = self._config, self._task
    logging.info(
      "%s %d: %d files to train on.", task.job, task.index, len(self._paths)
    )
    if config.deterministic:
      tensorflow.config.experimental.enable_op_determinism()
    with contextlib.ExitStack() as stack:
      if self._meeting:
        stack.enter_context(self._meeting)
      # The other tasks write nothing, and find what the chief restored on the
      # parameter servers, or take it from the chief.
      checkpoint = other = None
      if task.is_chief:
        stack.enter_context(train_dir.claimed(config.train_dir))
        # Looked for before anything is deleted.
        other = self._find_other()
        checkpoint = train_dir.prepare(
          config.train_dir, self._values, config.start_new_model
        )
        self._keep_description(checkpoint)
      step, epoch = resume.read_progress(checkpoint)
      if checkpoint:
        logging.info("Resuming from %s.", checkpoint)
        self._export_interrupted(checkpoint, step)
      reason = self._why_done(step, epoch)
      if self._meeting:
        step, epoch, reason = self._agreed(self._meeting, step, epoch, reason)
      if reason:
        logging.info("Nothing to do: %s", reason)
        if task.is_chief:
          self._finish(step, reason)
        return
      if task.is_chief:
        # Before the graph is built: a watching eval.py would leave meanwhile.
        train_dir.unmark_finished(config.train_dir)
      try:
        end = self._train(checkpoint, step, epoch, other)
      except tf.errors.OpError as error:
        if self._meeting:
          self._meeting.lost(error)
        if isinstance(error, tf.errors.DeadlineExceededError):
          raise self._no_step() from None
        raise
      if self._meeting:
        self._meeting.part(waits=not end.is_stopped)
        if end.reason == loop.OTHER_STOPS:
          self._meeting.begin_again(f"At step {end.step} {end.reason}.")
      self._end(end)

  def _no_step(self):
    """What to raise where no records have come."""
    config = self._config
    return program.UserError(
      f"No step for {config.worker_timeout_secs} s (--worker_timeout_secs): "
      f"do the dispatcher of --data_service={config.data_service} and its "
      "workers run? The same command goes on from the last checkpoint."
    )

  def _agreed(self, tasks, step, epoch, reason):
    """What the chief told all tasks: list of its step, epoch and reason."""
    why_not = collectives.why_not_nccl(
      self._config.nccl, self._on_gpus(), tasks.tries
    )
    plan = [step, epoch, reason, self.total_steps, self._job, why_not]
    plan = tasks.gather(plan, self._shared_flags())
    *plan, self.total_steps, self._job, why_not = plan
    self._group.nccl = not why_not
    logging.info(
      "Gradients are summed over the tasks by %s.",
      f"TensorFlow, from host to host: {why_not}" if why_not else "NCCL",
    )
    return plan

  def _on_gpus(self):
    """Whether this task, of several that train together, computes on GPUs."""
    return self._devices.merging is None

  def _shared_flags(self):
    """What must be the same for all tasks: dict."""
    return {
      **train_log.hyper_parameters(self._config, self._values),
      "number of towers": len(self._devices.towers),
      "use of GPUs": self._on_gpus(),
      "number of --train_data_pattern's files": len(self._paths),
    }

  def _keep_description(self, checkpoint):
    """Copies what stands beside the data; a run that goes on has it."""
    directory, flag = self._config.train_dir, "train_data_pattern"
    described = None
    if self._values["frame_features"]:
      if checkpoint:
        data_flags.check(self._values, self._paths, flag, directory)
      described = data_flags.beside(self._paths, flag)
    if described:
      description.copy(described.directory, directory, replace=not checkpoint)
      for name in sorted(description.encoders_of(directory)):
        logging.info(
          "%s made the features: predict.py looks for it in %s and in "
          "--encoder_dir. It is not copied: keep it.",
          name,
          directory,
        )
    elif source := data_flags.names_beside(self._paths):
      description.copy_names(source, directory)

  def _find_other(self):
    """The checkpoint of another run that a new run starts from, or None."""
    config = self._config
    if not config.init_checkpoint:
      return None
    if (
      restore.known_checkpoints(config.train_dir) and not config.start_new_model
    ):
      logging.info(
        "--init_checkpoint is not looked at: the run goes on from its own."
      )
      return None
    return transfer.find(config.init_checkpoint)

  def _train(self, checkpoint, step, epoch, other):
    """Trains from a checkpoint on, or from the start: `loop.End`.

    Args:
      checkpoint: path prefix of the run's own, or None.
      step: int, the checkpoint's.
      epoch: int, likewise.
      other: path prefix of another run's to start from, or None.
    """
    config, task, seed = self._config, self._task, self._config.effective_seed
    sessions = servers.Sessions(
      task, config, self._devices.num_cpus, self._group, self._meeting
    )
    with tf.Graph().as_default():
      if seed is not None:
        # Another part of the random sequence after a resume.
        tf.set_random_seed(seed + step + 1000003 * task.number)
      with tf.device(self._devices.host), tf.name_scope("input"):
        data = tf.data.make_initializable_iterator(self.data(step, epoch))
        batch = data.get_next()
      built = self.build(batch)
      taken = transfer.taken(other, built.model_variables) if other else None
      with sessions.start(
        built.variables, data.initializer, checkpoint or other, step, taken
      ) as session:
        if self._teachers:
          self._teachers.restore(session)
        if self._meeting:
          loop.settle(session, built, step)
          self._meeting.works = True
        elif task.is_distributed:
          # Other tasks may be ahead of the checkpoint.
          step = int(session.run(tf.train.get_global_step()))
        return self._loop(session, built, checkpoint, step)

  def data(self, start_step, epoch):
    """The training set, see `readers.BaseReader.batches`.

    Args:
      start_step: int, the global step that the run begins at.
      epoch: int, epochs that are done.
    """
    config, seed = self._config, self._config.effective_seed
    remote = config.data_service
    if seed is not None:
      # Another order of what is left of an epoch after a resume.
      seed += self._task.number + start_step
    data = self._reader.batches(
      self._paths,
      batch_size=self._batch_size,
      num_readers=config.num_readers,
      num_epochs=config.num_epochs or None,
      first_epoch=epoch,
      shuffle_buffer=config.shuffle_buffer,
      seed=seed,
      deterministic=config.deterministic or not config.shuffle_buffer,
      holdout_fraction=self._values["holdout_fraction"],
      skip_unlabelled=config.skip_unlabelled,
      strict=config.strict_records,
      shard=(0, 1) if remote else (self._group.index, self._group.size),
      service=remote,
      job=self._job,
    )
    if self._join:
      data = data.map(self._join).prefetch(1)
    if self._group.size > 1:
      data = collectives.endless(data, config.num_epochs - 1)
    return prefetch.with_last(data) if self._devices.prefetches else data

  def build(self, batch):
    """The training graph of a batch, in the default graph: `graph.Graph`."""
    return graph.build(
      batch,
      self._model,
      self._loss,
      self._config,
      self._devices,
      num_classes=self._reader.num_classes,
      total_steps=self.total_steps,
      teachers=self._teachers,
      group=self._group,
    )

  def _loop(self, session, built, checkpoint, start_step):
    config, writer, checkpoints = self._config, None, None
    with contextlib.ExitStack() as stack:
      if self._task.is_chief:
        logging.info("Training\n%s", self._banner(built, start_step))
        writer = events.EventWriter(config.train_dir, session.graph)
        stack.callback(writer.close)
        train_log.write_flags(
          writer, config, self._values, ["python", *sys.argv]
        )
        checkpoints = saver.Saver(
          config,
          self._values,
          built.variables,
          checkpoint=checkpoint,
          start_step=start_step,
        )
      end = loop.run(
        session,
        built,
        config,
        start_step=start_step,
        log=stack.enter_context(
          train_log.TrainLog(
            writer=writer,
            num_classes=self._reader.num_classes,
            start_step=start_step,
            total_steps=self.total_steps,
            kind="-segments" * self._values["segment_labels"],
            log_secs=self._log_secs(),
          )
        ),
        report=self._reader.report,
        checkpoints=checkpoints,
      )
    if end.step == start_step and end.reason == loop.END_OF_DATA:
      raise program.no_video(
        self._reader.report, self._paths, "--train_data_pattern"
      )
    return end

  def _log_secs(self):
    """Seconds between lines of the log: who repeats the chief says little."""
    is_echo = self._meeting and not self._task.is_chief
    return _ECHO_SECS if is_echo else self._config.log_secs

  def _banner(self, built, start_step):
    return banner.begin(
      self._values,
      built,
      self._devices,
      videos=self._num_videos,
      files=len(self._paths),
      batch_size=self._batch_size * self._group.size,
      steps=(start_step, self.total_steps),
    )

  def _end(self, end):
    """Says why a run ended, and marks that it did."""
    report = self._reader.report
    report.log_warnings()
    if self._join:
      self._join.log_summary()
    logging.info(
      "Done at step %d (%s): %s.", end.step, end.reason, report.summary()
    )
    if end.is_stopped:
      logging.info("The same command goes on from here.")
    elif self._task.is_chief:
      self._finish(end.step, end.reason)

  def _finish(self, step, reason):
    """Marks that the run has come to its end, and says what to do next."""
    config = self._config
    train_dir.mark_finished(config.train_dir, step, reason)
    logging.info(
      "Next\n%s", banner.end(config.train_dir, config.train_data_pattern)
    )

  def _export_interrupted(self, checkpoint, step):
    """Makes the export for which a killed run had saved a checkpoint."""
    period = self._config.export_model_steps
    output_dir = saved_model.default_dir(checkpoint)
    if period and step % period == 0 and not tf.io.gfile.exists(output_dir):
      predictor.export(checkpoint, self._values, output_dir)

  def _why_done(self, step, epoch):
    """Why there is nothing to train, or None."""
    config = self._config
    if config.max_steps and step >= config.max_steps:
      return (
        f"{config.train_dir} is at step {step} of "
        f"--max_steps={config.max_steps}."
      )
    if config.num_epochs and epoch >= config.num_epochs:
      return f"the {epoch} epochs of --num_epochs are done."
    if step and self._task.is_chief:
      return evaluations.why_stop(
        config.train_dir, config.early_stop_evals, step
      )
    return None

  def _count_steps(self):
    """The step at which the run ends, about; None if it does not."""
    config = self._config
    ends = [config.max_steps] if config.max_steps else []
    self._num_videos = readers.estimate_num_records(self._paths)
    if config.num_epochs:
      videos = (
        self._num_videos
        * config.num_epochs
        * (1.0 - self._values["holdout_fraction"])
      )
      steps = math.ceil(videos / (self._batch_size * self._group.size))
      if self._task.is_distributed and not self._task.is_synchronous:
        # Every task reads all the data, and the steps of all count.
        steps *= self._task.num_computing
      if steps:
        ends.append(steps)
    return min(ends, default=None)
