"""Flags whose values are checked, and whose paths are expanded, when parsed.

The programs, the scripts and `model_flags` define their numbers and paths by
these functions: a value that TensorFlow would choke on later is refused as
soon as it is given, in one line that names the flag.
"""

import os

from absl import flags

# The largest float32: what is beyond is infinite to TensorFlow.
_MAX_FLOAT = (2.0 - 2.0**-23) * 2.0**127
# Sizes and counts that are larger overflow somewhere: in shapes, in arguments
# of operations, in a step's arithmetic.
MAX_INTEGER = 2**31 - 1
# A run adds its step and its task's number to the seed, which is an int64.
_MAX_SEED = 2**62

# --help shows a flag with the module that asked for it, not with this one.
flags.disclaim_key_flags()


class _FiniteParser(flags.FloatParser):
  """Parses numbers that a float32 holds: neither NaN nor infinite."""

  number_name = "finite number"
  syntactic_help = "a finite number"

  def is_outside_bounds(self, val):
    """See the base class; NaN is outside of everything."""
    return not abs(val) <= _MAX_FLOAT or super().is_outside_bounds(val)


class _PathParser(flags.ArgumentParser):
  """Expands `~` and `~user`, which shells leave alone in --flag=~/x."""

  syntactic_help = "a path"

  def parse(self, argument):
    """See the base class."""
    return os.path.expanduser(super().parse(argument))


class _PathsParser(_PathParser):
  """The same for each part of a comma list."""

  syntactic_help = "comma-separated paths"

  def parse(self, argument):
    """See the base class."""
    parts = flags.ArgumentParser.parse(self, argument).split(",")
    return ",".join(os.path.expanduser(part.strip()) for part in parts)


def real(
  name,
  default,
  text,
  *,
  lower_bound=None,
  upper_bound=None,
  flag_values=flags.FLAGS,
):
  """Defines a flag of a finite number, within bounds if given."""
  parser = _FiniteParser(lower_bound, upper_bound)
  _define(parser, name, default, text, flag_values)


def integer(
  name,
  default,
  text,
  *,
  lower_bound,
  upper_bound=MAX_INTEGER,
  flag_values=flags.FLAGS,
):
  """Defines a flag of an integer within bounds."""
  parser = flags.IntegerParser(lower_bound, upper_bound)
  _define(parser, name, default, text, flag_values)


def seed(name, default, text, *, flag_values=flags.FLAGS):
  """Defines a flag of a generator's seed."""
  integer(
    name,
    default,
    text,
    lower_bound=-_MAX_SEED,
    upper_bound=_MAX_SEED,
    flag_values=flag_values,
  )


def path(name, default, text, *, flag_values=flags.FLAGS, **kwargs):
  """Defines a flag of a path; `~` in it is expanded."""
  _define(_PathParser(), name, default, text, flag_values, **kwargs)


def paths(name, default, text, *, flag_values=flags.FLAGS, **kwargs):
  """Defines a flag of comma-separated paths or globs, expanded likewise."""
  _define(_PathsParser(), name, default, text, flag_values, **kwargs)


def _define(parser, name, default, text, flag_values, **kwargs):
  flags.DEFINE(
    parser,
    name,
    default,
    text,
    flag_values,
    flags.ArgumentSerializer(),
    **kwargs,
  )
