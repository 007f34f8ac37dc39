"""External box-labelled datasets, one file a format behind one protocol."""
