"""A training run: steps, schedule, averaging, checkpoints, logs, Ray Train."""
