"""What tasks that take each step together add up, as a graph sees it.

Every task runs the same graph on videos of its own, and has all variables.
What each sums over its own videos is summed over the tasks by TensorFlow's
collective operations, which pass it around a ring of tasks, from host to host;
or what lies on GPUs by NCCL, from GPU to GPU. So all tasks get the same bits,
and what each makes of its variables is the same too.

Whatever is fetched, a step runs the same collective operations on every task:
by these TensorFlow knows which step of one task belongs to which of another.
"""

import itertools
import time
from typing import Any

import tensorflow.compat.v1 as tf

# What a task can ask for before a step, and all hear of after it: to stop as
# it got a signal, to end the run, to save a checkpoint.
WISHES = ("stop", "end", "save")


def why_not_nccl(is_wanted, on_gpus, tries):
  """Why NCCL is not to sum over the tasks; "" if it is.

  Args:
    is_wanted: bool, by --nccl.
    on_gpus: bool, whether what is summed lies there.
    tries: int, see `meeting.Meeting`.
  """
  if not on_gpus:
    return "no GPU is in use"
  if not is_wanted:
    return "as of --nonccl"
  return "with NCCL the tasks failed twice" if tries > 1 else ""


class Group:
  """The tasks of one training.

  Operations have no time-out: TensorFlow would start a thread for each, which
  sleeps as long. `meeting.Meeting` looks at `last_step` instead.

  Attributes:
    nccl: bool, whether NCCL sums what lies on GPUs: of all tasks or of none.
    last_step: float, when the last step began, of `time.monotonic`.
  """

  def __init__(self, size=1, index=0):
    """Says who is in it.

    Args:
      size: int >= 1, number of tasks.
      index: int, this one's number; 0 is the chief.
    """
    self.size = size
    self.index = index
    self.nccl = False
    self.last_step = time.monotonic()
    self._keys = itertools.count(1)
    self._wishes: Any = None

  def configure(self, config, task):
    """Adds to a session's configuration what collective operations need.

    Args:
      config: `tf.ConfigProto`.
      task: `placement.Task`, this one.
    """
    job = task.computing[0][0].split()[0]
    config.experimental.collective_group_leader = f"/job:{job}/replica:0/task:0"
    config.device_filters.append(task.device)
    # Operations wait for each other in the same order everywhere, too.
    config.experimental.collective_nccl = self.nccl

  def sum(self, value, device=""):
    """The sum over the tasks of a tensor, of the same shape in each.

    Args:
      value: the tensor, or what becomes one.
      device: str, the same in each task: a GPU, if it lies there. Integers
        don't.
    """
    if self.size == 1:
      return value
    place = tf.DeviceSpec.from_string(device)
    by_nccl = self.nccl and place.device_type == "GPU"
    with (
      tf.device(device if by_nccl else "/cpu:0"),
      tf.name_scope("all_reduce"),
    ):
      return tf.raw_ops.CollectiveReduce(
        input=value,
        group_size=self.size,
        # The tasks' GPUs of one number are a group.
        group_key=2 + place.device_index if by_nccl else 1,
        instance_key=next(self._keys),
        merge_op="Add",
        final_op="Id",
        subdiv_offsets=[0],
        # "auto" is the ring, on GPUs too.
        communication_hint="nccl" if by_nccl else "ring",
      )

  def sums(self, scalars):
    """Those of a list of float32 scalars: a list, in one operation."""
    if self.size == 1:
      return scalars
    return tf.unstack(self.sum(tf.stack(scalars)))

  def agree(self, batch):
    """What the tasks tell each other in a step: dict of int64 scalars.

    Args:
      batch: dict, see `endless`.

    Returns:
      dict of `epoch`, that of the task that is behind, or the one after it;
      `more`, how many tasks have another batch; and of `WISHES`, how many have
      that wish.
    """
    with tf.name_scope("agree"):
      self._wishes = tf.placeholder(tf.int64, [len(WISHES)], "wishes")
      more = tf.cast(batch["more"], tf.int64)
      own = tf.concat([[batch["epoch"], more], self._wishes], axis=0)
      epoch, *others = tf.unstack(self.sum(own))
      return dict(
        zip(("epoch", "more", *WISHES), (epoch // self.size, *others))
      )

  def feed(self, **wishes):
    """What to feed to a step: {} for one task alone.

    Args:
      **wishes: each of `WISHES`: what is true is wished.
    """
    self.last_step = time.monotonic()
    if self._wishes is None:
      return {}
    return {self._wishes: [int(bool(wishes[name])) for name in WISHES]}

  def spread(self, variables):
    """Operation by which every task takes the chief's values."""
    with tf.name_scope("spread"):
      return tf.group(
        *(
          tf.assign(
            variable,
            self.sum(
              tf.zeros(variable.shape, variable.dtype.base_dtype)
              if self.index
              else variable.read_value(),
              variable.device,
            ),
          )
          for variable in variables
        )
      )

  def settle(self, variables):
    """What all tasks run before a checkpoint is saved, and at the start.

    Averages of batch statistics become their means over the tasks. An average
    that moves by a fixed share at each step is linear in what it sees: so it is
    what it were if tasks took the mean at each step.

    Args:
      variables: list of the model's.

    Returns:
      float32 [tasks], the norm of each task's trainable weights. They are to be
      equal.
    """
    with tf.name_scope("settle"):
      moved = [
        tf.assign(variable, self.sum(variable.read_value() / self.size))
        for variable in variables
        if not variable.trainable and variable.dtype.base_dtype.is_floating
      ]
      squares = [tf.nn.l2_loss(v) for v in variables if v.trainable]
      norm = tf.sqrt(2.0 * tf.add_n(squares))
      norms = self.sum(norm * tf.one_hot(self.index, self.size))
      with tf.control_dependencies(moved):
        return tf.identity(norms)


ALONE = Group()


def endless(data, last_epoch):
  """A task's batches, and empty ones for as long as others have some.

  Args:
    data: dataset of dicts, as `readers.BaseReader.batches` makes it.
    last_epoch: int, the `epoch` of the empty ones.

  Returns:
    Dataset of the same, with `more`: bool, whether a later one has a video.
  """
  empty = {
    name: tf.zeros([size or 0 for size in spec.shape], spec.dtype)
    for name, spec in data.element_spec.items()
  }
  empty["epoch"] = tf.constant(last_epoch, tf.int64)
  end = tf.data.Dataset.from_tensors((empty, False)).repeat()
  # Each batch waits for the next one.
  return (
    data.map(lambda batch: (batch, True))
    .concatenate(end)
    .scan(empty, lambda last, new: (new[0], {**last, "more": new[1]}))
    .skip(1)
    .prefetch(1)
  )
