"""Installs the programs' pinned dependencies: pip install -e .[dev]."""

import glob
import os

import setuptools

_HERE = os.path.dirname(os.path.abspath(__file__))
_TENSORFLOW = "2.21.0"
_PLOTS = [
  # The newest matplotlib that still runs on Python 3.10.
  "matplotlib==3.10.9",
  "tabulate==0.10.0",
]

setuptools.setup(
  name="learnable-pooling",
  version="0.1.0",
  description="Learnable pooling methods for video classification "
  "(Kmiec, Bae, An 2018) in the style of the YouTube-8M starter code.",
  python_requires=">=3.10,<3.14",
  packages=["checkpoints", "models", "pooling", "records", "training"],
  py_modules=sorted(
    os.path.splitext(os.path.basename(path))[0]
    for path in glob.glob(os.path.join(_HERE, "*.py"))
    if os.path.basename(path) != "setup.py"
  ),
  install_requires=[
    f"tensorflow=={_TENSORFLOW}",
    "tf-slim==1.1.0",
    "tensorboard==2.21.0",
    "absl-py==2.5.1",
    # The newest numpy that still runs on Python 3.10.
    "numpy==2.2.6",
    # Reads on behind a damaged record: checks what TensorFlow gave up on.
    "google-crc32c==1.9.0",
    "tqdm==4.70.1",
  ],
  extras_require={
    "gpu": [f"tensorflow[and-cuda]=={_TENSORFLOW}"],
    # scripts/compare_models.py: its plot and its table.
    "plots": _PLOTS,
    "dev": ["pytest==9.2.0", "pytest-xdist==3.8.0", "ruff==0.17.6", *_PLOTS],
  },
)
