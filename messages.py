"""Values in error messages: whole if short, else their two ends."""

import reprlib

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8


def short(value) -> str:
  """`repr` of a value that came from outside, of a line at most."""
  return _SHORT.repr(value)


def cut(text: str, limit: int) -> str:
  """A text of at most about `limit` characters; says what is left out."""
  if len(text) <= limit:
    return text
  return f"{text[:limit]} ... ({len(text) - limit:,} characters more)"
