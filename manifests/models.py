"""What a store knows of trained students: where they are, and what hangs on their commits.

A checkpoint is a commit of the operation TRAIN on a branch `models/<name>`. It has the manifest of
the dataset that it was trained on, so that it can be looked at like any commit, but keeps none of
its images: what was taken down is deleted although a student was trained on it.
"""

MODELS = "models/"
TRAIN = "train"
WEIGHTS, STATE = "weights", "state"
"""Attached: what is handed out, and what training goes on from. Gigabytes, perhaps."""


def is_model(branch: str) -> bool:
    """Whether a branch holds checkpoints."""
    return branch.startswith(MODELS)
