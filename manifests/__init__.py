"""What a dataset is and where it lives: schemas, geometry, store, cells, commits, refs."""
