"""The place of the student model, which is trained on a commit; nothing of it exists yet.

It will import `manifests` and `teachers`, never `engine` (see docs/design.md, section 3).
"""
