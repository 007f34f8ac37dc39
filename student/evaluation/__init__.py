"""From raw outputs to segments, and from segments to AP, PQ and mIoU."""
