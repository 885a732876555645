"""What --help shows: the flags of `flag_fields`, by group, on 80 columns."""

import os
import sys
import textwrap

from absl import flags

from console import flag_fields

_WIDTH = 80


class _Help(flags.Flag):
  """--help for all flags, --help=TOPIC for a group or a model."""

  def __init__(self):
    super().__init__(
      flags.ArgumentParser(),
      flags.ArgumentSerializer(),
      "help",
      None,
      "show this help",
      short_name="?",
      boolean=True,  # So that it needs no value.
      allow_override=True,
    )

  def parse(self, argument):
    """Writes the help and leaves; see the base class."""
    if argument == "false":  # --nohelp
      return
    text = None
    if argument == "true":
      text = of_program(sys.modules["__main__"].__doc__ or "")
    else:
      text = of_topic(argument)
    print(text, flush=True)
    sys.exit(0)


def parse(argv):
  """Parses the command line, with --help; a bad one ends the program.

  Args:
    argv: list of str, the program's name first.

  Returns:
    list of str, what is no flag.
  """
  flags.DEFINE_flag(_Help(), module_name="absl.app")  # In its place.
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    name = os.path.basename(argv[0])
    print(f"{name}: error: {error}\n--help lists the flags.", file=sys.stderr)
    sys.exit(1)


def of_program(description, flag_values=flags.FLAGS):
  """All flags of a program, the required ones first.

  Args:
    description: str, what the program does.
    flag_values: absl's flags.

  Returns:
    str.
  """
  shown = _shown(flag_values)
  parts = [description.strip()]
  required = [flag for flag in shown if _spec(flag).required]
  if required:
    parts.append(_section("Required", required, {}))
  for group in dict.fromkeys(_spec(flag).group for flag in shown):
    parts.append(_group(group, shown))
  for flag in shown:
    if _spec(flag).describes:
      parts.append(f"--help={flag.name.upper()} shows the flags of one.")
  parts.append("--helpfull lists every flag, also those of libraries.")
  return "\n\n".join(filter(None, parts)) + "\n"


def of_topic(topic, flag_values=flags.FLAGS):
  """The flags of a group, or those that a value such as a model uses.

  Args:
    topic: str.
    flag_values: absl's flags.

  Returns:
    str.

  Raises:
    flags.IllegalFlagValueError: no such topic.
  """
  shown = _shown(flag_values)
  groups = {_spec(flag).group.lower(): _spec(flag).group for flag in shown}
  known = [group for group in groups.values() if group]
  if topic.lower() in groups and topic:
    return _group(groups[topic.lower()], shown) + "\n"
  for flag in shown:
    if not _spec(flag).describes:
      continue
    known += flag.parser.enum_values
    if topic in flag.parser.enum_values:
      found = _spec(flag).describes(topic)
      parts = [f"--{flag.name}={topic}", found.text]
      shown = [flag for flag in shown if flag.name in found.defaults]
      for group in dict.fromkeys(_spec(flag).group for flag in shown):
        parts.append(_group(group, shown, found.defaults))
      return "\n\n".join(parts) + "\n"
  raise flags.IllegalFlagValueError(
    f"--help={topic}: give one of {', '.join(known)}."
  )


def _shown(flag_values):
  """The flags to show, in the order of their definition.

  Those of fields, and whatever else the program itself defines.
  """
  own = {f.name for f in flag_values.get_key_flags_for_module(sys.argv[0])}
  found = (flag_values[name] for name in flag_values)
  return [f for f in found if getattr(f, "spec", f.name in own)]


def _spec(flag):
  plain = flag_fields.Spec(
    flag.default, flag.help, flags.ArgumentParser, "VALUE"
  )
  return getattr(flag, "spec", plain)


def _group(group, shown, defaults=None):
  members = [flag for flag in shown if _spec(flag).group == group]
  if defaults is None:
    members = [flag for flag in members if not _spec(flag).required]
  return _section(group or "Others", members, defaults or {}) if members else ""


def _section(title, members, defaults):
  return f"{title}:\n" + "\n".join(_entry(flag, defaults) for flag in members)


def _entry(flag, defaults):
  """A flag with its default and help.

  Args:
    flag: absl's flag.
    defaults: dict of name to the default to show instead of the flag's own.

  Returns:
    str, lines.
  """
  spec = _spec(flag)
  default = defaults.get(flag.name, flag.default)
  note = "" if flag.name in defaults else getattr(flag, "note", "")
  head = f"--{flag.name}={spec.placeholder}"
  if flag.boolean:
    head = f"--[no]{flag.name}"
  if spec.alias:
    head += f", --{spec.alias}"
  if spec.required:
    head += "  (required)"
  elif default not in (None, ""):
    text = str(default).lower() if flag.boolean else str(default)
    head += f"  (default: {text})"
  text = spec.help + note
  if isinstance(flag.parser, flags.EnumParser):
    text += f" One of: {', '.join(flag.parser.enum_values)}."
  lines = textwrap.wrap(
    text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6,
    break_long_words=False, break_on_hyphens=False,
  )  # fmt: skip
  return "\n".join([f"  {head}", *lines])
