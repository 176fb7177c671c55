"""Images in prompts: kept as references, counted, part of the problem, never scored by a scorer of text."""

import base64
import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analyzer.dumps import read as dumps
from analyzer.errors import DumpError
from analyzer.scoring.encoding import prompts

PIXELS = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(5000)).decode()
OTHER = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(5001)).decode()
URL = "https://example.org/apple.png"


def write(path, *rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def read(path, *rows, **options):
    traces, ledger = dumps.read_dumps([write(path, *rows)], **options)
    return traces, "\n".join(ledger.notes)


def asked(*parts):
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "How many are there?"}]}]


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"type": "image_url", "image_url": {"url": URL}}, f"image {URL}"),
        ({"type": "input_image", "image_url": URL}, f"image {URL}"),
        ({"type": "image", "image": "shots/a.png"}, "image shots/a.png"),
        ({"type": "image", "source": {"type": "url", "url": URL}}, f"image {URL}"),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXELS}"}}, "image sha256:"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXELS}}, "image sha256:"),
        ({"type": "image"}, "image"),
        ({"type": "input_audio", "input_audio": {"data": PIXELS, "format": "wav"}}, "audio sha256:"),
    ],
)
def test_a_part_that_shows_something_is_a_reference(tmp_path, part, shown):
    (trace,), notes = read(tmp_path / "a.jsonl", {"prompt": asked(part), "response": "Two."})
    assert [m["content"] for m in trace.prompt] == ["How many are there?"]
    (own,) = trace.meta["images"]
    assert own.startswith(shown) and len(own) < 60 and len(str(trace)) < 1500
    assert "1 of 1 prompts show 1 image or the like" in notes and "does not see them" in notes


def test_the_same_words_on_two_images_are_two_problems(tmp_path):
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{p}"}} for p in (PIXELS, OTHER, PIXELS)]
    rows = [{"prompt": asked(p), "response": r} for p, r in zip(parts, ("One.", "Two.", "Three."), strict=True)]
    (a, b, c), _ = read(tmp_path / "a.jsonl", *rows)
    assert a.problem == c.problem != b.problem and (a.sample, c.sample) == (0, 1)


def test_images_in_a_column_fill_the_places_of_the_messages(tmp_path):
    row = {"messages": [*asked({"type": "image"}), {"role": "assistant", "content": "Two."}], "images": ["a.png"]}
    (trace,), _ = read(tmp_path / "a.jsonl", row)
    assert trace.meta["images"] == ("image a.png",) and trace.response == "Two."
    vqa = {"question_id": 1, "prompt": "Is it red?", "text": "Yes."}
    (a, b, c), _ = read(tmp_path / "b.jsonl", {**vqa, "image": "a.jpg"}, {**vqa, "image": "b.jpg"}, vqa)
    assert len({t.problem for t in (a, b, c)}) == 3 and "images" not in c.meta
    message = {"role": "user", "content": "q", "images": [PIXELS]}  # as Ollama has it
    (trace,), _ = read(tmp_path / "c.jsonl", {"prompt": [message], "response": "r"})
    assert trace.meta["images"][0].startswith("image sha256:") and PIXELS not in str(trace)


def test_images_of_a_data_set_are_hashed(tmp_path):
    rows = [{"question": "q", "response": "r", "image": {"bytes": bytes(9), "path": None}}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (trace,), _ = dumps.read_dumps([str(tmp_path / "a.parquet")])
    assert trace.meta["images"][0].startswith("image sha256:")


def test_an_image_of_a_container_is_no_picture(tmp_path):
    (trace,), notes = read(tmp_path / "a.jsonl", {"prompt": "q", "response": "r", "image": "swebench/sweb.eval:latest"})
    assert "images" not in trace.meta and "prompts show" not in notes


def test_a_count_of_images_is_no_picture(tmp_path):
    (trace,), notes = read(tmp_path / "a.jsonl", {"prompt": "q", "response": "r", "prompt_ids": [1], "images": 2})
    assert trace.meta["images"] == 2 and "prompts show" not in notes
    with pytest.raises(DumpError, match="no tokenizer"):  # and not because of an image
        prompts.prompt_ids(dataclasses.replace(trace, prompt_ids=None), None, None, [], None)


def test_a_response_that_shows_something_is_no_text(tmp_path):
    row = {"prompt": "q", "response": [{"type": "text", "text": "r"}, {"type": "image", "image": "a.png"}]}
    with pytest.raises(DumpError, match="bad response: response has the part"):
        read(tmp_path / "a.jsonl", row)


def test_a_scorer_of_text_refuses_what_it_would_not_see(tmp_path):
    (trace,), _ = read(tmp_path / "a.jsonl", {"prompt": asked({"type": "image", "image": URL}), "response": "Two."})
    with pytest.raises(
        DumpError, match=r"a.jsonl:1: the prompt of .* shows image https://example.org/apple.png, which"
    ):
        prompts.prompt_ids(trace, None, None, [], None)


def test_converted_rows_keep_their_images(tmp_path):
    from analyzer.dumps.convert import row

    (trace,), _ = read(tmp_path / "a.jsonl", {"prompt": asked({"type": "image", "image": URL}), "response": "Two."})
    (again,), notes = read(tmp_path / "b.jsonl", row(trace))
    assert list(again.meta["images"]) == [f"image {URL}"] and again.problem == trace.problem and "prompts show" in notes
