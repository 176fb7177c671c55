"""A real language model in the proof: SmolLM2-135M-Instruct, trained here, and bars that its report has to meet.

`python -m validation.real`, a command of its own (`make test-real`): problems (what is asked, the texts that no model
writes) -> model (fetch, write as a folder) -> training (the last layers) -> sources (the stages, each kept) -> bars
(the table). No threshold of the package is set on it.
"""
