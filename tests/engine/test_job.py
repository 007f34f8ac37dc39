"""Job files: the whole chain as data, with every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.job import ExportSettings, JobConfig, LabelSettings, ReportSettings
from engine.policy import Policy
from manifests.errors import InputError, SourceSyntaxError

JOB = """
store = "st"
policy = "strict.toml"

[[source]]
format = "open_images"
name = "oi"
annotations = "../boxes.csv"
images = "s3://bucket/photos"
options = {classes = "classes.csv", extension = "jpg"}

[[label]]
teacher = "sam_vit_t"

[[label]]
teacher = "sam_vit_h"
config = {precision = "bfloat16"}
fallback = false

[[export]]
format = "coco"
target = "/somewhere/else"
images = true

[report]
target = "page.html"

[pool]
workers = 3

[ingest.policy]
min_sharpness = 5
"""


def write(folder: Path, text: str = JOB) -> str:
    path = folder / "job.toml"
    path.write_text(text)
    return str(path)


def test_a_whole_job(tmp_path: Path) -> None:
    job = JobConfig.load(write(tmp_path))
    [source] = job.source
    assert job.store == str(tmp_path / "st")
    assert source.annotations == str(tmp_path.parent / "boxes.csv")
    assert source.images == "s3://bucket/photos"
    assert dict(source.options) == {"classes": str(tmp_path / "classes.csv"), "extension": "jpg"}
    assert job.label == (
        LabelSettings(teacher="sam_vit_t"),
        LabelSettings(teacher="sam_vit_h", config={"precision": "bfloat16"}, fallback=False),
    )
    assert job.export == (ExportSettings(format="coco", target="/somewhere/else", images=True),)
    assert job.report == ReportSettings(target=str(tmp_path / "page.html"))
    assert job.policy == str(tmp_path / "strict.toml")
    assert (job.pool.workers, job.ingest.policy.min_sharpness, job.branch) == (3, 5.0, "main")


def test_words_over_it_are_relative_to_where_one_stands(tmp_path: Path) -> None:
    words = [
        "store=here", "pool.workers=2", "label.1.teacher=box", "report.target=memory://x",
        "policy=default", "driver.max_attempts=1",
    ]  # fmt: skip
    job = JobConfig.load(write(tmp_path), overrides=words)
    assert (job.store, job.policy, job.pool.workers) == ("here", "default", 2)
    assert [item.teacher for item in job.label] == ["sam_vit_t", "box"]
    assert job.report == ReportSettings(target="memory://x")
    assert job.driver.max_attempts == 1


def test_home_folders_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert JobConfig.load(write(tmp_path, 'store = "~/st"')).store == str(tmp_path / "st")


def test_the_policy_may_be_a_table(tmp_path: Path) -> None:
    text = 'store = "st"\n[policy]\nteachers = ["box"]\n[policy.rules]\nmin_area_px = 9\n'
    job = JobConfig.load(write(tmp_path, text), overrides=["policy.rules.max_components=2"])
    assert job.policy == Policy(teachers=("box",), rules={"min_area_px": 9, "max_components": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('stor = "x"', "unknown key 'stor'; did you mean 'store'"),
        ("", "missing required field 'store'"),
        ('store = ""', 'expected store = "folder or URL"'),
        ('store = "x"\n[[label]]\nteachr = "box"', r"'teachr' in label\.0; did you mean 'teacher'"),
        ('store = "x"\n[label]\nteacher = "box"', "label: expected 'array', got 'object'"),
        ('store = "x"\n[[source]]\nformat = "coco"', r"source\[0\]: object missing"),
        ('store = "x"\n[pool]\nworkers = "2"', "pool.workers: expected 'int', got 'str'"),
        ('store = "x"\n[ingest.policy]\nsharp = 1', "'sharp' in ingest.policy"),
        ('store = "x"\n[ingest.policy]\nexif_frame = "up"', "expected one of auto, upright, raw"),
        ('store = "x"\n[report]\nmax_photos = 3', "report: object missing required field 'target'"),
        ('store = "x"\n[policy]\ntechers = []', "'techers' in policy; did you mean 'teachers'"),
        ('store = "x"\n[policy.rules]\nmin_are = 1', "unknown rule 'min_are'"),
        ("store = 7", "store: expected 'str', got 'int'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        JobConfig.load(write(tmp_path, text))


def test_files_that_are_not_there_or_broken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"job file .*nope\.toml.*No such file"):
        JobConfig.load(str(tmp_path / "nope.toml"))
    with pytest.raises(SourceSyntaxError, match="line 2, column 9"):
        JobConfig.load(write(tmp_path, "\nstore = = 1"))
