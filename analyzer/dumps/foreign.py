"""Text in a response that the model did not write: retrieved documents, the output of tools, its own prompt.

By marks alone, those that rollouts with search and tools leave: whatever stands between them counts, tags included.
Marks that models set around words of their own too (<result>, "Observation:") count only beside a call of a tool.
"""

from __future__ import annotations

import re

from analyzer.records import Trace

SURE = "information|retrieved_documents|search_result|search_results|observation|interpreter|tool_response|tool_result"
SURE += "|tool_output|tool_outputs|function_result|function_results|code_output|execution_result|execution_results"
MAYBE = "result|results|output|document|documents|context|response"
CALL = re.compile(
    r"<(?:search|tool_call|function_calls?|code|python|tool|query)\b|<\|(?:begin_of_query|python_tag)\|>|^Action\b",
    re.M,
)
BLOCK = re.compile(
    rf"<(?P<tag>{SURE}|{MAYBE})>.*?(?:</(?P=tag)>|\Z)"
    r"|<\|begin_of_documents\|>.*?(?:<\|end_of_documents\|>|\Z)"
    r"|<\|begin_search_result\|>.*?(?:<\|end_search_result\|>|\Z)"
    r"|<\|im_start\|>(?:tool|user|system)\b.*?(?:<\|im_end\|>|\Z)"
    r"|<\|start_header_id\|>(?:ipython|tool|user|system)<\|end_header_id\|>.*?(?:<\|eot_id\|>|\Z)"
    r"|<.tool.outputs.begin.>.*?(?:<.tool.outputs.end.>|\Z)"
    r"|^```output\b.*?(?:^```|\Z)"
    r"|^Observation(?: \d+)?:.*?(?=^(?:Thought|Action|Final Answer)\b|\Z)",
    re.S | re.M,
)
TAGS = re.compile(r"<(?:[a-z_]+>|\|[a-z_]+\|>|.tool)")  # what most responses have none of, found fast
OPENERS = frozenset(f"<{tag}>" for tag in f"{SURE}|{MAYBE}".split("|")) | {
    *(
        "<|begin_of_documents|>",
        "<|begin_search_result|>",
        "<|im_start|>",
        "<|start_header_id|>",
        "<|tool",
        "<\uff5ctool",
    )
}
MARK = re.compile(r"<[^>]*>|```output|Observation")
LEAST = 20  # characters of a prompt that a response is held against


def blocks(text: str) -> tuple[int, str]:
    """(characters of the blocks that the model did not write, the mark of the first); (0, "") where there are none."""
    plain = "```output" not in text and "Observation" not in text
    if plain and not any(found[0] in OPENERS for found in TAGS.finditer(text)):
        return 0, ""
    total, first, calls = 0, "", None
    for found in BLOCK.finditer(text):
        mark = MARK.match(found[0])[0]
        if mark == "Observation" or ((tag := found["tag"]) and re.fullmatch(MAYBE, tag)):
            calls = CALL.search(text) is not None if calls is None else calls
            if not calls:
                continue
        total += len(found[0])
        first = first or mark
    return total, first


def repeated(trace: Trace) -> int:
    """Characters of the response that repeat its prompt, or its question, at the beginning; 0 where it does not."""
    for said in (trace.prompt, trace.question):
        if isinstance(said, str) and len(said) >= LEAST and trace.response.startswith(said):
            return len(said)
    return 0
