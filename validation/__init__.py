"""The proof: known worlds, gates on what the tests claim, and for every gate a mutant that it has to catch."""
