"""A job file: the whole chain as data, `maskmill run job.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.driver import DriverConfig
from engine.ingest_config import ImagePolicy
from engine.pool import PoolConfig
from engine.settings import from_mapping, with_overrides
from engine.sources.protocol import SourceConfig
from manifests.dataset import DEFAULT_BRANCH
from manifests.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSettings:
    """`[ingest]`: see IngestConfig."""

    shard_images: int = 1000
    shard_bytes: int = 256 * 2**20
    policy: ImagePolicy = ImagePolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSettings:
    """`[[label]]`: see LabelConfig. `fallback` is used, loudly, where weights are not to be had."""

    teacher: str
    config: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    image_batch: int = 1
    fallback: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """`[[export]]`: see manifests.export."""

    format: str
    target: str
    layer: str | None = None
    polygons: bool = False
    images: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """`[report]`: an HTML page with the photos, the masks, and the reasons."""

    target: str
    max_photos: int = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """A whole job.

    Attributes:
        store: made if it is not there.
        branch: where everything is committed.
        source: what to ingest, in order.
        ingest: how.
        label: teachers to run, in order.
        policy: name or path of the filter policy, or empty for no filter step.
        export: what to write out at the end.
        report: an HTML page at the end, or none.
        pool, driver: where the workers run, and how patient they are.
    """

    store: str
    branch: str = DEFAULT_BRANCH
    source: tuple[SourceConfig, ...] = ()
    ingest: IngestSettings = IngestSettings()
    label: tuple[LabelSettings, ...] = ()
    policy: str = ""
    export: tuple[ExportSettings, ...] = ()
    report: ReportSettings | None = None
    pool: PoolConfig = PoolConfig()
    driver: DriverConfig = DriverConfig()

    def __post_init__(self) -> None:
        if not self.store:
            raise InputError('job: expected store = "folder or URL"')

    @staticmethod
    def load(path: str, *, overrides: Sequence[str] = ()) -> JobConfig:
        """A job from a TOML file; local paths in it are relative to the file's own folder.

        Raises:
            InputError: there is no such file, it is not TOML, or not a job.
        """
        file = Path(path)
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"job file {path}: {error.strerror}; give a TOML file") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"job file {path} is not TOML: {error}") from error
        job = from_mapping(JobConfig, with_overrides(values, list(overrides)), where=path)
        return job.below(file.parent)

    def below(self, folder: Path) -> JobConfig:
        """The same job with its relative paths made relative to a folder."""

        def place(path: str) -> str:
            return path if "://" in path or not path else str(folder / path)

        is_file = self.policy.endswith(".toml")
        return replace(
            self,
            store=place(self.store),
            policy=place(self.policy) if is_file else self.policy,
            source=tuple(
                replace(source, annotations=place(source.annotations), images=place(source.images))
                for source in self.source
            ),
            export=tuple(replace(item, target=place(item.target)) for item in self.export),
            report=self.report and replace(self.report, target=place(self.report.target)),
        )
