"""Makes a set of records of clips and their labels.

See scripts/make_records.py, which is the program.
"""

import collections
import csv
import os
import shutil
from collections.abc import Sequence

import numpy as np

import files
from console import flag_fields, program
from recording import (
  clip_features,
  clip_labels,
  clip_media,
  clip_sources,
  clip_tables,
  report,
  resuming,
)
from recording.clip_sources import ClipError
from recording.config import Config
from records import features_file, vocabulary, writer
from sharding import shard as shard_lib

SKIPPED = "skipped.csv"
# Keys of the records themselves.
_RESERVED = ("id", "labels", "video_id")


class _Maker:
  """Makes one data set."""

  def __init__(self, config):
    self._config = config
    self._output_dir = config.directory
    settings = {
      **{name: getattr(config, name) for name in flag_fields.specs(Config)},
      **{
        f"content of --{name}": resuming.stamp(getattr(config, name))
        for name in ("features", "labels")
      },
    }
    if config.like:
      path = os.path.join(config.like, features_file.FILE_NAME)
      settings["content of --like"] = (
        resuming.stamp(path) if os.path.exists(path) else ""
      )
    # The same folder by another path is the same.
    del settings["output_dir"], settings["jobs"]
    self._progress = resuming.begin(self._output_dir, settings)
    self._like = self._known = None
    if config.like:
      self._like = features_file.load(config.like)
      if not self._like:
        raise ValueError(
          f"--like={config.like} has no {features_file.FILE_NAME}."
        )
    self._media, self._folder, self._skipped = self._extract()
    if os.path.isdir(self._folder):
      self._known = features_file.load(self._folder)
    self._source = self._open()
    # Of all shards: labels and parts are to be the same in each.
    self._ids = self._source.ids
    if config.shard and self._media:
      self._ids = list(self._media)
    self._labels = self._read_labels()
    self._parts = self._share_out()
    self._loader = clip_features.Loader(self._source, self._progress.skipped)

  def _path(self, name):
    return os.path.join(self._output_dir, name)

  def _extract(self):
    """({clip id: path} of videos and sounds, folder of arrays, what failed)."""
    config = self._config
    if not os.path.isdir(config.features) or clip_sources.has_arrays(
      config.features
    ):
      return {}, config.features, []
    media = clip_media.paths_of(config.features)
    if not media:
      raise ValueError(
        f"--features={config.features} holds neither .npz or .npy files nor "
        "videos or sounds."
      )
    folder = self._path("extracted")
    # extract.py deals the files out as `_own` does.
    names = ("encoder", "fps", "max_frames", "jobs", "shard")
    options = {name: getattr(config, name) for name in names}
    if self._like and not config.encoder:
      options |= clip_media.options_of(
        [feature.extractor for feature in self._like.features]
      )
    return media, folder, clip_media.extract(config.features, folder, options)

  def _open(self):
    """The source of the clips."""
    config = self._config
    source: clip_sources.Source
    names = config.names
    described = self._like or (not names and self._known)
    if described:
      names = [feature.name for feature in described.features]
    if clip_tables.is_table(config.features):
      columns = clip_tables.columns_of(
        config.features,
        names,
        clip_sources.DEFAULT_NAME,
        config.id_column,
        [config.group_column, config.label_column],
      )
      source = clip_sources.Table(
        config.features, self._path(resuming.ROWS), columns
      )
    else:
      source = clip_sources.ArrayFolder(
        self._folder, names, not config.label_folders
      )
    taken = [n for n in source.names if n in _RESERVED or "," in n]
    if taken:
      raise ValueError(
        f"A feature can't be called {taken[0]!r}: take others by "
        "--feature_names."
      )
    if not source.ids:
      raise program.UserError(
        f"No clip in --features={config.features} can be used. The first: "
        + "; ".join(": ".join(pair) for pair in source.skipped[:1])
      )
    return source

  def _read_labels(self):
    config = self._config
    if not config.labels and not config.label_folders:
      return None
    names: Sequence[str] = ()
    if config.like:
      path = vocabulary.find(config.like)
      if not path:
        raise ValueError(
          f"--like={config.like} has no {vocabulary.FILE_NAME}: it does not "
          "say which label is which class."
        )
      names = vocabulary.load(path).names
    if config.label_folders:
      return clip_labels.of_folders(self._ids, names)
    return clip_labels.read(
      config.labels,
      self._ids,
      id_column=config.id_column,
      label_column=config.label_column,
      group_column=config.group_column,
      names=names,
    )

  def _share_out(self):
    """{part: ids, in an order that mixes them}."""
    if self._labels is None:
      parts = dict.fromkeys(self._ids, "test")
    else:
      parts = clip_labels.split(
        [i for i in self._ids if i in self._labels.of],
        self._config.shares,
        self._labels.groups,
      )
    found, own = {}, self._own()
    for clip_id in sorted(own & set(parts), key=clip_labels.position):
      found.setdefault(parts[clip_id], []).append(clip_id)
    return {part: found[part] for part in clip_labels.PARTS if part in found}

  def _own(self):
    """The ids of the clips to write: those of the shard."""
    shard, there = self._config.own_shard, set(self._source.ids)
    if not shard:
      return there
    if self._media:
      sizes = shard_lib.sizes_of([*self._media.values()])
      own = set(shard.deal(sizes))
      found = {i for i, path in self._media.items() if path in own}
    else:
      found = set(shard.deal({i: self._source.size(i) for i in self._ids}))
    if not found & there:
      raise program.UserError(
        f"--shard={shard}: of {len(self._ids)} clips it has none that can be "
        "used: make fewer shards."
      )
    return found & there

  def run(self):
    """Makes the set; returns the exit status."""
    described = self._describe()
    shards = self._shards(described)
    for name, ids in shards.items():
      if not (
        name in self._progress.shards and os.path.exists(self._path(name))
      ):
        self._write(name, ids, described)
    return self._finish(described)

  def _describe(self):
    """`features_file.Description`; a run that goes on has it already."""
    config, progress = self._config, self._progress
    if described := features_file.load(self._output_dir):
      clip_features.like(self._loader, self._output_dir, described, None, {})
      return described
    extractors = {}
    if self._known:
      extractors = {x.name: x.extractor for x in self._known.features}
    notes = {}
    if self._like:
      described = self._like
      clip_features.like(
        self._loader, config.like, described, config.feature_dtype, extractors
      )
    else:
      measured = self._parts.get("train") or [*self._source.ids]
      clip_features.fit_pcas(
        self._loader, clip_features.parse_pca(config.pca), measured
      )
      ranges = []
      if config.range != clip_features.MEASURED:
        ranges = flag_fields.parse_ranges(config.range)
      wish = clip_features.Wish(
        config.feature_dtype or "uint8",
        ranges,
        config.range_outside,
        extractors,
      )
      described, notes = clip_features.describe(self._loader, wish, measured)
    for feature in described.features:
      if feature.pca:
        self._loader.pcas[feature.name].save(self._path(feature.pca))
    self._save_vocabulary([0] * len(self._names()))
    progress.facts["notes"] = notes
    progress.facts["num_cut"] = 0
    progress.save()
    # The last: with it the features are described.
    features_file.save(self._output_dir, described)
    return described

  def _names(self):
    return self._labels.names if self._labels else ()

  def _save_vocabulary(self, counts):
    if self._labels:
      vocabulary.save(
        self._path(vocabulary.FILE_NAME), self._labels.names, counts
      )
    elif self._config.like:
      path = vocabulary.find(self._config.like)
      if path:
        shutil.copyfile(path, self._path(vocabulary.FILE_NAME))

  def _shards(self, described):
    """{file name: ids of its clips}."""
    counts = self._progress.facts.setdefault("num_shards", {})
    wanted, found = self._config.num_shards, {}
    of_train = len(self._parts.get("train", ())) or len(self._source.ids)
    for part, ids in self._parts.items():
      if part not in counts:
        counts[part] = self._loader.num_shards(len(ids), described)
        if wanted:
          counts[part] = max(1, round(wanted * len(ids) / of_train))
        counts[part] = min(counts[part], len(ids))
      paths = writer.shard_paths("", part, counts[part])
      found |= zip(paths, map(list, np.array_split(ids, counts[part])))
    return found

  def _write(self, name, ids, described):
    """Writes a shard, and keeps what is in it."""
    own: dict = {"clips": 0, "frames": 0, "longest": 0, "unlabelled": 0}
    outside, labels = collections.Counter(), collections.Counter()
    before = self._loader.num_cut

    def records():
      for clip_id, clip in self._loader.each(ids, name.split(".")[0]):
        try:
          frames, beyond = clip_features.stored(clip, described)
        except ClipError as error:
          self._loader.skipped[clip_id] = str(error)
          continue
        classes = self._labels.of[clip_id] if self._labels else None
        length = len(next(iter(frames.values())))
        own["clips"] += 1
        own["frames"] += length
        own["longest"] = max(own["longest"], length)
        own["unlabelled"] += classes == []
        outside.update(beyond)
        labels.update(map(str, classes or ()))
        yield writer.frame_record(
          clip_id.encode("utf-8", "surrogateescape"),
          frames,
          classes,
          dtype=described.dtype,
        )

    writer.write_shards([self._path(name)], [records()])
    own |= {"outside": dict(outside), "labels": dict(labels)}
    self._progress.shards[name] = own
    self._progress.facts["num_cut"] += self._loader.num_cut - before
    self._progress.save()

  def _finish(self, described):
    """Writes and prints what is said of the set; returns the exit status."""
    progress = self._progress
    skipped = (
      self._skipped
      + self._source.skipped
      + [
        (self._loader.path(clip_id), why)
        for clip_id, why in progress.skipped.items()
      ]
    )
    listed = self._labels.of if self._labels else self._ids
    # A file that gave nothing is no clip, and told already.
    gone = {os.path.splitext(os.path.basename(file))[0] for file, _ in skipped}
    facts = report.Facts(
      output_dir=self._output_dir,
      features=self._config.features,
      description=described,
      notes=progress.facts["notes"],
      labels=self._labels,
      names=self._names(),
      strays=[
        each
        for each in (self._labels.strays if self._labels else ())
        if os.path.splitext(os.path.basename(each))[0] not in gone
      ],
      num_unlisted=len(self._ids) - len(listed),
      num_cut=progress.facts["num_cut"],
      skipped=skipped,
      parts=report.totals(progress.shards),
      example=self._example(),
    )
    if not facts.total("clips"):
      raise program.UserError(
        f"None of {len(self._source.ids)} clips could be used. The first: "
        + ": ".join(skipped[0])
      )
    if self._labels:
      self._save_vocabulary(report.counts(facts, "train"))
    write_skipped(self._path(SKIPPED), skipped)
    text = report.text(facts)
    files.write_text(self._path(report.FILE_NAME), text + report.table(facts))
    shutil.rmtree(self._path(resuming.ROWS), ignore_errors=True)
    progress.facts["whole"] = True
    progress.save()
    print(text)
    if self._config.shard:
      print("merge.py joins the shards, once all are there.")
    else:
      print(report.commands(facts), end="")
    return program.INCOMPLETE if skipped else None

  def _example(self):
    """A clip of the test part that is a file of its own, or ""."""
    held = self._parts.get("test") or self._parts.get("validate") or []
    if held and held[0] in self._media:
      return self._media[held[0]]
    path = self._source.path(held[0]) if held else ""
    if path.endswith(".npz"):
      return os.path.join(self._config.features, path)
    return ""


def write_skipped(path, skipped):
  """Lists what could not be used; nothing if all could."""
  if not skipped:
    return
  with files.ReplacedFile(path) as stream:
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["file", "why"])
    rows.writerows(skipped)


def run(config):
  """Makes the set that a configuration describes; returns the exit status.

  Raises:
    ValueError: inputs that can't be understood, or an output_dir of others.
    program.UserError: no clip that can be used.
  """
  return _Maker(config).run()
