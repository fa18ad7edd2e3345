"""The files under a path: a single file, a folder or a zip archive, on disk or in object storage."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pyarrow import fs

from ciess.errors import DataError

LIGHTGCN_FILES = ("train.txt", "valid.txt", "test.txt")


@dataclass(frozen=True)
class InputFiles:
    """What a path holds, before anything is parsed.

    Attributes:
        path: as the user gave it.
        names: files in the folder or archive, sorted; for a single file, that file and, for one of a LightGCN set, the
            others of the set.
        chosen: the file that the path names; None for a folder or archive.
    """

    path: str
    names: tuple[str, ...]
    chosen: str | None
    load: Callable[[str], bytes]

    def content(self, name: str) -> bytes:
        """Bytes of the file `name`.

        Raises:
            DataError: the file is empty or cannot be read.
        """
        try:
            content = self.load(name)
        except (OSError, zipfile.BadZipFile, RuntimeError) as error:
            raise DataError(
                f"{self.path}: {name} cannot be read ({error}). Expected a readable file with interactions. "
                "Check its permissions, and that it was copied completely."
            ) from error
        if not content.strip():
            raise DataError(
                f"{self.path}: {name} is empty. Expected one interaction or more. "
                "Check that it was downloaded or written completely."
            )
        return content


def find_files(path: str | os.PathLike[str]) -> InputFiles:
    """Look at a local path or a URI that pyarrow knows (`s3://...`, `gs://...`).

    Raises:
        DataError: nothing is there, or the place cannot be reached.
    """
    given = os.fspath(path)
    try:
        if "://" in given:
            system, inner = fs.FileSystem.from_uri(given)
        else:
            system, inner = fs.LocalFileSystem(), Path(given).expanduser().absolute().as_posix()
        found = system.get_file_info(inner)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{given} cannot be reached ({error}). Expected a file or folder on disk, or a URI such as "
            "s3://bucket/ratings.parquet. Check the path and the access rights."
        ) from error
    if found.type == fs.FileType.NotFound:
        raise DataError(
            f"{given} does not exist. Expected a file or folder with interactions, such as ml-1m/ratings.dat. "
            "Check the path; relative paths start at the current directory."
        )
    if found.type == fs.FileType.File and inner.lower().endswith(".zip"):
        return _archive(given, _load(system, inner))
    if found.type == fs.FileType.Directory:
        folder, chosen = inner, None
        entries = system.get_file_info(fs.FileSelector(folder))
    else:
        folder, chosen = str(PurePosixPath(inner).parent), PurePosixPath(inner).name
        wanted = {chosen, *(LIGHTGCN_FILES if chosen in LIGHTGCN_FILES else ())}
        entries = system.get_file_info([f"{folder}/{name}" for name in sorted(wanted)])
    names = tuple(sorted(entry.base_name for entry in entries if entry.type == fs.FileType.File))
    return InputFiles(given, names, chosen, lambda name: _load(system, f"{folder}/{name}"))


def _load(system: fs.FileSystem, path: str) -> bytes:
    with system.open_input_file(path) as stream:
        content: bytes = stream.read()
    return content


def _archive(given: str, content: bytes) -> InputFiles:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{given} is no zip archive that can be opened ({error}). Expected a complete archive. Download it again."
        ) from error
    # Archives made on a Mac carry shadow copies of every file.
    members = [m.filename for m in archive.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
    return InputFiles(given, tuple(sorted(members)), None, archive.read)
