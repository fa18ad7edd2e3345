"""Files of a run, on a disk or in an object store."""

from ciess.storage.storage import Storage, read_parquet

__all__ = ["Storage", "read_parquet"]
