"""The criterion and numbers that are none: found, named, counted, skipped."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from student.losses.predicted import predicted_tensors
from tests.student.losses.scored import everything, losses_of
from tests.student.losses.slow_criterion import flat_masked_targets, flat_output
from tests.student.losses.synthetic import CONFIG, gradient, make_batch, make_targets


def test_nan_is_named_counted_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    output = everything()
    batch = make_batch(make_targets(3), make_targets(2, seed=1))
    assert output.denoised is not None
    with torch.no_grad():
        output.layers[1].class_logits[0, 1, 2] = torch.nan
        output.layers[2].boxes_cxcywh[0, 0] = torch.inf
    with caplog.at_level(logging.WARNING):
        losses = losses_of(output, batch)
    losses.total.backward()
    assert losses.num_skipped == 1
    assert [record.getMessage()[:16] for record in caplog.records] == ["image image-0: i"]
    assert losses.total.isfinite()
    for tensor in predicted_tensors(output):
        assert gradient(tensor).isfinite().all()
        assert not gradient(tensor)[0].any()
        assert gradient(tensor)[1].any()


@pytest.mark.parametrize("place", ["no target", "denoised", "proposals", "other text", "unmatched"])
def test_nan_is_found_where_no_matching_cost_shows_it(place: str) -> None:
    output = everything()
    second = make_targets(2, labels=torch.tensor([0, 0]))
    config = replace(CONFIG, deep_supervision=place != "unmatched")
    assert output.denoised is not None
    assert output.proposals is not None
    with torch.no_grad():
        if place == "no target":
            second = make_targets(0)
            output.denoised.target_rows[1] = -1
            output.last.class_logits[1, 0, 0] = torch.nan
        elif place == "denoised":
            output.denoised.layers[2].boxes_cxcywh[1, 0] = torch.nan
        elif place == "proposals":
            output.proposals.class_logits[1, 0, 3] = torch.nan
        elif place == "other text":
            output.last.class_logits[1, 0, 3] = torch.nan
        else:
            output.layers[0].class_logits[1, 0, 3] = torch.nan
    losses = losses_of(output, make_batch(make_targets(3), second), config)
    losses.total.backward()
    assert losses.num_skipped == 1
    assert losses.total.isfinite()
    assert all(gradient(tensor).isfinite().all() for tensor in predicted_tensors(output))


def test_a_batch_of_nan_alone_teaches_nothing_and_does_not_crash() -> None:
    output = everything()
    with torch.no_grad():
        output.pixel_embeddings.fill_(torch.nan)
    losses = losses_of(output, make_batch(make_targets(3), make_targets(2, seed=1)))
    losses.total.backward()
    assert losses.num_skipped == 2
    assert losses.total == 0
    assert all(gradient(tensor).isfinite().all() for tensor in predicted_tensors(output))


def test_a_skipped_image_changes_nothing_for_the_others() -> None:
    batch = make_batch(flat_masked_targets(3, seed=0), flat_masked_targets(2, seed=1))
    whole, broken = flat_output(everything()), flat_output(everything())
    with torch.no_grad():
        broken.last.mask_embeddings[0] = torch.nan
    for output in (whole, broken):
        losses_of(output, batch).total.backward()
    for one, other in zip(predicted_tensors(whole), predicted_tensors(broken), strict=True):
        expected, found = gradient(one)[1], gradient(other)[1]
        if one is whole.pixel_embeddings:  # where the points lie differs, not what they say
            expected, found = expected.sum((1, 2)), found.sum((1, 2))
        torch.testing.assert_close(found, expected)
