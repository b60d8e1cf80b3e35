"""The names of the seven output folders, and of one run's files in them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gpt2_interp.errors import InputError
from gpt2_interp.files import why_unwritable

CHECKPOINTS = "checkpoints"
MODEL_OUTPUTS = "model_outputs"
LOGS = "logs"
METRICS = "interpretability_metrics"
ATTENTION = "attention_analysis"
LATENT = "latent_space_evolution"
VISUALIZATIONS = "visualizations"
OUTPUT_FOLDERS = (ATTENTION, LATENT, METRICS, VISUALIZATIONS, LOGS, MODEL_OUTPUTS, CHECKPOINTS)

LONGEST_NAME = 200  # characters; a file system takes 255, and a name may get an ending


def check_run_name(name: str) -> str:
    """Return `name` if it can be a folder's name. Raises InputError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*", name) or ".." in name:
        raise InputError(
            f"--run_name {name!r} can't name a folder: use letters, digits, '_', '-' and single dots, "
            f"no slash and no '..'."
        )
    if len(name) > LONGEST_NAME:
        raise InputError(f"--run_name of {len(name)} characters is too long: give at most {LONGEST_NAME}.")
    return name


@dataclass(frozen=True)
class RunPaths:
    """The places of one run's files: `<root>/<folder>/<run_name>/`."""

    run_name: str
    root: Path = Path(".")

    def __post_init__(self) -> None:
        check_run_name(self.run_name)
        object.__setattr__(self, "root", Path(self.root))

    @property
    def checkpoints(self) -> Path:
        return self.root / CHECKPOINTS / self.run_name

    @property
    def model_outputs(self) -> Path:
        return self.root / MODEL_OUTPUTS / self.run_name

    @property
    def logs(self) -> Path:
        return self.root / LOGS / self.run_name

    @property
    def metrics(self) -> Path:
        return self.root / METRICS / self.run_name

    @property
    def attention(self) -> Path:
        return self.root / ATTENTION / self.run_name

    @property
    def latent(self) -> Path:
        return self.root / LATENT / self.run_name

    @property
    def visualizations(self) -> Path:
        return self.root / VISUALIZATIONS / self.run_name

    @property
    def overview_report(self) -> Path:
        """The page that compares all runs."""
        return self.root / VISUALIZATIONS / "interpretability_report.html"

    def all(self) -> list[Path]:
        """Return every folder that belongs to this run."""
        return [self.root / folder / self.run_name for folder in OUTPUT_FOLDERS]


def check_can_write(root: Path | str, folders: Iterable[Path]) -> None:
    """Refuse `--root` where one of the folders under it can't be made or written. Raises InputError."""
    for folder in folders:
        if reason := why_unwritable(folder):
            raise InputError(f"--root {root}: {reason}; give a folder that you may write to.")


def measured_runs(root: Path = Path(".")) -> list[str]:
    """Names of the runs that have measurements, sorted."""
    folder = Path(root) / METRICS
    return sorted(path.parent.name for path in folder.glob("*/run.json")) if folder.is_dir() else []


REPOSITORY = Path(__file__).resolve().parents[1]


CONFIGS = Path(__file__).resolve().parent.parent / "configs"


def here_or_in_repository(name: str) -> str:
    """Return where a model's folder is: as given, else in the repository. A name that is neither comes back as it is.

    Presets name `assets/tiny_gpt2`, wherever they are started from.
    """
    in_repository = REPOSITORY / name
    return str(in_repository) if not Path(name).exists() and in_repository.exists() else name
