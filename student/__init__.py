"""The student: a mixed-query transformer trained on a commit (see docs/student.md).

The flow is `train.py`; `config.py` has every number, `records.py` what the parts hand to each
other. `model/` is the network, `losses/` what it is taught by, `data/` what it sees, `training/`
the run, `evaluation/` the judge. Imports `manifests` and `teachers`, never `engine`.
"""
