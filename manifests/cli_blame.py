"""How `maskmill blame` tells where an annotation comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable

from manifests.blame import Blame, ConfidenceBlame, MaskBlame, Step, VerdictBlame
from manifests.cli_log import indented
from manifests.console import say


def print_blame(found: Blame) -> None:
    """A paragraph each for image, box, masks, confidence and verdict."""
    image, box = found.image, found.box
    say(f"annotation {found.annotation_id}   row {found.row} of shard {found.shard[:12]}")
    quarantine = f", quarantined: {image['quarantine']}" if image["quarantine"] else ""
    say(
        f"image {image['image_id'][:12]}   {image['file_name']}, {image['width']} x "
        f"{image['height']}, from {image['source']}:{image['source_image_id']}{quarantine}"
    )
    corners = ", ".join(f"{value:g}" for value in box["box_xyxy"])
    flags = [name for name in ("is_crowd", "is_group_of") if box[name]]
    say(
        f"box {box['category']}   [{corners}], from {box['source']}:"
        f"{box['source_annotation_id'] or '(no id)'}{''.join(f', {flag}' for flag in flags)}"
    )
    say(f"    brought in by {_step(found.brought)}")
    for mask in found.masks:
        _print_mask(mask)
    if found.confidence:
        _print_confidence(found.confidence)
    if found.verdict is None:
        say("\nno verdict yet: run 'maskmill filter'")
    else:
        _print_verdict(found.verdict)


def _print_mask(mask: MaskBlame) -> None:
    reason = f" ({mask.reason})" if mask.reason else ""
    say(f"\n{mask.layer}   {mask.status}{reason}")
    drawn = "drawn" if mask.status == "ok" else mask.status
    say(f"    {drawn} by {_step(mask.drawn)}")
    if mask.status in ("ok", "failed"):
        _print_maker(mask)
    if mask.carried:
        say(indented("carried over by " + _short(mask.carried)))


def _print_maker(mask: MaskBlame) -> None:
    if teacher := mask.drawn.teacher:
        weights = teacher.get("weights_sha256")
        say(
            f"    teacher {teacher.get('name')} v{teacher.get('version')}, "
            f"weights {weights or 'none'}"
        )
        if settings := teacher.get("config"):
            say(indented(f"settings {json.dumps(settings, sort_keys=True)}"))
    say(indented("code " + ", ".join(f"{name} {v}" for name, v in sorted(mask.drawn.code.items()))))
    if mask.signals:
        say(indented(", ".join(f"{name} {_number(n)}" for name, n in mask.signals.items())))


def _print_confidence(found: ConfidenceBlame) -> None:
    if found.confidence is None:
        say("\nconfidence   none: no teacher drew a mask")
    else:
        which = f", candidate {found.candidate}" if found.candidate else ""
        say(f"\nconfidence   {found.confidence:.3f}, of the mask of {found.layer}{which}")
    say(f"    calibrator {found.calibrator[:12] or '(not named)'}, by {_step(found.given)}")
    if found.outputs:
        best_first = sorted(found.outputs.items(), key=lambda item: (-item[1], item[0]))
        say(indented(", ".join(f"{name} {value:.3f}" for name, value in best_first)))


def _print_verdict(verdict: VerdictBlame) -> None:
    if verdict.keep:
        say(f"\nverdict   kept, with the mask of {verdict.layer}")
    else:
        judged = f" (judged: {verdict.layer})" if verdict.layer else ""
        say(f"\nverdict   dropped: {verdict.reason}{judged}")
    if verdict.keep and verdict.weight not in (None, 1):
        say(f"    weight in training {verdict.weight:.3f}")
    if verdict.candidate:
        say(f"    its candidate {verdict.candidate}, not the teacher's own choice")
    policy = verdict.given.config.get("name")
    by_policy = f"policy '{policy}' in " if policy else ""
    say(f"    by {by_policy}{_step(verdict.given)}")
    if rules := verdict.given.config.get("rules"):
        say(indented("rules " + ", ".join(f"{name} {value:g}" for name, value in rules.items())))
    if verdict.since.commit_id != verdict.given.commit_id:
        say(f"    the same since {_step(verdict.since)}")


def _step(step: Step) -> str:
    return f"{step.commit_id[:12]} {step.time} {step.author}: {step.message}"


def _short(steps: Iterable[Step]) -> str:
    return ", ".join(f"{step.commit_id[:12]} ({step.operation})" for step in steps)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
