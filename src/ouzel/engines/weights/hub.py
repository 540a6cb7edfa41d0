"""Fetches one file from a model repository on the Hub, going on where an earlier pull stopped.

`huggingface_hub` supplies addresses, sign-in, metadata and errors, so HF_ENDPOINT, HF_TOKEN and
its other settings hold. The bytes are streamed here: its own `hf_hub_download` starts over in a
new process (since 1.2x it writes to a file with a random name), and a 12 GB download must not.
This file knows no catalogue and no final place.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ouzel.core.errors import WeightsError
from ouzel.engines.weights.disk import hash_stream
from ouzel.engines.weights.progress import Meter

if TYPE_CHECKING:
    import httpx

TIMEOUT = 30.0
"""Seconds for a connection, and between two pieces of an answer."""
ATTEMPTS = 5
"""Tries in a row that bring no byte before a pull gives up."""
PLAIN_LIMIT = 50_000_000_000
"""Bytes of the largest file that the Hub hands out over plain HTTP."""

UNCONFIRMED = (
    " This entry is marked `verified = false`: its file name could not be confirmed when it was "
    "written. Look the name up on the Hub and put a corrected entry into your own catalogue.toml."
)

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the Hub, as the Hub describes it now.

    Args:
        url: of this very version: its commit is in it.
        size: bytes.
        etag: changes when the content does.
        sha256: of the content, where the Hub says (it does for large files).
    """

    url: str
    size: int
    etag: str
    sha256: str | None


def describe(repo: str, revision: str, path: str, *, confirmed: bool) -> Remote:
    """Ask the Hub about a file.

    Args:
        confirmed: the catalogue is sure of the file's name; if not, an unknown file's error says
            that it never was.

    Raises:
        WeightsError: it is not there, is not for everyone, or the Hub cannot be reached.
    """
    import httpx
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    what = f"{path} of {repo} ({revision})"
    try:
        url = hf_hub_url(repo, path, revision=revision)
        found = get_hf_file_metadata(url, timeout=TIMEOUT)
        if found.commit_hash:
            url = hf_hub_url(repo, path, revision=found.commit_hash)
    except errors.GatedRepoError as error:
        raise WeightsError(
            f"{repo} is only for people who accepted its terms on the Hub: accept them there and "
            f"set HF_TOKEN to a token of that account."
        ) from error
    except (
        errors.RepositoryNotFoundError,
        errors.EntryNotFoundError,
        errors.RevisionNotFoundError,
    ) as error:
        doubt = "" if confirmed else UNCONFIRMED
        raise WeightsError(f"The Hub has no {what}: {_code(error)}.{doubt}") from error
    except errors.OfflineModeIsEnabled as error:
        raise WeightsError(f"HF_HUB_OFFLINE is set, so {what} cannot be fetched.") from error
    except httpx.HTTPError as error:  # answers with other codes, and no answer at all
        raise WeightsError(f"The Hub could not be asked for {what}: {_brief(error)}.") from error
    if found.size is None or not found.etag:
        raise WeightsError(f"The Hub does not say how large {what} is.")
    if found.size >= PLAIN_LIMIT:
        raise WeightsError(
            f"{what} has {found.size:,} bytes, more than the Hub sends in one piece."
        )
    sha256 = found.etag if _SHA256.fullmatch(found.etag) else None
    return Remote(url, found.size, found.etag, sha256)


def fetch(remote: Remote, work: Path, name: str, meter: Meter) -> tuple[Path, str]:
    """Fetch the file into `work`, after the bytes that an earlier pull left there.

    Args:
        name: what the file is called in `work`.

    Returns:
        The file, and its SHA-256.

    Raises:
        WeightsError: the Hub stops sending, or sends something else than it said.
        OSError: the disk is full or cannot be written.
    """
    part = _Part(remote, work / f"{name}.part")
    meter.begin("checking", part.done, f"{name}: what is already there")
    part.hash_again(meter)
    meter.begin("downloading", remote.size, name, done=part.done)
    failures = 0
    while part.done < remote.size:
        before = part.done
        try:
            _stream(remote, part, meter)
        except _Interrupted as error:
            failures = 0 if part.done > before else failures + 1
            if failures >= ATTEMPTS:
                raise WeightsError(
                    f"The Hub stopped sending {name} at {part.done:,} of {remote.size:,} bytes: "
                    f"{error}. What was fetched is kept: pull again."
                ) from error
            time.sleep(min(2.0**failures, 16.0) / 4)
    return part.path, part.digest.hexdigest()


def bytes_there(remote: Remote, work: Path, name: str) -> int:
    """How many bytes of this version an earlier pull left."""
    return _Part(remote, work / f"{name}.part").done


class _Interrupted(Exception):
    """The stream broke off."""


class _Part:
    """What there is of the file so far, and its digest.

    A file beside it says which version the bytes are from; those of another are dropped.
    """

    def __init__(self, remote: Remote, path: Path) -> None:
        self.path = path
        self.digest = hashlib.sha256()
        tag = path.with_suffix(".etag")
        version = json.dumps([remote.etag, remote.size])
        if not tag.exists() or tag.read_text(encoding="utf-8") != version:
            path.write_bytes(b"")  # before the tag: a kill between the two loses only bytes
            tag.write_text(version, encoding="utf-8")
        path.touch()
        self.done = path.stat().st_size
        if self.done > remote.size:
            self.start_over()

    def hash_again(self, meter: Meter) -> None:
        with self.path.open("rb") as file:
            hash_stream(file, (self.digest,), meter.at)

    def start_over(self) -> None:
        self.path.write_bytes(b"")
        self.done, self.digest = 0, hashlib.sha256()

    def add(self, file: BinaryIO, block: bytes) -> None:
        file.write(block)
        self.digest.update(block)
        self.done += len(block)


def _stream(remote: Remote, part: _Part, meter: Meter) -> None:
    """One answer of the Hub, from where the part ends, added to it."""
    import httpx
    from huggingface_hub import get_session

    # Documented there, but not marked as an export in the way that mypy asks for.
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if part.done:
        headers["Range"] = f"bytes={part.done}-"
    try:
        with get_session().stream("GET", remote.url, headers=headers, timeout=TIMEOUT) as answer:
            _check_answer(answer, part)
            with part.path.open("ab") as file:
                for block in answer.iter_bytes():
                    part.add(file, block[: remote.size - part.done])
                    meter.at(part.done)
                    if part.done == remote.size:
                        return  # whatever else it sends is not what it announced
    except httpx.HTTPError as error:
        raise _Interrupted(_brief(error)) from error
    raise _Interrupted("the answer ended early")


def _check_answer(answer: httpx.Response, part: _Part) -> None:
    """Make sure that the answer's bytes belong where the part ends; a whole file starts over."""
    code = answer.status_code
    if code in (408, 429) or code >= 500:
        raise _Interrupted(f"it answered {code}")
    if code not in (200, 206):
        raise WeightsError(f"The Hub answered {code} when it was asked for {part.path.stem}.")
    begins = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if code == 206 and (begins is None or int(begins[1]) != part.done):
        raise WeightsError(f"The Hub sent other bytes of {part.path.stem} than were asked for.")
    if code == 200 and part.done:
        part.start_over()


def _code(error: Exception) -> str:
    answer = getattr(error, "response", None)
    return str(answer.status_code) if answer is not None else "404"


def _brief(error: Exception) -> str:
    """The error's first line; addresses and headers in the rest are left out."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
