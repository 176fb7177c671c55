"""What a model's hashes notice: other weights wherever in the file, other code or tokenizer; and what they accept."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from analyzer.scoring.identity import fingerprint, is_model, tokenizer_fingerprint

MIB = 1 << 20


@pytest.fixture()
def folder(tmp_path):
    """A model folder of 6 MiB in three tensors: of the middle one, no byte lies within a MiB of the file's ends."""
    from safetensors.numpy import save_file

    rng = np.random.default_rng(0)
    save_file({name: rng.random(MIB // 2, np.float32) for name in "abc"}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.json").write_text("{}")
    return tmp_path


def flip(file, at, n=1):
    with file.open("r+b") as f:
        f.seek(at, 2 if at < 0 else 0)
        old = f.read(n)
        f.seek(-n, 1)
        f.write(bytes(b ^ 255 for b in old))


@pytest.mark.parametrize("mib", [2.001, 3.0, 3.999])
def test_a_change_of_one_tensor_alone_is_noticed(folder, mib):
    """At the start, in the middle and at the end of the second of three."""
    before = fingerprint(str(folder))
    flip(folder / "model.safetensors", int(mib * MIB), 4096)
    assert fingerprint(str(folder)) != before
    flip(folder / "model.safetensors", int(mib * MIB), 4096)
    assert fingerprint(str(folder)) == before


def test_a_change_of_pickled_or_damaged_weights_is_noticed_wherever_it_is(folder):
    """256 blocks of 4 MiB lie 16 KiB apart."""
    data = np.random.default_rng(1).bytes(4 * MIB)
    (folder / "model.safetensors").unlink()  # beside it pickled weights are not loaded
    for name in ("pytorch_model.bin", "model.safetensors"):
        file = folder / name
        file.write_bytes(data)
        seen = {fingerprint(str(folder))}
        for at in np.random.default_rng(2).integers(0, len(data) - 20480, 8):
            flip(file, int(at), 20480)
            seen.add(fingerprint(str(folder)))
        assert len(seen) == 9
        file.write_bytes(b"")
        assert fingerprint(str(folder)) not in seen
        file.unlink()


@pytest.mark.parametrize("header", [b"[]", b"{", b'{"a": 1}', b'{"a": {"data_offsets": [4, 0]}}', b"\xff"])
def test_a_damaged_header_is_still_a_file_with_a_fingerprint(folder, header):
    file = folder / "model.safetensors"
    before = fingerprint(str(folder))
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    assert len({fingerprint(str(folder)), before}) == 2


def test_fingerprints_of_earlier_runs_are_known(folder):
    """They hash the first and the last MiB of each file."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        data = (folder / name).read_bytes()
        digest.update(f"{name}:{len(data)};".encode() + data[:MIB] + data[max(0, len(data) - MIB) :])
    assert digest.hexdigest()[:16] != fingerprint(str(folder))
    at_a_server = hashlib.sha256(f"{digest.hexdigest()[:16]}@http://host".encode()).hexdigest()[:16]
    for recorded, name in ((digest.hexdigest()[:16], str(folder)), (at_a_server, f"{folder}@http://host")):
        assert is_model(recorded, name) and is_model(fingerprint(name), name)
        assert not is_model(recorded, f"{folder}@http://other")
    flip(folder / "model.safetensors", -4, 4)
    assert not is_model(digest.hexdigest()[:16], str(folder))


def test_the_tokenizer_has_a_fingerprint_of_its_own(folder):
    weights, seen = fingerprint(str(folder)), {tokenizer_fingerprint(str(folder))}
    names = "tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt merges.txt spiece.model"
    for name in [*names.split(), "chat_template.jinja"]:
        with (folder / name).open("a") as f:
            f.write("x")
        seen.add(tokenizer_fingerprint(str(folder)))
    assert len(seen) == 8 and fingerprint(str(folder)) == weights
    (folder / "config.json").write_text("{}")
    flip(folder / "model.safetensors", -4, 4)
    assert tokenizer_fingerprint(f"{folder}@http://host") in seen
    assert tokenizer_fingerprint("org/one") != tokenizer_fingerprint("org/two")
