"""The formats a student can be exported to: how each is written, and how it is run.

A network is exported for one size of canvas and one number of images; the number of texts is free
where the format and the network allow it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from student.export_check import Network, NetworkAnswer, NetworkInput
from student.model.segmenter import Segmenter
from student.records import mask_logits

INPUTS = ("images", "padding", "texts")
OUTPUTS = ("class_logits", "boxes_cxcywh", "mask_logits")
_FREE_TEXTS = (None, None, {0: torch.export.Dim.AUTO})  # free, unless the network decides otherwise
_MAX_SINGLE_FILE = 1_500_000_000  # bytes; protobuf, which ONNX is written in, ends at 2 GiB


class ExportedNetwork(nn.Module):
    """The segmenter without what only training needs: tensors in, tensors out."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor, padding: Tensor, texts: Tensor) -> tuple[Tensor, ...]:
        """INPUTS as `NetworkInput` to OUTPUTS as `NetworkAnswer` describes them."""
        output = self.segmenter(images, padding, texts)
        last = output.last
        masks = mask_logits(last.mask_embeddings, output.pixel_embeddings)
        return last.class_logits, last.boxes_cxcywh, masks


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFormat:
    """One format.

    Attributes:
        write: a network as it works on this input into a file; whether any number of texts will do.
        open: such a file as a network.
        needed_to_run: what whoever uses the file must have.
    """

    write: Callable[[ExportedNetwork, NetworkInput, Path], bool]
    open: Callable[[Path], Network]
    needed_to_run: str


def as_network(module: Callable[..., tuple[Tensor, ...]]) -> Network:
    """A module as the check takes it."""

    def run(given: NetworkInput) -> NetworkAnswer:
        with torch.no_grad():
            return _answer(module(*given.tensors()))

    return run


def _answer(tensors: tuple[Tensor, ...]) -> NetworkAnswer:
    return NetworkAnswer(**dict(zip(OUTPUTS, tensors, strict=True)))


def _write_onnx(network: ExportedNetwork, example: NetworkInput, path: Path) -> bool:
    import onnx

    num_bytes = sum(tensor.nbytes for tensor in network.state_dict().values())
    with torch.no_grad(), _quietly():
        torch.onnx.export(
            network, example.tensors(), path, dynamo=True, verbose=False,
            input_names=list(INPUTS), output_names=list(OUTPUTS), dynamic_shapes=_FREE_TEXTS,
            external_data=num_bytes > _MAX_SINGLE_FILE,
        )  # fmt: skip
    graph = onnx.load(path, load_external_data=False).graph
    texts = graph.input[INPUTS.index("texts")].type.tensor_type.shape.dim[0]
    return bool(texts.HasField("dim_param"))


def _open_onnx(path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(given: NetworkInput) -> NetworkAnswer:
        tensors = zip(INPUTS, given.tensors(), strict=True)
        answers = session.run(list(OUTPUTS), {name: tensor.numpy() for name, tensor in tensors})
        return _answer(tuple(map(torch.from_numpy, answers)))

    return run


def _write_torchscript(network: ExportedNetwork, example: NetworkInput, path: Path) -> bool:
    with torch.no_grad(), _quietly():
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]
            network, example.tensors(), check_trace=False
        )
        torch.jit.save(traced, path)
    return True


def _open_torchscript(path: Path) -> Network:
    with _quietly():
        module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    return as_network(module)


def _write_torch_export(network: ExportedNetwork, example: NetworkInput, path: Path) -> bool:
    with torch.no_grad(), _quietly():
        program = torch.export.export(network, example.tensors(), dynamic_shapes=_FREE_TEXTS)
        torch.export.save(program, path)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    num_texts = values["texts"].shape[0]
    return not str(num_texts).isdigit()  # a symbol; a number that the network insists on is a digit


def _open_torch_export(path: Path) -> Network:
    with _quietly():
        return as_network(torch.export.load(path).module())


@contextmanager
def _quietly() -> Iterator[None]:
    """The exporters' remarks on their own insides are nothing a user could act upon."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


FORMATS: Mapping[str, ExportFormat] = {
    "onnx": ExportFormat(write=_write_onnx, open=_open_onnx, needed_to_run="an ONNX runtime"),
    "torchscript": ExportFormat(
        write=_write_torchscript, open=_open_torchscript, needed_to_run="torch or libtorch"
    ),
    "torch_export": ExportFormat(
        write=_write_torch_export, open=_open_torch_export, needed_to_run="torch"
    ),
}
"""Name -> format."""
