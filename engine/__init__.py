"""The distributed job: sources, ingest, label, filter, export and their command line."""
