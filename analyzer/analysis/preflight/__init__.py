"""Whether the sources can be compared at all, before any test."""

NAMES = {  # on a page, of checks whose name alone says too little
    "base": "base model on its own traces",
    "policy": "policy on its own traces",
    "declared": "declared model and sampler",
    "masked": "masked (copied) tokens",
    "A/A": "A/A (half of the reference against the other half)",
}
