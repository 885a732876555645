"""A trained model in one .tgz: its flags and one checkpoint."""

import glob
import gzip
import io
import os
import re
import tarfile
import zlib

import files
import model_flags
import train_dir

_CHECKPOINT_FILE = "checkpoint"
# What an archive may hold: plain names, so that nothing lands elsewhere.
_MEMBER = re.compile(
  rf"({re.escape(model_flags.FILE_NAME)}|{_CHECKPOINT_FILE}|"
  rf"{re.escape(train_dir.CHECKPOINT_PREFIX)}-\d+"
  r"\.(index|data-\d{5}-of-\d{5}))"
)


def write(path, directory, checkpoint):
  """Bundles a checkpoint with the flags of its model.

  Args:
    path: the .tgz to write.
    directory: str, the train_dir, a local one.
    checkpoint: path prefix.

  Raises:
    train_dir.DamagedCheckpointError: the checkpoint is not there, or not all
      of it.
  """
  folder, name = os.path.split(checkpoint)
  wanted = re.compile(rf"{re.escape(name)}\.(index|data-\d{{5}}-of-\d{{5}})")
  parts = sorted(part for part in os.listdir(folder) if wanted.fullmatch(part))
  if f"{name}.index" not in parts or len(parts) < 2:
    raise train_dir.DamagedCheckpointError(
      f"{checkpoint} is not there as a whole: {parts}."
    )
  members = [os.path.join(directory, model_flags.FILE_NAME)]
  members += [os.path.join(folder, part) for part in parts]
  with (
    files.ReplacedFile(path, binary=True) as stream,
    tarfile.open(fileobj=stream, mode="w:gz", dereference=True) as archive,
  ):
    for member in members:
      archive.add(member, arcname=os.path.basename(member))
    text = f'model_checkpoint_path: "{name}"\n'.encode()
    info = tarfile.TarInfo(_CHECKPOINT_FILE)
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
    ValueError: not such an archive, or a damaged one, or a member that is no
      plain file of a name that `write` gives, or the directory of a training;
      nothing is unpacked then.
  """
  if glob.glob(f"{glob.escape(directory)}/events.out.tfevents.*"):
    raise ValueError(
      f"{directory} is a training directory: unpack {path} to another, lest "
      "its model be replaced."
    )
  try:
    with tarfile.open(path, "r:gz") as archive:
      members = archive.getmembers()
      # The archive may end before the data that its checksum covers.
      while archive.fileobj.read(1 << 20):
        pass
      for member in members:
        if not member.isreg() or not _MEMBER.fullmatch(member.name):
          raise ValueError(
            f"{path} holds {member.name!r}, which no model archive has: "
            "nothing was unpacked."
          )
      names = [member.name for member in members]
      os.makedirs(directory, exist_ok=True)
      for member in members:
        target = os.path.join(directory, member.name)
        with (
          archive.extractfile(member) as source,
          files.ReplacedFile(target, binary=True) as stream,
        ):
          while block := source.read(1 << 20):
            stream.write(block)
  except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise ValueError(f"{path} is not a .tgz archive: {error}.") from None
  prefixes = [n.removesuffix(".index") for n in names if n.endswith(".index")]
  return os.path.join(directory, prefixes[0]) if prefixes else ""
