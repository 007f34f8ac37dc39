"""Images a second of a training step, beside transformers' Mask2Former of like size and input.

    python benchmarks/student_speed.py --data ../shared/data/coco_dev

Both get the same real photos, masks and categories, 100 queries, 3 decoder and 2 encoder layers
of 128 channels, 1,024 points; forward, matching, losses, backward, clipping and AdamW are timed.
Mask2Former's Swin is drawn to the size of TinyViT. Steps of both take turns, and the median counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

from engine.ingest import ingest
from engine.ingest_config import IngestConfig
from engine.pool import PoolConfig
from engine.sources.protocol import SourceConfig
from manifests.dataset import init
from manifests.store import Store
from student.config import StudentConfig
from student.config_files import load_config
from student.data.loader import step_batches
from student.data.order import World
from student.data.training_data import TrainingData
from student.losses.criterion import Criterion
from student.model.segmenter import build_segmenter
from student.records import Batch
from student.text.encoder import build_text_encoder
from student.text.table import TextTable

_CLIP = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """One network in training."""

    name: str
    num_parameters: int
    num_trained: int
    step: Callable[[Batch], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bfloat16", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    batches, texts = real_batches(arguments)
    num_texts = len(batches[0].names)
    runners = [
        student_runner(arguments, texts.dim, frozen=-1),
        mask2former_runner(arguments, num_texts, is_frozen=True),
        student_runner(arguments, texts.dim, frozen=0),
        mask2former_runner(arguments, num_texts, is_frozen=False),
    ]
    seconds: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for number, batch in enumerate(batches):
        for runner in runners:
            start = time.perf_counter()
            runner.step(batch)
            if arguments.device != "cpu":
                torch.cuda.synchronize()
            if number:  # the first step allocates
                seconds[runner.name].append(time.perf_counter() - start)
    show(arguments, runners, seconds)


def real_batches(arguments: argparse.Namespace) -> tuple[list[Batch], TextTable]:
    """The same batches for all."""
    config = config_of(arguments, frozen=-1)
    texts = TextTable(build_text_encoder(config.model.text))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(str(Path(folder) / "store"))
        init(store)
        source = SourceConfig(
            format="coco", annotations=str(arguments.data / "masks.json"),
            images=str(arguments.data / "images"), name="photos",
        )  # fmt: skip
        ingest(store, IngestConfig(source=source, pool=PoolConfig(executor="inline")))
        data = TrainingData.open(store, "main", config.data)
        steps = step_batches(
            data, texts, config, world=World(rank=0, size=1), first_step=0,
            last_step=arguments.steps + 1,
        )  # fmt: skip
        return [batch.to(arguments.device) for (batch,) in steps], texts


def config_of(arguments: argparse.Namespace, *, frozen: int) -> StudentConfig:
    words = [
        "data.masks=masks/human", f"data.image_side={arguments.side}",
        f"train.batch={arguments.batch}", f"train.micro_batch={arguments.batch}",
        f"model.backbone.frozen_stages={frozen}",
    ]  # fmt: skip
    return load_config(None, words, size="tiny")


def student_runner(arguments: argparse.Namespace, text_dim: int, *, frozen: int) -> Runner:
    config = config_of(arguments, frozen=frozen)
    network: Any = build_segmenter(config.model, config.denoising, text_dim=text_dim)
    network = network.to(arguments.device).train()
    criterion = Criterion(config.loss)
    generator = torch.Generator(device=arguments.device).manual_seed(0)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)

    def step(batch: Batch) -> None:
        with torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.bfloat16):
            output = network(
                batch.images, batch.padding, batch.texts, batch.targets, generator=generator
            )
        num_targets = max(1, sum(len(target.labels) for target in batch.targets))
        loss = criterion(output, batch, num_targets=num_targets, generator=generator)
        finish(loss.total, network, optimizer)

    name = f"student tiny, {'backbone frozen' if frozen else 'all trained'}"
    return runner_of(name, network, step)


def mask2former_runner(arguments: argparse.Namespace, num_texts: int, *, is_frozen: bool) -> Runner:
    """The same widths, layers, queries and points; a fixed list of classes instead of texts."""
    swin = SwinConfig(
        image_size=arguments.side, embed_dim=48, depths=[2, 2, 4, 2], num_heads=[2, 4, 6, 12],
        window_size=8, out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, feature_size=128, mask_feature_size=128, hidden_dim=128,
        encoder_feedforward_dim=512, encoder_layers=2, dim_feedforward=512, decoder_layers=3,
        num_attention_heads=4, num_queries=100, train_num_points=1024, num_labels=num_texts,
    )  # fmt: skip
    network: Any = Mask2FormerForUniversalSegmentation(config).to(arguments.device).train()
    if is_frozen:
        network.model.pixel_level_module.encoder.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)

    def step(batch: Batch) -> None:
        with torch.autocast(arguments.device, torch.bfloat16, enabled=arguments.bfloat16):
            output = network(
                pixel_values=batch.images,
                pixel_mask=(~batch.padding).long(),
                mask_labels=[target.masks.float() for target in batch.targets],
                class_labels=[target.labels for target in batch.targets],
            )
        finish(output.loss, network, optimizer)

    name = f"Mask2Former, {'backbone frozen' if is_frozen else 'all trained'}"
    return runner_of(name, network, step)


def finish(loss: torch.Tensor, network: Any, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.sum().backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
    optimizer.step()


def runner_of(name: str, network: Any, step: Callable[[Batch], None]) -> Runner:
    return Runner(
        name=name,
        num_parameters=sum(p.numel() for p in network.parameters()),
        num_trained=sum(p.numel() for p in network.parameters() if p.requires_grad),
        step=step,
    )


def show(
    arguments: argparse.Namespace, runners: list[Runner], seconds: dict[str, list[float]]
) -> None:
    table = Table("network", "parameters", "trained", "images/s", "beside Mask2Former")
    rates = {name: arguments.batch / statistics.median(taken) for name, taken in seconds.items()}
    for runner in runners:
        other = runner.name.replace("student tiny", "Mask2Former")
        ratio = rates[runner.name] / rates[other]
        table.add_row(
            runner.name, f"{runner.num_parameters / 1e6:.1f} M",
            f"{runner.num_trained / 1e6:.1f} M", f"{rates[runner.name]:.2f}", f"{ratio:.2f}x",
        )  # fmt: skip
    kind = "bfloat16" if arguments.bfloat16 else "float32"
    print(f"{arguments.side} px, batch {arguments.batch}, {arguments.threads} threads, {kind}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
