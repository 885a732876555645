"""What error messages say of values and of TensorFlow's errors: a line each."""

import reprlib


class _Repr(reprlib.Repr):
  def repr_bytes(self, x: bytes, level: int) -> str:
    """Cut first, as a str is: `repr` of all takes four times the memory."""
    return self.repr_str(x, level)  # type: ignore[arg-type]


_SHORT = _Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8


def short(value: object) -> str:
  """`repr` of a value from outside: whole if short, else its two ends."""
  return _SHORT.repr(value)


def cut(text: str, limit: int) -> str:
  """A text of at most about `limit` characters; says what is left out."""
  if len(text) <= limit:
    return text
  return f"{text[:limit]} ... ({len(text) - limit:,} characters more)"


def cause(text: str) -> str:
  """The line of a TensorFlow error that says what went wrong.

  What a session raises begins with where the failing operation was built, and
  ends with the operations that it held up.
  """
  lines = [line.strip() for line in text.splitlines()]
  nodes = [i for i, line in enumerate(lines) if line.startswith("Node: ")]
  for line in lines[nodes[-1] + 1 if nodes else 0 :]:
    if line and "[[" not in line and not line.endswith("error(s) found."):
      return line
  return text
