"""A trained model in one .tgz: its flags and one checkpoint.

With them go what says how its features are made and its classes called, see
description.py.
"""

import gzip
import io
import os
import re
import shutil
import tarfile
import zlib

import files
import model_flags
from checkpoints import description, events, parts, restore
from console import messages

# What an archive may hold: plain names, so that nothing lands elsewhere.
_MEMBER = re.compile(
  "|".join(
    (
      re.escape(model_flags.FILE_NAME),
      parts.LIST,
      parts.FILE,
      *description.FILES,
    )
  )
)
# train.py's checkpoints have one data file.
_MAX_MEMBERS = 100
# Weights and moments hardly compress: an archive unpacks to 1.1 times its size,
# after one step as after many. Deflate alone would allow 1,000 times.
_MAX_RATIO = 20
_SMALL_BYTES = 64 << 20
_BLOCK_BYTES = 1 << 20


def write(path, directory, checkpoint):
  """Bundles a checkpoint with the flags of its model.

  Args:
    path: the .tgz to write.
    directory: str, the train_dir, a local one.
    checkpoint: path prefix; in the archive it is named by its step.

  Raises:
    restore.DamagedCheckpointError: the checkpoint is not there, or not all
      of it.
  """
  found = parts.of(checkpoint)
  if not parts.is_whole(found):
    raise restore.DamagedCheckpointError(
      f"{checkpoint} is not there as a whole: {sorted(found)}."
    )
  own_name = parts.prefix("", restore.step_of(checkpoint))
  members = {
    model_flags.FILE_NAME: os.path.join(directory, model_flags.FILE_NAME),
    **description.files_of(directory),
    **{f"{own_name}.{part}": found[part] for part in sorted(found)},
  }
  with (
    files.ReplacedFile(path, binary=True) as stream,
    tarfile.open(fileobj=stream, mode="w:gz", dereference=True) as archive,
  ):
    for member, source in members.items():
      archive.add(source, arcname=member)
    text = f'model_checkpoint_path: "{own_name}"\n'.encode()
    info = tarfile.TarInfo(parts.LIST)
    info.size = len(text)
    archive.addfile(info, io.BytesIO(text))


def extract(path, directory):
  """Unpacks an archive that `write` made, after looking at every member.

  Args:
    path: the .tgz, from whoever.
    directory: str, made if need be; then it serves as a train_dir.

  Returns:
    Path prefix of its checkpoint in the directory, which may hold others; ""
    if it has none.

  Raises:
    ValueError: not such an archive, or a damaged one, or no flags in it, or a
      member that is no plain file of a name that `write` gives, or members of
      more bytes than a model of the archive's size has, or the directory of a
      training, or too small a disk; nothing is unpacked then.
  """
  if any(re.fullmatch(events.FILES, n) for n in parts.names_in(directory)):
    raise ValueError(
      f"{directory} is a training directory: unpack {path} to another, lest "
      "its model be replaced."
    )
  try:
    with (
      _Unzipped(path) as unzipped,
      tarfile.open(fileobj=unzipped, mode="r:") as archive,
    ):
      members = _checked_members(archive, path)
      # The archive may end before the data that its checksum covers.
      while unzipped.read(_BLOCK_BYTES):
        pass
      os.makedirs(directory, exist_ok=True)
      _check_room(members, path, directory)
      for member in members:
        target = os.path.join(directory, member.name)
        with (
          archive.extractfile(member) as source,  # type: ignore[union-attr]
          files.ReplacedFile(target, binary=True) as stream,
        ):
          while block := source.read(_BLOCK_BYTES):
            stream.write(block)
  except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(f"{path} is not a .tgz archive: {error}.") from None
  names = [member.name for member in members]
  prefixes = [n.removesuffix(".index") for n in names if n.endswith(".index")]
  return os.path.join(directory, prefixes[0]) if prefixes else ""


class _Unzipped(gzip.GzipFile):
  """What an archive unzips to, which is read in blocks."""

  def read(self, size=-1):
    """See the base class.

    Raises:
      tarfile.ReadError: a header larger than a block, which would be held in
        memory as a whole.
    """
    if not 0 <= size <= _BLOCK_BYTES:
      raise tarfile.ReadError(f"a header of {size:,} bytes")
    return super().read(size)


def _checked_members(archive, path):
  """The members of an archive, each looked at before the next is looked for.

  Raises:
    ValueError: a member that `write` does not write, or too much of them.
  """
  limit = max(_SMALL_BYTES, _MAX_RATIO * os.path.getsize(path))
  members = {}
  for member in archive:
    if (
      not member.isreg()
      or member.issparse()
      or not _MEMBER.fullmatch(member.name)
      or member.name in members
      or len(members) == _MAX_MEMBERS
    ):
      raise ValueError(
        f"{path} holds {messages.short(member.name)}, which no model archive "
        "has: nothing was unpacked."
      )
    members[member.name] = member
    total = sum(known.size for known in members.values())
    if total > limit:
      raise ValueError(
        f"{path} would unpack to {total:,} bytes or more; of a model archive "
        f"of its size, {limit:,} are credible: nothing was unpacked. If you "
        f"trust it, unpack it with tar -xzf and give --train_dir."
      )
  if model_flags.FILE_NAME not in members:
    raise ValueError(f"{path} is no model archive: no {model_flags.FILE_NAME}.")
  return list(members.values())


def _check_room(members, path, directory):
  """Raises ValueError unless a file system has room for some members."""
  total = sum(member.size for member in members)
  room = shutil.disk_usage(directory).free
  if total > room:
    raise ValueError(
      f"{path} unpacks to {total:,} bytes, but {directory} has room for "
      f"{room:,}: nothing was unpacked."
    )
