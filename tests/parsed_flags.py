"""Model flags as of a command line, for tests."""

from absl import flags

import model_flags

_FRAME_LEVEL = {
  "frame_features": True,
  "feature_names": "rgb,audio",
  "feature_sizes": "8,4",
}
_VIDEO_LEVEL = {
  "frame_features": False,
  "feature_names": "mean_rgb,mean_audio",
  "feature_sizes": "8,4",
}
# Of the data, the loss, the model's name, and mixtures of it.
EVERY_MODEL = {
  "cl_lambda",
  "cl_temperature",
  "feature_dtype",
  "feature_fingerprints",
  "feature_names",
  "feature_ranges",
  "feature_sizes",
  "frame_features",
  "holdout_fraction",
  "label_loss",
  "max_frames",
  "mixture",
  "model",
  "num_classes",
  "segment_labels",
}


def parse(*args):
  """Flags as of a command line."""
  own = flags.FlagValues()
  model_flags.define(own)
  own(["prog", *args])
  return own


def values(*args):
  return model_flags.from_flags(parse(*args))


def values_of(model, *args):
  """Values that suit the model's kind of input."""
  kind = _FRAME_LEVEL if model_flags.is_frame_level(model) else _VIDEO_LEVEL
  given = [f"--{name}={value}" for name, value in kind.items()]
  return values(f"--model={model}", *given, *args)
