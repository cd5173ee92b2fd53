"""Where everything lives on disk."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from inkbloom_train.errors import TrainError


def cache_root() -> Path:
    """The cache folder for packages, data sets and runs: ``$INKBLOOM_CACHE/train``."""
    base = os.environ.get("INKBLOOM_CACHE") or Path.home() / ".cache" / "inkbloom"
    return Path(base) / "train"


@dataclass(frozen=True)
class Workspace:
    """The folders of one training run."""

    root: Path
    name: str

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def dataset(self) -> Path:
        """The packed data set, shared by all runs of this cache."""
        return self.root / "dataset.tar.xz"

    @property
    def run(self) -> Path:
        return self.root / "runs" / self.name

    def stage(self, stage: str) -> Path:
        """A stage's own folder: checkpoint, log and outputs."""
        folder = self.run / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def pictures(self, size: int) -> Path:
        """The rasterised data set: uint8 [N, size, size, 4], premultiplied RGBA."""
        return self.run / f"pictures-{size}.npy"

    @property
    def export(self) -> Path:
        return self.root / "export" / self.name


def require_disk(folder: Path, needed: int) -> None:
    """Raises TrainError if ``folder`` has less than ``needed`` bytes left."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TrainError(f"{needed / 1e9:.1f} GB are needed in {folder} and {free / 1e9:.1f} GB are free: make room, or name another place with --cache")
