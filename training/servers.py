"""Sessions: alone, or on a cluster.

The chief gives the variables their values. Parameter servers may have newer
ones of the same run; the other tasks wait for these. Without such servers each
task has all variables, and takes their values from the chief.
"""

import os

import tensorflow.compat.v1 as tf
from absl import logging

from checkpoints import resume
from console import program
from training import placement


class Sessions:
  """Where a task's sessions run, and how they begin."""

  def __init__(self, task, config, num_cpus, group, meeting=None):
    """Starts the task's server, once the others answer.

    Args:
      task: `placement.Task`.
      config: `config.Config`.
      num_cpus: int, CPU devices of this task.
      group: `collectives.Group`.
      meeting: `meeting.Meeting` of a synchronous training.

    Raises:
      ValueError: a parameter server does not answer.
    """
    self._task = task
    self._config = config
    self._session_config = program.session_config(
      num_cpus=num_cpus,
      log_device_placement=config.log_device_placement,
      xla=config.xla,
    )
    if config.data_service:
      # Of a dispatcher that is gone TensorFlow would wait for ever.
      milliseconds = 1000 * config.worker_timeout_secs
      self._session_config.operation_timeout_in_ms = milliseconds
    self._target = ""
    self._group = group
    if meeting:
      group.configure(self._session_config, task)
      self._server = meeting.start(
        lambda: task.start_server(self._session_config), group
      )
      self._target = self._server.target
    elif task.is_distributed:
      # A worker that is gone must not hold up the others.
      self._session_config.device_filters.extend(["/job:ps", task.device])
      task.wait_for_servers()
      self._server = task.start_server(self._session_config)
      self._target = self._server.target

  def start(self, variables, local_init_op, checkpoint, step, taken=None):
    """A session in which every variable has its value.

    Args:
      variables: list of the variables that the checkpoint is to fill.
      local_init_op: operation to run in each session, such as an iterator's
        initialiser.
      checkpoint: path prefix, or None, to restore.
      step: int, the checkpoint's; 0 for None.
      taken: what a new run takes from another's checkpoint, see
        `resume.initialization`; the step is 0 then.

    Raises:
      program.UserError: the chief keeps this task waiting.
    """
    manager = tf.train.SessionManager(
      local_init_op=local_init_op,
      ready_op=tf.report_uninitialized_variables(variables),
      recovery_wait_secs=1,
    )
    if self._group.size > 1:
      spread = self._group.spread(variables)
      if not self._task.is_chief:
        return manager.prepare_session(
          self._target, init_op=spread, config=self._session_config
        )
    elif not self._task.is_chief:
      return self._wait_for_chief(manager)
    init_op, init_fn = resume.initialization(checkpoint, variables, taken)
    if self._group.size > 1:
      init_fn = _in_turn(init_fn, lambda session: session.run(spread))
    elif self._task.is_distributed:
      owner = self._owner()
      if self._is_served([*variables, owner], owner, step):
        init_op, init_fn = tf.no_op(), None
      else:
        # Last: who is killed before has claimed nothing.
        init_fn = _in_turn(
          init_fn, lambda session: session.run(owner.initializer)
        )
    return manager.prepare_session(
      self._target,
      init_op=init_op,
      init_fn=init_fn,
      config=self._session_config,
    )

  def _wait_for_chief(self, manager):
    chief = self._task.chief
    for waited in range(0, placement.WAIT_SECONDS, placement.TELL_SECONDS):
      logging.info(
        "Waiting for the %s to initialise the variables, for %d s so far.",
        chief,
        waited,
      )
      try:
        return manager.wait_for_session(
          self._target,
          config=self._session_config,
          max_wait_secs=placement.TELL_SECONDS,
        )
      except tf.errors.DeadlineExceededError:
        continue
    raise program.UserError(
      f"The {chief} has not initialised the variables after "
      f"{placement.WAIT_SECONDS} s: is it running?"
    )

  def _owner(self):
    """A variable by which servers, which outlive runs, tell whose they hold."""
    with tf.device(self._task.place("/cpu:0", "/cpu:0")):
      return tf.get_variable(
        "train_dir",
        initializer=tf.constant(self._own_name()),
        trainable=False,
        collections=[],
      )

  def _own_name(self):
    directory = self._config.train_dir
    return directory if "://" in directory else os.path.abspath(directory)

  def _is_served(self, variables, owner, step):
    """Whether the servers hold this run's variables, newer than a checkpoint.

    So they do for a chief that returns: the others have trained meanwhile.

    Args:
      variables: list of all, the owner among them.
      owner: string variable.
      step: int, that of the checkpoint.
    """
    missing = tf.report_uninitialized_variables(variables)
    global_step = tf.train.get_global_step()
    with tf.Session(self._target, config=self._session_config) as session:
      num_missing = session.run(missing).size
      if num_missing or self._config.start_new_model:
        if 0 < num_missing < len(variables):
          logging.warning(
            "The parameter servers lack %d of %d variables: all of them are "
            "initialised.",
            num_missing,
            len(variables),
          )
        return False
      found, living = session.run([owner, global_step])
    if found.decode() != self._own_name() or living < step:
      logging.info(
        "The parameter servers hold step %d of the run in %s: all variables "
        "are initialised.",
        living,
        found.decode(),
      )
      return False
    logging.info(
      "The parameter servers hold this run's variables, of step %d: it goes on "
      "from there, not from a checkpoint.",
      living,
    )
    return True


def _in_turn(*functions):
  """A function of a session that calls others with it."""

  def call(session):
    for function in functions:
      function(session)

  return call
