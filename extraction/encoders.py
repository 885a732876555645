"""Networks that make features of pictures and sound.

Built in: `efficientnet-lite0` and `logmel`. From files: ONNX, SavedModel and
TFLite, each with a JSON file beside it, see `preprocessing`. Axes: N pictures
or pieces of sound, D features.

An encoder is declared by what `features.json` stores of it: {"kind":
"efficientnet-lite0"}, or {"kind": "onnx", "file": name, "hash": hexadecimal
SHA-256 of the file, "preprocessing": {...}}.
"""

import functools
import hashlib
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from console import messages
from extraction import logmel, packages, preprocessing

EFFICIENTNET, LOGMEL = "efficientnet-lite0", "logmel"
_ONNX, _SAVED_MODEL, _TFLITE = "onnx", "saved_model", "tflite"
_SIGNATURE = "serving_default"
# Pictures at once: more are no faster.
_BATCH = 32

Network = Callable[[np.ndarray], np.ndarray]


class Encoder:
  """A network with what it takes.

  Attributes:
    takes: `preprocessing.Preprocessing`.
    size: int, D.
  """

  def __init__(
    self,
    name: str,
    takes: preprocessing.Preprocessing,
    network: Network,
    batch: int | None = None,
  ):
    """Runs the network once, to know D.

    Args:
      name: str, for errors.
      takes: what the network takes.
      network: function of an array [N, ...]; returns one [N, D].
      batch: int, the only N that it can take, or None.

    Raises:
      ValueError: the network does not take that, or does not return [N, D].
    """
    self.takes = takes
    self._name = name
    self._network = network
    self._batch = batch
    shape: tuple[int, ...] = (*takes.crop_size, 3)
    dtype: type = np.uint8
    if takes.input != preprocessing.PICTURE:
      is_mel = takes.input == preprocessing.LOGMEL
      shape = (logmel.SIZE if is_mel else takes.samples,)
      dtype = np.float32
    self.size = 0
    self.size = self(np.zeros([1, *shape], dtype)).shape[1]

  def __call__(self, inputs: np.ndarray) -> np.ndarray:
    """Features.

    Args:
      inputs: array [N, ...] that `inputs.decode` made.

    Returns:
      float32 [N, D].
    """
    step = self._batch or _BATCH
    parts = [np.zeros([0, self.size], np.float32)] if self.size else []
    for i in range(0, len(inputs), step):
      some = inputs[i : i + step]
      missing = self._batch - len(some) if self._batch else 0
      padded = np.pad(some, [(0, missing)] + [(0, 0)] * (some.ndim - 1))
      parts.append(self._run(padded)[: len(some)])
    return np.concatenate(parts)

  def _run(self, inputs):
    try:
      found = np.asarray(self._network(self.takes.normalise(inputs)))
    except Exception as error:  # Of each runtime its own.
      raise ValueError(
        f"The encoder {self._name} does not take what its preprocessing makes, "
        f"{_shape(self.takes.normalise(inputs))}: {error}"
      ) from error
    count = len(inputs)
    if (
      found.ndim < 2
      or len(found) != count
      or found.size != count * max(found.shape[1:])
    ):
      raise ValueError(
        f"The encoder {self._name} makes {_shape(found)} of "
        f"{_shape(inputs)}: need [N, D], a row each; export it with its "
        "pooling, or name that output as output_name."
      )
    return found.reshape(count, -1).astype(np.float32)


def _shape(array):
  return f"an array {list(array.shape)}"


def declare(source: str) -> tuple[dict[str, Any], str]:
  """The declaration of an encoder that a user names.

  Args:
    source: "efficientnet-lite0", "logmel", or the path of a model.

  Returns:
    The declaration, and the directory where its file is, or "".

  Raises:
    ValueError: there is no such file, or none beside it.
  """
  if source in (EFFICIENTNET, LOGMEL):
    return {"kind": source}, ""
  path = pathlib.Path(os.path.expanduser(source))
  if not path.exists():
    raise ValueError(
      f"There is no encoder {source}: need {EFFICIENTNET}, {LOGMEL} or the "
      "path of an .onnx or .tflite file or of a SavedModel."
    )
  kind = {".onnx": _ONNX, ".tflite": _TFLITE}.get(path.suffix.lower())
  if (path / "saved_model.pb").exists():
    kind = _SAVED_MODEL
  if kind is None:
    raise ValueError(
      f"{source} is neither .onnx nor .tflite nor a SavedModel's directory."
    )
  path = path.absolute()
  declaration = {
    "kind": kind,
    "file": path.name,
    "hash": _digest(path),
    "preprocessing": preprocessing.beside(path).to_json(),
  }
  return declaration, str(path.parent)


def build(
  declaration: Mapping[str, Any], search: Iterable[str] = ()
) -> Encoder:
  """The encoder that a declaration names.

  Args:
    declaration: see the module.
    search: directories to look for its file in.

  Raises:
    ValueError: the file is not there or another one, a package is missing, or
      see `Encoder`.
  """
  kind = declaration.get("kind")
  if kind == LOGMEL:
    return Encoder(LOGMEL, preprocessing.LOGMEL_PATCHES, _flat)
  if kind == EFFICIENTNET:
    return Encoder(kind, preprocessing.IMAGENET_LITE, _efficientnet())
  openers = {
    _ONNX: _open_onnx,
    _SAVED_MODEL: _open_saved_model,
    _TFLITE: _open_tflite,
  }
  if kind not in openers:
    raise ValueError(
      f"There is no encoder of kind {kind!r}: need one of "
      f"{', '.join([EFFICIENTNET, LOGMEL, *openers])}."
    )
  if missing := {"file", "hash", "preprocessing"} - set(declaration):
    raise ValueError(
      f"The encoder's declaration {messages.short(dict(declaration))} lacks "
      f"{', '.join(sorted(missing))}."
    )
  takes = preprocessing.from_json(declaration["preprocessing"])
  path = _find(declaration["file"], declaration["hash"], search)
  network, batch = openers[kind](str(path), takes)
  return Encoder(path.name, takes, network, batch)


def _find(name, digest, search):
  """The path of a file of that name and hash."""
  search = list(search)
  found = [pathlib.Path(place) / name for place in search]
  found = [path for path in found if path.exists()]
  for path in found:
    if _digest(path) == digest:
      return path
  if found:
    raise ValueError(
      f"{found[0]} is another encoder than the one that made the features: its "
      f"SHA-256 is {_digest(found[0])}, not {digest}."
    )
  raise ValueError(
    f"The encoder's file {name} is not in {', '.join(search) or 'any place'}: "
    "name its directory."
  )


def _digest(path):
  """SHA-256 of a file, or of a directory's files with their names."""
  digest = hashlib.sha256()
  if path.is_file():
    digest.update(path.read_bytes())
    return digest.hexdigest()
  for file in sorted(p for p in path.rglob("*") if p.is_file()):
    digest.update(f"{file.relative_to(path)}\0{_digest(file)}\n".encode())
  return digest.hexdigest()


def _flat(patches):
  return patches.reshape(len(patches), -1)


def _efficientnet():
  """The network; TensorFlow is loaded here."""
  import tensorflow.compat.v1 as tf

  from extraction import efficientnet

  height, width = preprocessing.IMAGENET_LITE.crop_size
  with tf.Graph().as_default() as graph:
    pictures = tf.placeholder(tf.float32, [None, height, width, 3])
    features = efficientnet.features(pictures, efficientnet.weights())
  session = tf.Session(graph=graph, config=_session_config(tf))
  return lambda batch: session.run(features, {pictures: batch})


def _session_config(tf):
  config = tf.ConfigProto(allow_soft_placement=True)
  config.gpu_options.allow_growth = True
  return config


def _choose(names, wanted, what, path):
  """The name that the preprocessing gives, or the only one."""
  names = list(names)
  if (wanted and wanted not in names) or (not wanted and len(names) != 1):
    raise ValueError(
      f"{path}: need {what} of its preprocessing to be one of "
      f"{', '.join(names)}, got {wanted!r}."
    )
  return wanted or names[0]


def _open_onnx(path, takes):
  runtime = packages.load("onnxruntime", f"The encoder {path}")
  options = runtime.SessionOptions()
  options.log_severity_level = 3
  try:
    session = runtime.InferenceSession(
      path, options, providers=runtime.get_available_providers()
    )
  except Exception as error:
    raise ValueError(f"{path} can't be loaded: {error}") from None
  inputs = {each.name: each for each in session.get_inputs()}
  name = _choose(inputs, takes.input_name, "input_name", path)
  output = _choose(
    [each.name for each in session.get_outputs()],
    takes.output_name,
    "output_name",
    path,
  )
  size = inputs[name].shape[0] if inputs[name].shape else None
  return (
    lambda batch: session.run([output], {name: batch})[0],
    size if isinstance(size, int) else None,
  )


def _open_saved_model(path, takes):
  import tensorflow.compat.v1 as tf

  graph = tf.Graph()
  session = tf.Session(graph=graph, config=_session_config(tf))
  try:
    with graph.as_default():
      model = tf.saved_model.loader.load(session, ["serve"], path)
  except Exception as error:
    raise ValueError(f"{path} can't be loaded: {error}") from None
  if _SIGNATURE not in model.signature_def:
    raise ValueError(
      f"{path} has no signature {_SIGNATURE}, but "
      f"{', '.join(model.signature_def)}."
    )
  signature = model.signature_def[_SIGNATURE]
  name = _choose(signature.inputs, takes.input_name, "input_name", path)
  output = _choose(signature.outputs, takes.output_name, "output_name", path)
  feed = graph.get_tensor_by_name(signature.inputs[name].name)
  fetch = graph.get_tensor_by_name(signature.outputs[output].name)
  size = feed.shape.as_list()[0] if feed.shape.rank else None
  return lambda batch: session.run(fetch, {feed: batch}), size


def _open_tflite(path, takes):
  import tensorflow as tf

  try:
    with warnings.catch_warnings():
      # Of its successor, which TensorFlow does without so far.
      warnings.simplefilter("ignore")
      network = tf.lite.Interpreter(
        path, num_threads=len(os.sched_getaffinity(0))
      )
    network.allocate_tensors()
  except Exception as error:
    raise ValueError(f"{path} can't be loaded: {error}") from None
  inputs = {each["name"]: each for each in network.get_input_details()}
  outputs = {each["name"]: each for each in network.get_output_details()}
  feed = inputs[_choose(inputs, takes.input_name, "input_name", path)]
  fetch = outputs[_choose(outputs, takes.output_name, "output_name", path)]
  run = functools.partial(_run_tflite, network, feed, fetch)
  # Models whose batch is not said to vary are fed one by one.
  return run, None if feed["shape_signature"][0] < 0 else int(feed["shape"][0])


def _run_tflite(network, feed, fetch, batch):
  """Runs an interpreter; whole numbers are scaled as it says."""
  inputs = {each["index"]: each for each in network.get_input_details()}
  if inputs[feed["index"]]["shape"][0] != len(batch):
    network.resize_tensor_input(feed["index"], batch.shape)
    network.allocate_tensors()
  network.set_tensor(feed["index"], _quantised(batch, feed))
  network.invoke()
  found = network.get_tensor(fetch["index"])
  scale, zero = fetch["quantization"]
  return (found.astype(np.float32) - zero) * scale if scale else found


def _quantised(batch, detail):
  """Numbers in the type of a tensor of an interpreter."""
  scale, zero = detail["quantization"]
  if not scale:
    return batch.astype(detail["dtype"])
  limits = np.iinfo(detail["dtype"])
  numbers = np.round(batch / scale + zero)
  return numbers.clip(limits.min, limits.max).astype(detail["dtype"])
