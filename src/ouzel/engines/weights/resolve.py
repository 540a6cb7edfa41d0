"""From what a user typed to a file that an engine can open.

A name or alias of the catalogue, or the path of any GGUF. Nothing is fetched here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ouzel.core.errors import WeightsError
from ouzel.engines.weights import disk
from ouzel.engines.weights.catalogue import Catalogue, Entry, UnknownModel
from ouzel.engines.weights.gguf import Header, check_complete
from ouzel.engines.weights.progress import Meter, OnProgress, Progress

_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """Weights that are on disk and whole.

    Args:
        name: what they are served as.
        aliases: other names that clients may send for them.
        path: the file to open; the first, where they are split.
        mmproj: the projector file, for weights that see.
        entry: None for a file that the catalogue does not know.
        header: what the file says of itself.
        size_bytes: all files together.
        warning: something the user should know, such as that the weights are retired.
    """

    name: str
    aliases: tuple[str, ...]
    path: Path
    mmproj: Path | None
    entry: Entry | None
    header: Header
    size_bytes: int
    warning: str | None = None


class NotPulled(WeightsError):
    """The catalogue knows the weights, and they are not (all) on disk: pull them.

    Args:
        entry: what to pull.
    """

    def __init__(self, entry: Entry) -> None:
        super().__init__(
            f"The weights of {entry.name!r} ({disk.readable(entry.size_bytes)}) are not on disk. "
            f"`ouzel pull {entry.name}` fetches them."
        )
        self.entry = entry


def resolve(
    model: str, catalogue: Catalogue, cache: Path, on_progress: OnProgress | None = None
) -> ResolvedModel:
    """Find the weights that `model` names.

    Args:
        model: a name or alias of the catalogue, or the path of a GGUF file. A name goes first;
            write `./name` for a file of that name.
        cache: the folder for downloads.
        on_progress: told how far it is when a file has to be hashed again (its size or time
            changed since it was verified; a second for each gigabyte).

    Raises:
        NotPulled: the catalogue knows it, and it is not on disk.
        UnknownModel: neither an entry nor a file.
        WeightsError: the file is no GGUF, was cut short, or is not what was verified once.
    """
    try:
        entry = catalogue.find(model)
    except UnknownModel:
        path = Path(model).expanduser()
        if not _is_path(model, path):
            raise
        return _resolve_path(path, catalogue)
    return _resolve_entry(entry, catalogue, cache, on_progress or _unheard)


def _resolve_entry(
    entry: Entry, catalogue: Catalogue, cache: Path, on_progress: OnProgress
) -> ResolvedModel:
    folder = disk.weights_folder(cache)
    if not all((folder / file.name).is_file() for file in entry.all_files):
        raise NotPulled(entry)
    meter = Meter(on_progress)
    for file in entry.all_files:
        path = folder / file.name
        meter.begin("checking", path.stat().st_size, file.name)
        try:
            disk.check_hash(path, file.sha256, meter.at)
        except WeightsError as error:
            raise WeightsError(f"{error} `ouzel pull {entry.name}` fetches it anew.") from error
    headers = [check_complete(folder / file.name) for file in entry.files]
    return ResolvedModel(
        name=entry.name,
        aliases=_served_aliases(entry, catalogue),
        path=folder / entry.files[0].name,
        mmproj=folder / entry.mmproj.name if entry.mmproj else None,
        entry=entry,
        header=headers[0],
        size_bytes=sum((folder / file.name).stat().st_size for file in entry.all_files),
        warning=_retired(entry),
    )


def _resolve_path(path: Path, catalogue: Catalogue) -> ResolvedModel:
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; name the .gguf file in it.")
    if not path.exists():
        raise WeightsError(f"There is no file {path}.")
    header = check_complete(path)
    files = _all_shards(path, header)
    found = _SHARD.fullmatch(path.name)
    return ResolvedModel(
        name=found[1] if found else path.stem,
        aliases=_served_aliases(None, catalogue),
        path=path.resolve(),
        mmproj=None,
        entry=None,
        header=header,
        size_bytes=sum(file.stat().st_size for file in files),
    )


def _all_shards(path: Path, header: Header) -> list[Path]:
    """All files of weights that are split, each made sure to be whole."""
    number, count = header.split
    found = _SHARD.fullmatch(path.name)
    if count <= 1:
        return [path]
    if found is None or int(found[3]) != count:
        raise WeightsError(
            f"{path} is one of {count} files that belong together, and must be named "
            f"`NAME-00001-of-{count:05}.gguf` for the others to be found."
        )
    if number != 0:
        raise WeightsError(
            f"{path} is file {number + 1} of {count}; name the first of them, "
            f"{found[1]}-00001-of-{count:05}.gguf."
        )
    files = [path.with_name(f"{found[1]}-{at:05}-of-{count:05}.gguf") for at in range(1, count + 1)]
    for file in files[1:]:
        check_complete(file)
    return files


def _is_path(model: str, path: Path) -> bool:
    return os.sep in model or model.endswith(".gguf") or path.exists()


def _served_aliases(entry: Entry | None, catalogue: Catalogue) -> tuple[str, ...]:
    """Names that mean these weights while they are served: their own, and those of any default."""
    own = entry.aliases if entry else ()
    return (*own, *(alias for alias in catalogue.default_aliases if alias not in own))


def _retired(entry: Entry) -> str | None:
    if entry.retired is None or entry.retired > date.today():
        return None
    instead = f"; use {entry.successor!r} instead" if entry.successor else ""
    return f"{entry.name!r} was retired on {entry.retired.isoformat()}{instead}."


def _unheard(progress: Progress) -> None:
    """Nobody listens."""
