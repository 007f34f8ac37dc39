"""The student: images and texts to classes, boxes and masks of mixed queries.

Method: MQ-Former (Wang et al., CVPR 2025; arXiv 2404.04469); where it is silent, Mask DINO
(arXiv 2206.02777). Boxes are shares of the canvas, padding included, for batch and single image
have the same canvas.

Legend: B images, H and W the canvas in pixels, K texts, E channels of a text embedding, Q queries,
C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn

from manifests.errors import InputError
from student.config import DenoisingConfig, ModelConfig
from student.model.backbone import Backbone, build_backbone
from student.model.decoder import Decoder
from student.model.denoising import Denoising, Noised
from student.model.encoder import STRIDES, SegmentationEncoder
from student.model.heads import Heads
from student.model.proposals import ProposalHead, Proposals
from student.model.queries import LearnableQueries, Queries
from student.records import DenoisedPredictions, Predictions, SegmenterOutput, Targets


class Segmenter(nn.Module):
    """The whole network.

    Attributes:
        backbone: what learns at a lower rate than the rest.
    """

    def __init__(
        self, backbone: Backbone, config: ModelConfig, denoising: DenoisingConfig, *, text_dim: int
    ) -> None:
        super().__init__()
        transformer = config.transformer
        dim = transformer.dim
        self.backbone = backbone
        self.encoder = SegmentationEncoder(transformer, backbone.maps)
        self.heads = Heads(dim=dim, text_dim=text_dim)
        self.proposals: ProposalHead | None = None
        if transformer.conditional_queries:
            self.proposals = ProposalHead(num=transformer.conditional_queries, dim=dim)
        self.learnable: LearnableQueries | None = None
        if transformer.learnable_queries:
            self.learnable = LearnableQueries(num=transformer.learnable_queries, dim=dim)
        self.denoising: Denoising | None = None
        if denoising.queries:
            self.denoising = Denoising(denoising, dim=dim, text_dim=text_dim)
        self.decoder = Decoder(transformer)
        self._text_dim = text_dim

    def forward(
        self,
        images: Tensor,
        padding: Tensor,
        texts: Tensor,
        targets: Sequence[Targets] | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> SegmenterOutput:
        """What the images hold of the texts.

        Args:
            images: [B, 3, H, W] normalised; H and W are multiples of 32.
            padding: [B, H, W] bool, True where there is no image.
            texts: [K, E] embeddings.
            targets: in training: what denoising starts from; one for each image.
            generator: of the noise; None: torch's own.

        Raises:
            InputError: a shape that does not fit.
        """
        self._require(images, padding, texts, targets)
        maps = self.backbone(images.masked_fill(padding[:, None], 0))
        encoded = self.encoder(maps, padding)
        projected = self.heads.project(texts)  # [K, C]
        proposals = noised = None
        if self.proposals is not None:
            proposals = self.proposals(encoded.pyramid, self.heads, projected)
        if self.training and self.denoising is not None and targets:
            noised = self.denoising(targets, texts, generator)
        queries = self._queries(len(images), proposals, noised)
        layers = self.decoder(queries, encoded.pyramid, self.heads, projected)
        pixels = encoded.pixel_embeddings.float()
        if self.training and self.denoising is not None and noised is None:
            pixels = pixels + self.denoising.nothing()
        num = queries.num_learnable + queries.num_conditional
        return SegmenterOutput(
            layers=tuple(_part(layer, 0, num) for layer in layers),
            proposals=proposals.predictions if proposals else None,
            denoised=_denoised(layers, noised, num) if noised else None,
            pixel_embeddings=pixels,
            num_learnable=queries.num_learnable,
        )

    def _queries(self, batch: int, proposals: Proposals | None, noised: Noised | None) -> Queries:
        """Learnable, conditional and noised ones, in this order."""
        contents, boxes = [], []
        if self.learnable is not None:
            content, box = self.learnable(batch)
            contents.append(content)
            boxes.append(box)
        for source in (proposals, noised):
            if source is not None:
                contents.append(source.content)
                boxes.append(source.boxes_cxcywh)
        num_learnable = contents[0].shape[1] if self.learnable is not None else 0
        num_conditional = proposals.content.shape[1] if proposals else 0
        return Queries(
            content=torch.cat(contents, dim=1),
            boxes_cxcywh=torch.cat(boxes, dim=1),
            num_learnable=num_learnable,
            num_conditional=num_conditional,
            hidden=noised.hidden(num_learnable + num_conditional) if noised else None,
        )

    def _require(
        self,
        images: Tensor,
        padding: Tensor,
        texts: Tensor,
        targets: Sequence[Targets] | None,
    ) -> None:
        batch, _, height, width = images.shape
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise InputError(
                f"segmenter: expected sides that are multiples of {STRIDES[-1]}, got "
                f"{height} x {width}; pad the images"
            )
        if padding.shape != (batch, height, width):
            raise InputError(
                f"segmenter: expected padding {(batch, height, width)}, got {tuple(padding.shape)}"
            )
        if texts.ndim != 2 or not texts.shape[0] or texts.shape[1] != self._text_dim:
            raise InputError(
                f"segmenter: expected texts [at least 1, {self._text_dim}], got {list(texts.shape)}"
            )
        if targets is not None and len(targets) != batch:
            raise InputError(f"segmenter: expected {batch} targets, got {len(targets)}")


def build_segmenter(
    config: ModelConfig, denoising: DenoisingConfig, *, text_dim: int, pretrained: bool = True
) -> Segmenter:
    """The network, its own weights drawn by torch's generator.

    Args:
        config: its shape.
        denoising: the noise of training.
        text_dim: channels of the text embeddings.
        pretrained: load the backbone's weights; False where a checkpoint's follow.

    Raises:
        InputError: a backbone that does not suit.
        WeightsError: its weights are not to be had.
    """
    backbone = build_backbone(config.backbone, pretrained=pretrained)
    return Segmenter(backbone, config, denoising, text_dim=text_dim)


def _denoised(layers: Sequence[Predictions], noised: Noised, num: int) -> DenoisedPredictions:
    return DenoisedPredictions(
        layers=tuple(_part(layer, num, None) for layer in layers),
        target_rows=noised.target_rows,
        is_positive=noised.is_positive,
    )


def _part(predictions: Predictions, start: int, stop: int | None) -> Predictions:
    """Those of some of the queries."""
    values = {f.name: getattr(predictions, f.name)[:, start:stop] for f in fields(predictions)}
    return Predictions(**values)
