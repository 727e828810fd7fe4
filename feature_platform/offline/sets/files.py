"""Where the files of kept training sets lie: `<root>/<name>/<version>/` with labels, data and manifest.

Rule: a set exists once the ledger says so; its files are complete and on disk before that. On a disk the directory gets
its name in one step; what a killed process left, unnamed or named without a record, the next maker of a set of that
name removes. On an object store (`s3://…`, `gs://…`) the files are made locally and uploaded, the manifest last.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from feature_platform import lake
from feature_platform.errors import DamagedFileError
from feature_platform.settings import Settings

DATA = "data.parquet"
LABELS = "labels.parquet"
MANIFEST = "manifest.json"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFiles:
    """The files of all kept sets."""

    root: str
    scratch: Path

    @classmethod
    def of(cls, settings: Settings) -> SetFiles:
        """Where these settings keep them."""
        return cls(root=settings.training_sets_root, scratch=settings.scratch)

    @property
    def is_remote(self) -> bool:
        """Whether they lie on an object store."""
        return "://" in self.root

    def directory(self, name: str, version: int) -> str:
        """The directory of one set."""
        return f"{self.root.rstrip('/')}/{name}/{version}"

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """A local directory to make a set in. Whatever is left in it at the end is removed.

        The caller holds the ledger's lock of the name, so what others began under it is of the dead.
        """
        if self.is_remote:
            yield lake.scratch_directory(self.scratch)  # removed with the process
            return
        parent = Path(self.root) / name
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(".making-*"):
            shutil.rmtree(left, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".making-", dir=parent))
        try:
            yield unfinished
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def place(self, made: Path, name: str, version: int) -> None:
        """Give the finished files their place. No record names this version: what lies there is of the dead."""
        if self.is_remote:
            filesystem, uploaded = fs.FileSystem.from_uri(self.directory(name, version))
            for file in (LABELS, DATA, MANIFEST):
                fs.copy_files(str(made / file), f"{uploaded}/{file}", destination_filesystem=filesystem)
            return
        for finished in made.iterdir():
            _to_disk(finished)
        made.chmod(0o755)  # a temporary directory is its maker's alone
        target = Path(self.directory(name, version))
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
        _to_disk(target.parent)

    @contextmanager
    def local(self, name: str, version: int, file: str, sha256: str) -> Iterator[Path]:
        """A local path of one file, after making sure that it is what was recorded.

        Raises:
            DamagedFileError: it is missing, or holds something else.
        """
        place = f"{self.directory(name, version)}/{file}"
        if self.is_remote:
            filesystem, source = fs.FileSystem.from_uri(place)
            target = lake.scratch_directory(self.scratch) / file
            try:
                fs.copy_files(source, str(target), source_filesystem=filesystem)
                check_file(target, sha256, place=place)
                yield target
            except FileNotFoundError as error:
                raise _missing(place) from error
            finally:
                target.unlink(missing_ok=True)
            return
        check_file(Path(place), sha256, place=place)
        yield Path(place)


def check_file(path: Path, sha256: str, *, place: str) -> None:
    """Make sure that a file is what was recorded.

    Raises:
        DamagedFileError: it is missing, or holds something else.
    """
    try:
        found = hash_file(path)
    except FileNotFoundError as error:
        raise _missing(place) from error
    if found != sha256:
        raise DamagedFileError(
            f"{place} is not the file that was kept",
            found=f"sha256 {found}",
            allowed=f"sha256 {sha256}, as the ledger recorded",
            hint="`feature-platform training-set reproduce` makes the data again from labels and lake",
        )


def _missing(place: str) -> DamagedFileError:
    return DamagedFileError(
        f"a file of the training set is missing: {place}",
        hint="is FEATURE_PLATFORM_TRAINING_SETS the place where it was made? Restore it from a backup if it is",
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
