"""Frozen mask predictors: images and box prompts in, masks and raw signals out."""
