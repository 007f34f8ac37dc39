"""From a commit to batches: rows, cached cells, augmentation, order, ranks."""
