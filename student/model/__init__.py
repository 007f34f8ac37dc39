"""The network: backbone, segmentation encoder, mixed-query decoder."""
