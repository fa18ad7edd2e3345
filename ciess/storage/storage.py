"""Run directories: all reading and writing of runs is here, so that a local path and s3://bucket/run are one thing.

A run directory holds, readable without ciess:

    config.yaml           resolved config, versions, git revision, kernels chosen
    data.json             counts, split seed, sha256 of the input, where it was read from
    reference/            of a search, the full-size model: quality.parquet (a row an entity), weights, history, metrics
    history.parquet       of a search: a row an iteration and lane (columns.py: HISTORY)
    candidates.parquet    of a search: a row a mask visited, with its sizes (columns.py: CANDIDATES)
    checkpoint/000123/    of a search: its whole state after 123 fits; the last two are kept (storage/checkpoint.py)
    retrained.parquet     of a search: the masks that stood for choice at each budget (columns.py: RETRAINED)
    results.parquet       a row a table, split, metric and cutoff
    per_user.parquet      test quality of each user for each table
    tables/<name>/        a compressed table (tables/table.py), with the history of its training
    learned/<name>/       masks that a learned method found, and how (methods/learned_masks.py)
    progress/<name>/      checkpoints of an unfinished training in the same form, gone when it is done
    report.html, figures/ the same results to look at

Writing is atomic: a reader sees the old file or the new one.
"""

import contextlib
import io
import json
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import yaml

from ciess.errors import RunDirectoryError
from ciess.storage.columns import completed_columns


def read_parquet(content: bytes) -> pa.Table:
    """Table of a Parquet file's bytes.

    Read by one thread: a process with torch that ends while Arrow's threads are still starting is aborted.
    """
    return pq.ParquetFile(io.BytesIO(content)).read(use_threads=False)


class Storage:
    """A folder on any pyarrow file system."""

    def __init__(self, location: str | Path, filesystem: pafs.FileSystem | None = None) -> None:
        """location: a path or a URI such as s3://bucket/folder; with `filesystem`, a path inside it."""
        if filesystem is not None:
            self.filesystem, self.root = filesystem, str(location)
        elif "://" in str(location):
            try:
                self.filesystem, self.root = pafs.FileSystem.from_uri(str(location))
            except (OSError, ValueError) as error:
                raise RunDirectoryError(
                    f"{location} cannot be reached: {error}. A path, or a URI such as s3://bucket/run, was expected. "
                    "Check it and the access rights."
                ) from error
        else:
            self.filesystem, self.root = pafs.LocalFileSystem(), str(Path(location).expanduser().resolve())
        self.location = str(location)

    def child(self, *parts: str) -> "Storage":
        """The folder below this one."""
        return Storage("/".join([self.root.rstrip("/"), *parts]), self.filesystem)

    def path(self, name: str) -> str:
        """Path of a file inside the file system."""
        return f"{self.root.rstrip('/')}/{name}"

    def exists(self, name: str = "") -> bool:
        """Whether a file or folder of that name is here; without a name, whether this folder is."""
        path = self.path(name) if name else self.root
        return bool(self.filesystem.get_file_info(path).type != pafs.FileType.NotFound)

    def names(self) -> list[str]:
        """Files and folders directly below, sorted.

        Raises:
            RunDirectoryError: this is no folder.
        """
        selector = pafs.FileSelector(self.root, allow_not_found=True)
        try:
            return sorted(info.base_name for info in self.filesystem.get_file_info(selector))
        except OSError as error:
            raise RunDirectoryError(
                f"Cannot list {self.root}: {error}. A folder that can be read was expected. Check the path."
            ) from error

    def delete(self, name: str = "") -> None:
        """Delete a file or a whole folder; it is no error if there is none."""
        path = self.path(name) if name else self.root
        kind = self.filesystem.get_file_info(path).type
        if kind == pafs.FileType.Directory:
            self.filesystem.delete_dir(path)
        elif kind == pafs.FileType.File:
            self.filesystem.delete_file(path)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file so that nobody ever sees half of it.

        Raises:
            RunDirectoryError: this cannot be done.
        """
        path = self.path(name)
        part = f"{path}.{uuid.uuid4().hex}.part"
        try:
            self.filesystem.create_dir(path.rsplit("/", 1)[0], recursive=True)
            with self.filesystem.open_output_stream(part) as stream:
                stream.write(content)
            self.filesystem.move(part, path)
        except OSError as error:
            # On a full disk half a file would stand in the way of everything else.
            with contextlib.suppress(OSError):
                self.filesystem.delete_file(part)
            raise RunDirectoryError(
                f"Cannot write {path}: {error}. The output needs a folder that can be written, with free space. "
                "Make room or choose another folder."
            ) from error

    def read_bytes(self, name: str) -> bytes:
        """Content of a file.

        Raises:
            RunDirectoryError: there is none.
        """
        try:
            with self.filesystem.open_input_stream(self.path(name), compression=None) as stream:
                return bytes(stream.read())
        except OSError as error:
            raise RunDirectoryError(
                f"Cannot read {self.path(name)}: {error}. Check the path: a run or a table of ciess is expected."
            ) from error

    def write_json(self, name: str, content: Any) -> None:
        """Write JSON, indented."""
        self.write_bytes(name, (json.dumps(content, indent=2) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Content of a JSON file."""
        return json.loads(self.read_bytes(name))

    def write_yaml(self, name: str, content: Any) -> None:
        """Write YAML, keys in the order given."""
        self.write_bytes(name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode())

    def read_yaml(self, name: str) -> Any:
        """Content of a YAML file."""
        return yaml.safe_load(self.read_bytes(name))

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        self.write_bytes(name, buffer.getvalue())

    def read_table(self, name: str) -> pa.Table:
        """Content of a Parquet file."""
        return read_parquet(self.read_bytes(name))


def read_columns(
    storage: Storage, name: str, schema: pa.Schema, advice: str = "Restore the file, or run again with --overwrite."
) -> pa.Table:
    """A Parquet file of a run directory, checked.

    Args:
        storage: the folder.
        name: of the file.
        schema: columns that it must have, by type; it may have others.
        advice: what to do about a file that cannot be used.

    Returns:
        rows by the columns of the schema; those of results.parquet with their roles, whichever version wrote them.

    Raises:
        RunDirectoryError: it is missing, cannot be read, or lacks one of the columns.
    """
    if not storage.exists(name):
        raise RunDirectoryError(
            f"{storage.location} holds no {name}; a run directory with a finished table was expected. "
            "Check the path, or write one with `ciess fit DATA --out DIR`."
        )
    try:
        table = completed_columns(storage.read_table(name))
        missing = [column for column in schema.names if column not in table.column_names]
        if not missing:
            return table.select(schema.names).cast(schema)
    except (ValueError, OSError) as error:
        raise RunDirectoryError(
            f"{storage.path(name)} is not a Parquet file that can be read ({error}); one with the columns "
            f"{', '.join(schema.names)} was expected. {advice}"
        ) from error
    raise RunDirectoryError(
        f"{storage.path(name)} lacks the columns {', '.join(missing)}; the columns {', '.join(schema.names)} were "
        f"expected, so the file is of another program or version. {advice}"
    )
