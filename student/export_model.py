"""A student as a file that runs without maskmill, and the proof that it says the same.

    the network with its texts ──traced──▶ a file ──run on made-up photos──▶ compared with the
        student ──alike──▶ put in its place, beside it the text embeddings and a description

Nothing is left behind where the file disagrees.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from manifests.errors import InputError
from manifests.settings import did_you_mean
from student.checkpoint import Student
from student.data.decode import DEVIATION, MEAN
from student.export_check import (
    Difference,
    compare,
    noise_input,
    photo_input,
)
from student.export_formats import FORMATS, INPUTS, OUTPUTS, ExportedNetwork, as_network
from student.new_folder import make_folder

_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What to make.

    Attributes:
        format: one of FORMATS.
        image_side: of the canvas in pixels, a multiple of 32; 0: as the student was trained.
        texts: category names whose embeddings are written beside the file; empty: the student's
            categories.
        phrases: the same for referring phrases, which get no template; they come after the names.
        batch: images that the file takes at once.
        tolerance: the largest allowed difference of scores, boxes and mask probabilities.
        overwrite: replace what is at the path.
    """

    format: str = "onnx"
    image_side: int = 0
    texts: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    batch: int = 1
    tolerance: float = 1e-3
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(
                f"format '{self.format}' is unknown; {did_you_mean(self.format, tuple(FORMATS))}"
            )
        if self.image_side < 0 or self.image_side % 32:
            raise InputError(
                f"image side: expected a multiple of 32, or 0 for the student's own, got "
                f"{self.image_side}"
            )
        if self.batch < 1:
            raise InputError(f"batch: expected at least 1, got {self.batch}")
        if not self.tolerance > 0:
            raise InputError(f"tolerance: expected more than 0, got {self.tolerance}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What was made.

    Attributes:
        path: of the network; beside it lie PATH.texts.safetensors and PATH.json.
        format: one of FORMATS.
        commit_id: the checkpoint.
        image_side, batch: what it takes.
        texts: whose embeddings are written, in their order.
        num_texts: how many the network takes; None: any number.
        num_bytes: of the network.
        difference: the largest, of scores, boxes and mask probabilities.
    """

    path: str
    format: str
    commit_id: str
    image_side: int
    batch: int
    texts: tuple[str, ...]
    num_texts: int | None
    num_bytes: int
    difference: Difference


def export_student(
    student: Student, path: Path, *, options: ExportOptions = ExportOptions()
) -> ExportResult:
    """Writes a student's network into a file.

    Its inputs are `images` [batch, 3, side, side] (RGB, normalised as the description says, the
    photo at the top left and 0 elsewhere), `padding` [batch, side, side] (true where no photo is)
    and `texts` [K, E]; its outputs `class_logits` [batch, Q, K], `boxes_cxcywh` [batch, Q, 4] in
    shares of the canvas, and `mask_logits` [batch, Q, side / 4, side / 4].

    Raises:
        InputError: something is at the path already or nothing can be written there, there are no
            texts, or the file does not say what the student says.
    """
    files = [path, _beside(path, ".texts.safetensors"), _beside(path, ".json")]
    _require_free(files, options)
    side = options.image_side or student.config.data.image_side
    names = options.texts or (() if options.phrases else student.categories)
    vectors = torch.cat(
        [student.texts.vectors(names), student.texts.phrase_vectors(options.phrases)]
    )  # [K, E]
    if not len(vectors):
        raise InputError("export: expected texts, got a student without categories; name some")
    network = _on_cpu(student)
    make_folder(path.parent, setting="export")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        made = Path(folder) / path.name
        is_free = _write(network, made, vectors, side, options)
        found = compare(
            as_network(network), FORMATS[options.format].open(made),
            [
                partial(noise_input, vectors, options.batch, side),
                partial(photo_input, _other_texts(vectors, is_free), options.batch, side),
            ],
            tolerance=options.tolerance,
        )  # fmt: skip
        result = ExportResult(
            path=str(path), format=options.format, commit_id=student.commit_id, image_side=side,
            batch=options.batch, texts=(*names, *options.phrases),
            num_texts=None if is_free else len(vectors), difference=found,
            num_bytes=sum(file.stat().st_size for file in Path(folder).iterdir()),
        )  # fmt: skip
        (Path(folder) / files[1].name).write_bytes(save({"texts": vectors.contiguous()}))
        (Path(folder) / files[2].name).write_text(_description(student, result, options))
        # The description last: who finds it finds the rest.
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.suffix == ".json"):
            file.replace(path.parent / file.name)
    return result


def _write(
    network: ExportedNetwork, path: Path, vectors: Tensor, side: int, options: ExportOptions
) -> bool:
    """Whether the file takes any number of texts."""
    write = FORMATS[options.format].write
    make = partial(noise_input, batch=options.batch, side=side, seed=0)
    # Tracers take a length of 1 for a constant, and a network of one text only is a poor one.
    several = vectors if len(vectors) > 1 else torch.cat([vectors, vectors])
    is_free = write(network, make(several), path)
    if not is_free and len(several) != len(vectors):
        write(network, make(vectors), path)
    return is_free


def _other_texts(vectors: Tensor, is_free: bool) -> Tensor:
    """Where any number of texts will do, one more: a number that was traced shows here."""
    if not is_free:
        return vectors
    another = torch.randn(1, vectors.shape[1], generator=torch.Generator().manual_seed(1))
    return torch.cat([vectors, F.normalize(another, dim=1)])


def _on_cpu(student: Student) -> ExportedNetwork:
    segmenter = student.segmenter
    if any(parameter.device.type != "cpu" for parameter in segmenter.parameters()):
        segmenter = copy.deepcopy(segmenter).cpu()
    return ExportedNetwork(segmenter).eval()


def _description(student: Student, result: ExportResult, options: ExportOptions) -> str:
    """All that whoever runs the file must know, as JSON."""
    values = {
        "format_version": _FORMAT_VERSION,
        "student": student.config.name,
        **asdict(result),
        "path": Path(result.path).name,
        "tolerance": options.tolerance,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "pixels": {"order": "RGB", "mean": MEAN.tolist(), "deviation": DEVIATION.tolist()},
        "text_encoder": dict(student.texts.identity),
        "made_with": {name: version(name) for name in ("maskmill", "torch")},
        "needed_to_run": FORMATS[options.format].needed_to_run,
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _require_free(files: Sequence[Path], options: ExportOptions) -> None:
    taken = [str(file) for file in files if file.exists()]
    if taken and not options.overwrite:
        raise InputError(
            f"export: expected a new file, {taken[0]} is there already; name another, or add "
            "--overwrite"
        )
    if any(file.is_dir() for file in files):
        raise InputError(f"export: expected a file name, {files[0]} is a folder; add a name to it")
