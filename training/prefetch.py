"""A batch goes to its device while the one before it is computed.

A step takes what the step before it has put on the device, and puts the next
batch there: the host gathers and copies frames while the device computes.
"""

import tensorflow.compat.v1 as tf

# Shapes are made of them, on the host.
_COUNTS = ("num_frames", "epoch")


def one_ahead(parts, devices, host):
  """What was put into each part one step ago.

  Args:
    parts: list of dicts of tensors. Texts are left out.
    devices: list of as many devices.
    host: device of the counts, which would be copied back from any other.

  Returns:
    (list of dicts like parts, operation that puts the next ones there: to be
    run once before the first step, and in each step).
  """
  taken, puts = [], []
  for number, (part, device) in enumerate(zip(parts, devices, strict=True)):
    found = {}
    for kind, place in (("counts", host), ("values", device)):
      own = {
        name: tensor
        for name, tensor in part.items()
        if (name in _COUNTS) == (kind == "counts") and tensor.dtype != tf.string
      }
      if own:
        with tf.device(place):
          arrived, put = _through(own, f"batch_{number}_{kind}")
        found |= arrived
        puts.append(put)
    taken.append(found)
  return taken, tf.group(*puts)


def _through(values, area):
  """(dict of what was put one step ago, operation that puts values)."""
  tensors = list(values.values())
  found = tf.raw_ops.Unstage(
    dtypes=[tensor.dtype for tensor in tensors], shared_name=area
  )
  for old, new in zip(found, tensors):
    old.set_shape(new.shape)
  put = tf.raw_ops.Stage(values=tensors, shared_name=area)
  return dict(zip(values, found)), put


def with_last(data):
  """A dataset, and a batch of no video after it, for its last to be taken."""
  empty = tf.nest.map_structure(
    lambda spec: tf.zeros([size or 0 for size in spec.shape], spec.dtype),
    data.element_spec,
  )
  return data.concatenate(tf.data.Dataset.from_tensors(empty))
