"""What an image teaches to be absent."""

from __future__ import annotations

import numpy as np

from manifests.commit import Category
from student.data.judged import federated_origins, judged_categories, known_categories

NAMES = ("bag", "hat", "shoe", "sock")


def _category(name: str, *sources: str) -> Category:
    return Category(name=name, source_ids=dict.fromkeys(sources, "1"))


def test_a_source_judges_its_own_categories() -> None:
    own = [_category("bag", "a"), _category("hat", "a", "b"), _category("shoe")]
    known = known_categories(own, [("a",), ("b",), ("a", "b"), ("c",)], categories=NAMES)
    shown = [{NAMES[number] for number in np.flatnonzero(row)} for row in known]
    assert shown == [
        {"bag", "hat", "shoe"},
        {"hat", "shoe"},
        {"bag", "hat", "shoe"},
        {"bag", "hat", "shoe"},  # no category names source c
    ]


def test_one_image_with_lists_makes_its_source_federated() -> None:
    origins = [("coco",), ("lvis",), ("coco", "lvis"), ("voc",)]
    has_lists = np.array([False, True, True, False, False])
    origin_of = np.array([0, 1, 2, 1, 3], np.int32)
    federated = federated_origins(origins, has_lists, origin_of)
    # COCO's own images are not, though some of them came with LVIS's lists.
    assert federated.tolist() == [False, True, True, False]


def test_lists_of_shared_images_alone_make_no_source_federated() -> None:
    origins = [("coco",), ("coco", "lvis")]
    federated = federated_origins(origins, np.array([False, True]), np.array([0, 1], np.int32))
    assert federated.tolist() == [False, False]


def test_which_categories_an_image_judges() -> None:
    def judged(*, is_federated: bool) -> list[int]:
        found = judged_categories(
            np.array([True, True, True, False]),
            is_federated=is_federated,
            present=np.array([0, 2], np.int32),
            negative=np.array([1], np.int32),
            not_judged=np.array([2], np.int32),
        )
        return np.flatnonzero(found).tolist()

    assert judged(is_federated=False) == [0, 1]
    assert judged(is_federated=True) == [0, 1]
    known = np.array([True] * 4)
    nothing = np.zeros(0, np.int32)
    for is_federated, expected in [(False, 4), (True, 0)]:
        found = judged_categories(
            known, is_federated=is_federated, present=nothing, negative=nothing, not_judged=nothing
        )
        assert found.sum() == expected
    assert known.all()  # not written to
