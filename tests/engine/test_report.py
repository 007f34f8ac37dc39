"""The report says what there is, whatever there is, and nothing on it comes from outside."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.demo_boxes import ASTRONAUT, CAT, COFFEE
from engine.report import ReportOptions, ReportSummary, write_report
from manifests.dataset import Dataset
from manifests.errors import InputError
from tests.engine.report_chain import Chain

EVIL = "<script>alert('x')</script>&\"'"


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """An empty store and the demo photos."""
    return Chain(tmp_path)


def page_of(dataset: Dataset, folder: Path, **options: Any) -> tuple[str, ReportSummary]:
    """The page as text, without its pictures' bytes."""
    target = folder / "out" / "report.html"
    summary = write_report(dataset, target, options=ReportOptions(**options))
    text = target.read_text(encoding="utf-8")
    assert summary.num_bytes == len(text.encode())
    return text, summary


def pictures(page: str) -> list[Image.Image]:
    """The page's pictures, decoded."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_full_chain(chain: Chain, tmp_path: Path) -> None:
    chain.ingest(quarantined=(CAT,))
    chain.label()
    dataset = chain.filter({1: "low_box_iou"})
    page, summary = page_of(dataset, tmp_path, ref="main")
    for text in ("astronaut.png", "coffee.png", "low_box_iou", "strict", "min_box_iou", "0.625",
                 "sam", "sha256 abababababab", "1024", "test_drop", "test_failure", "undecodable",
                 "broken.jpg", "the file ends early", "a label step", "empty store",
                 dataset.commit_id[:12], "main", chain.store.url, "blurry", "cat.png",
                 "predicted IoU <b>0.91</b>", "stability <b>0.97</b>", "box IoU <b>0.83</b>",
                 "2 of 3 shown"):  # fmt: skip
        assert text in page, text
    assert (summary.num_photos, summary.num_photos_total) == (2, 3)
    sizes = [picture.size for picture in pictures(page)]
    assert sizes[:2] == [(900, 900), (900, 600)]
    assert max(sizes[2]) == 240


def test_same_page_each_time(chain: Chain, tmp_path: Path) -> None:
    chain.ingest()
    dataset = chain.label()
    assert page_of(dataset, tmp_path / "a")[0] == page_of(dataset, tmp_path / "b")[0]


def test_fetches_nothing(chain: Chain, tmp_path: Path) -> None:
    chain.ingest()
    page, _ = page_of(chain.label(), tmp_path)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "url(" not in page
    assert "<script" not in page


def test_escapes_everything_from_data(chain: Chain, tmp_path: Path) -> None:
    chain.ingest((CAT,), category=EVIL, file_name=EVIL, source=EVIL, message=EVIL)
    chain.label(message=EVIL)
    page, _ = page_of(chain.filter({0: EVIL}), tmp_path, ref=EVIL)
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert") > 8
    assert not re.search(r'(?:alt|title)="[^"<>]*<', page)


def test_empty_store(chain: Chain, tmp_path: Path) -> None:
    page, summary = page_of(Dataset.open(chain.store), tmp_path)
    assert "this commit has no photos" in page
    assert (summary.num_photos, summary.num_photos_total) == (0, 0)


def test_boxes_only(chain: Chain, tmp_path: Path) -> None:
    page, _ = page_of(chain.ingest(), tmp_path)
    assert len(pictures(page)) == 2
    assert "kept share" not in page
    assert "kept mask" not in page


def test_masks_without_verdicts(chain: Chain, tmp_path: Path) -> None:
    chain.ingest()
    page, _ = page_of(chain.label(absent=(0,)), tmp_path)
    assert "mask, not judged yet" in page
    assert "unjudged" in page
    assert "crowd" in page


def test_no_images_stored(chain: Chain, tmp_path: Path) -> None:
    chain.ingest(with_images=False)
    chain.label()
    page, summary = page_of(chain.filter({}), tmp_path)
    assert summary.num_photos == 0
    assert "spoon" in page


def test_several_teachers_and_the_second_candidate(chain: Chain, tmp_path: Path) -> None:
    chain.ingest()
    chain.label("zebra")
    chain.label("sam")
    page, _ = page_of(chain.filter({}, teacher="zebra", candidate=1), tmp_path)
    assert "Teacher <code>zebra</code>" in page
    assert "Teacher <code>sam</code>" in page
    assert "predicted IoU <b>0.11</b>" in page
    assert "stability <b>–</b>" in page  # noqa: RUF001
    assert '<span class="by">sam</span>' not in page


def test_a_verdict_may_name_the_layer_itself(chain: Chain, tmp_path: Path) -> None:
    chain.ingest()
    chain.label("sam")
    page, _ = page_of(chain.filter({}, teacher="masks/sam"), tmp_path)
    assert '<span class="by">sam</span>' in page


def test_a_dropped_mask_looks_unlike_a_kept_one(chain: Chain, tmp_path: Path) -> None:
    chain.ingest((COFFEE,))
    chain.label()
    kept, dropped = (
        np.asarray(pictures(page_of(chain.filter(verdicts), tmp_path)[0])[0], dtype=int)
        for verdicts in ({}, dict.fromkeys(range(4), "low_box_iou"))
    )
    assert (dropped[..., 0] - dropped[..., 1]).mean() > (kept[..., 0] - kept[..., 1]).mean() + 20


def test_limit_of_photos_takes_turns_between_kept_and_dropped(chain: Chain, tmp_path: Path) -> None:
    chain.ingest((ASTRONAUT, COFFEE, CAT))
    chain.label()
    every_box_of_coffee = dict.fromkeys(range(7, 11), "low_box_iou")
    dataset = chain.filter(every_box_of_coffee)
    page, summary = page_of(dataset, tmp_path, max_photos=2)
    assert summary.num_photos == 2
    assert "coffee.png" in page
    assert "2 of 3 shown, a fixed choice" in page


def test_page_stays_under_its_limit(chain: Chain, tmp_path: Path) -> None:
    chain.ingest()
    dataset = chain.label()
    whole, _ = page_of(dataset, tmp_path)
    page, summary = page_of(dataset, tmp_path, max_page_bytes=len(whole) - 1)
    assert summary.num_photos == 2
    assert max(pictures(page)[0].size) == 720
    page, summary = page_of(dataset, tmp_path, max_page_bytes=60_000)
    assert summary.num_bytes <= 60_000
    assert summary.num_photos < 2
    assert "the rest would make the page larger than" in page


def test_no_photos_wanted(chain: Chain, tmp_path: Path) -> None:
    page, summary = page_of(chain.ingest(), tmp_path, max_photos=0)
    assert summary.num_photos == 0
    assert not pictures(page)


def test_refuses_nonsense() -> None:
    with pytest.raises(InputError, match="expected max_photos of at least 0, got -1"):
        ReportOptions(max_photos=-1)


def test_says_where_it_cannot_write(chain: Chain, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written to"):
        page_of(Dataset.open(chain.store), tmp_path)
