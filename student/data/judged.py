"""Of which categories an image teaches that everything else is none of them.

COCO's images are labelled exhaustively for COCO's categories. LVIS and Open Images are federated:
in each image only some categories were looked for, those that are there and those verified as
absent (Gupta et al., "LVIS", CVPR 2019, section 3.1). And no dataset says anything about the
categories of another one in the mix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from manifests.commit import Category

Bools = NDArray[np.bool_]
Origin = tuple[str, ...]
"""The names of the sources that an image came from."""


def known_categories(
    own: Sequence[Category], origins: Iterable[Origin], *, categories: Sequence[str]
) -> Bools:
    """[O, C] whether any of an image's sources labels a category of the mix.

    Args:
        own: of the images' commit. One without `source_ids` belongs to every source, and a source
            that no category names labels all of them.
        origins: O different ones.
        categories: the C names of the mix; others are left out.
    """
    place_of = {name: place for place, name in enumerate(categories)}
    named = {source for category in own for source in category.source_ids}
    origins = list(origins)
    known = np.zeros((len(origins), len(categories)), dtype=bool)
    for category in own:
        if category.name not in place_of:
            continue
        for row, sources in enumerate(origins):
            known[row, place_of[category.name]] = not category.source_ids or any(
                source in category.source_ids or source not in named for source in sources
            )
    return known


def federated_origins(
    origins: Sequence[Origin], has_lists: Bools, origin_of: NDArray[np.int32]
) -> Bools:
    """[O] whether images of an origin are federated.

    Open Images' images may have no list of their own, and are federated all the same. So a source
    is, if an image that came from it alone has one; an image of several sources (LVIS labels COCO's
    images again) is, if one of them is.

    Args:
        origins: the O different ones.
        has_lists: [N] whether an image came with such lists.
        origin_of: [N] the origin of each.
    """
    with_lists = {origins[number] for number in np.unique(origin_of[has_lists]).tolist()}
    sources = {origin[0] for origin in with_lists if len(origin) == 1}
    return np.array([bool(sources.intersection(origin)) for origin in origins], dtype=bool)


def judged_categories(
    known: Bools,
    *,
    is_federated: bool,
    present: NDArray[np.int32],
    negative: NDArray[np.int32],
    not_judged: NDArray[np.int32],
) -> Bools:
    """[C] whether what is no target of a category teaches, in one image, that it is none.

    Args:
        known: [C] categories that the image's sources label.
        is_federated: only `present` and `negative` were looked for.
        present: categories of its targets.
        negative: verified as absent.
        not_judged: something of them is there that is no target.
    """
    judged = known & (not is_federated)
    if is_federated:
        judged[present] = True
        judged[negative] = True
    judged[not_judged] = False
    return judged
