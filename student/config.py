"""Every number of a student and of its training: frozen dataclasses, checked when built.

`config_files` reads them. Nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from manifests.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """The image backbone.

    Attributes:
        name: `mobile_sam` (TinyViT-5M as MobileSAM changed it), or any timm model that gives
            features (`resnet50`, `swin_tiny_patch4_window7_224`, `tiny_vit_5m_224` ...).
        weights: `none`; `mobile_sam` (its own file, by `maskmill weights`); `timm` (that model's
            default weights from timm's hub); or the path of a safetensors file.
        frozen_stages: stages, from the stem on, that are not trained; -1: all of them.
        drop_path: stochastic depth of timm's models.
    """

    name: str = "mobile_sam"
    weights: str = "mobile_sam"
    frozen_stages: int = 0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        _within("model.backbone.frozen_stages", self.frozen_stages, least=-1)
        _within("model.backbone.drop_path", self.drop_path, least=0, most=0.9)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Segmentation encoder and decoder (defaults: Mask DINO's, arXiv 2206.02777).

    Attributes:
        dim: channels of tokens, queries and pixel embeddings.
        heads: attention heads.
        points: sampling points of deformable attention, a head and a level.
        feedforward: channels inside the feed-forward blocks.
        encoder_layers, decoder_layers: how many; the encoder may have 0.
        learnable_queries, conditional_queries: MQ-Former's two kinds; either may be 0, not both.
        query_fusion: cross-attention both ways between the two kinds, in every decoder layer.
        dropout: in attention and feed-forward blocks.
    """

    dim: int = 256
    heads: int = 8
    points: int = 4
    feedforward: int = 2048
    encoder_layers: int = 6
    decoder_layers: int = 9
    learnable_queries: int = 100
    conditional_queries: int = 300
    query_fusion: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dim", "heads", "points", "feedforward", "decoder_layers"):
            _within(f"model.transformer.{name}", getattr(self, name), least=1)
        for name in ("encoder_layers", "learnable_queries", "conditional_queries"):
            _within(f"model.transformer.{name}", getattr(self, name), least=0)
        _within("model.transformer.dropout", self.dropout, least=0, most=0.9)
        if self.dim % self.heads or self.dim % 4:
            raise InputError(
                f"model.transformer.dim: expected a multiple of 4 and of the {self.heads} heads, "
                f"got {self.dim}"
            )
        if not self.learnable_queries + self.conditional_queries:
            raise InputError(
                "model.transformer: expected at least one query, learnable or conditional"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisingConfig:
    """Contrastive denoising as in DINO and Mask DINO.

    Attributes:
        queries: about how many noised boxes an image, positive and negative; 0: none.
        box_noise: a noised box's corners move by up to this share of half its size.
        label_noise: share of noised boxes whose text is replaced by another.
    """

    queries: int = 100
    box_noise: float = 0.4
    label_noise: float = 0.2

    def __post_init__(self) -> None:
        _within("denoising.queries", self.queries, least=0)
        _within("denoising.box_noise", self.box_noise, least=0, most=1)
        _within("denoising.label_noise", self.label_noise, least=0, most=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextConfig:
    """Which text encoder, frozen.

    Attributes:
        encoder: `minilm` (all-MiniLM-L6-v2), `clip` (a folder of CLIP weights in transformers'
            format), or `hashed` (character n-grams: no weights, no meaning; for tests).
        weights: for `clip`: the folder.
        template: the sentence around a category name; `{}` is its place.
    """

    encoder: Literal["minilm", "clip", "hashed"] = "minilm"
    weights: str = ""
    template: str = "{}"

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise InputError(f"model.text.template: expected {{}} in it, got {self.template!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weights of losses and of matching costs (Mask DINO's), and how masks are sampled.

    Attributes:
        classes, boxes_l1, boxes_giou, masks_dice, masks_bce: weights; the matcher's costs too.
        focal_alpha, focal_gamma: of the sigmoid focal loss.
        points: sampled for each mask (PointRend's scheme); the matcher's are uniform.
        oversample: times as many candidates are drawn.
        importance: share of points taken where the mask is most uncertain.
        deep_supervision: losses on every decoder layer, not on the last alone.
        use_weights: multiply a mask's losses by its row's weight; False: all count as 1.
    """

    classes: float = 4.0
    boxes_l1: float = 5.0
    boxes_giou: float = 2.0
    masks_dice: float = 5.0
    masks_bce: float = 5.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    points: int = 12544
    oversample: float = 3.0
    importance: float = 0.75
    deep_supervision: bool = True
    use_weights: bool = True

    def __post_init__(self) -> None:
        for name in ("classes", "boxes_l1", "boxes_giou", "masks_dice", "masks_bce", "focal_gamma"):
            _within(f"loss.{name}", getattr(self, name), least=0)
        _within("loss.focal_alpha", self.focal_alpha, least=0, most=1)
        _within("loss.points", self.points, least=1)
        _within("loss.oversample", self.oversample, least=1)
        _within("loss.importance", self.importance, least=0, most=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """One dataset of the mix.

    Attributes:
        ref: a branch, tag or commit id of the store; empty: the command's REF.
        store: another store's URL; empty: the command's.
        weight: how often its images are drawn against the other datasets'.
        max_images: the first so many in the commit's order; 0: all.
        skip_images: leave out the first so many.
    """

    ref: str = ""
    store: str = ""
    weight: float = 1.0
    max_images: int = 0
    skip_images: int = 0

    def __post_init__(self) -> None:
        _weight("data.mix.weight", self.weight)
        _within("data.mix.max_images", self.max_images, least=0)
        _within("data.mix.skip_images", self.skip_images, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What the student sees.

    Attributes:
        image_side: side of the square canvas in pixels, a multiple of 32.
        scale_min, scale_max: large-scale jitter: the image's longer side becomes this share of the
            canvas; what is larger is cropped, what is smaller is padded.
        flip: chance of a mirror image.
        masks: `verdicts` (what the policy kept), or a layer such as `masks/sam_vit_t` or
            `masks/human`, whose own choices are taken without verdicts.
        human_weight, pseudo_weight: how often images with any human mask are drawn against those
            with pseudo-masks alone.
        dropped_boxes: a box whose mask was dropped still trains class and box.
        max_targets: of one image; more are sampled anew in every epoch.
        max_texts: categories in one step; more than that: those present, and a sample of the rest.
        cache_bytes: of the disk cache of a machine.
        cache_folder: empty: the user's cache folder for maskmill.
        workers: loader processes of each training worker; 0: in the training process.
        mix: the datasets; empty: REF alone.
    """

    image_side: int = 1024
    scale_min: float = 0.1
    scale_max: float = 2.0
    flip: float = 0.5
    masks: str = "verdicts"
    human_weight: float = 1.0
    pseudo_weight: float = 1.0
    dropped_boxes: bool = True
    max_targets: int = 100
    max_texts: int = 256
    cache_bytes: int = 20 * 2**30
    cache_folder: str = ""
    workers: int = 2
    mix: tuple[SourceConfig, ...] = ()

    def __post_init__(self) -> None:
        if self.image_side < 32 or self.image_side % 32:
            raise InputError(
                f"data.image_side: expected a positive multiple of 32, got {self.image_side}"
            )
        _within("data.scale_min", self.scale_min, least=0.05, most=self.scale_max)
        _within("data.scale_max", self.scale_max, least=0.05, most=4)
        _within("data.flip", self.flip, least=0, most=1)
        _weight("data.human_weight", self.human_weight)
        _weight("data.pseudo_weight", self.pseudo_weight)
        for name in ("cache_bytes", "workers"):
            _within(f"data.{name}", getattr(self, name), least=0)
        for name in ("max_targets", "max_texts"):
            _within(f"data.{name}", getattr(self, name), least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How the student is trained.

    Attributes:
        steps: optimiser steps of the whole run.
        batch: images of one optimiser step, over all workers: the same on any number of them.
        micro_batch: most images a worker has in memory at once; more are accumulated.
        learning_rate, weight_decay: of AdamW.
        backbone_factor: of the learning rate, for the backbone.
        clip_norm: of the whole gradient; 0: none.
        warmup_steps: from 0 to the full learning rate.
        schedule: `cosine` to zero, `step` (a tenth after `milestones`), or `constant`.
        milestones: shares of all steps, from 0 to 1.
        ema: decay of the averaged weights, which are what is evaluated; 0: none.
        precision: `float32` or `bfloat16` (autocast; weights stay float32).
        compile: torch.compile the network.
        workers: training processes.
        gpus_per_worker, cpus_per_worker: of Ray; 0 CPUs: the machine's, divided.
        checkpoint_steps: a checkpoint every so many steps, and at the end.
        log_steps: a line in the logs every so many.
        max_failures: restarts after a lost worker before the run is given up.
        seed: of everything random; below 2^63.
    """

    steps: int = 368_750
    batch: int = 16
    micro_batch: int = 2
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    backbone_factor: float = 0.1
    clip_norm: float = 0.01
    warmup_steps: int = 10
    schedule: Literal["cosine", "step", "constant"] = "step"
    milestones: tuple[float, ...] = (0.8889, 0.963)
    ema: float = 0.9998
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = False
    workers: int = 1
    gpus_per_worker: float = 0.0
    cpus_per_worker: int = 0
    checkpoint_steps: int = 5000
    log_steps: int = 20
    max_failures: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "micro_batch", "workers", "checkpoint_steps", "log_steps"):
            _within(f"train.{name}", getattr(self, name), least=1)
        for name in ("learning_rate", "weight_decay", "backbone_factor", "clip_norm"):
            _within(f"train.{name}", getattr(self, name), least=0)
        for name in ("warmup_steps", "gpus_per_worker", "cpus_per_worker", "max_failures"):
            _within(f"train.{name}", getattr(self, name), least=0)
        _within("train.ema", self.ema, least=0, most=0.999999)
        _within("train.seed", self.seed, least=0, most=2**63 - 1)
        for share in self.milestones:
            _within("train.milestones", share, least=0, most=1)
        if list(self.milestones) != sorted(self.milestones):
            raise InputError(f"train.milestones: expected rising shares, got {self.milestones}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """Where a run is logged besides its own folder, which always has the numbers as JSON lines.

    Attributes:
        tensorboard: a folder for TensorBoard; the run gets one of its own in it. Empty: none.
        mlflow: an MLflow tracking URI; empty: none. User and password come from
            `$MLFLOW_TRACKING_USERNAME` and `$MLFLOW_TRACKING_PASSWORD`.
        experiment: of MLflow.
    """

    tensorboard: str = ""
    mlflow: str = ""
    experiment: str = "maskmill"

    def __post_init__(self) -> None:
        if "@" in urlsplit(self.mlflow).netloc:
            # The configuration is kept in every checkpoint, for all who can read the store.
            raise InputError(
                "log.mlflow: expected a URI without user and password, got one with; put them into "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
            )
        if not self.experiment:
            raise InputError("log.experiment: expected a name, got an empty one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """All that decides the network's shape: a checkpoint fits exactly one of these."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    text: TextConfig = field(default_factory=TextConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentConfig:
    """A whole run; see each part."""

    name: str = "student"
    model: ModelConfig = field(default_factory=ModelConfig)
    denoising: DenoisingConfig = field(default_factory=DenoisingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    log: LogConfig = field(default_factory=LogConfig)


def _weight(name: str, value: float) -> None:
    """Far from 1 an epoch has hardly any image, or each of them very often."""
    if value:
        _within(name, value, least=1e-3, most=1e3)


def _within(name: str, value: float, *, least: float, most: float = math.inf) -> None:
    if not least <= value <= most or not math.isfinite(value):
        wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        raise InputError(f"{name}: expected {wanted}, got {value!r}")
