"""What a trace computes, without its wording: numbers, symbols and code in their order, by rules alone.

Text goes through one spelling for every notation (`notation`) and into expressions (`formulas`); code into keywords,
calls and operators. Nothing is executed or evaluated.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator

from analyzer.analysis.data.formulas import Expression, expressions, number
from analyzer.analysis.data.notation import CONSTANTS, plain

_FENCE = re.compile(r"(```|~~~)[ \t]*(\w*)[^\n`~]*\n?(.*?)(?:\1|\Z)", re.S)
_NO_CODE = frozenset(
    ("text", "txt", "plain", "plaintext", "output", "math", "latex", "tex", "markdown", "md", "csv")
)  # fences
_CODE = re.compile(
    r"(?P<skip>#[^\n]*|'''.*?'''|\"\"\".*?\"\"\")|(?P<string>'[^'\n]*'|\"[^\"\n]*\")|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>\.?\s*[^\W\d]\w*)|(?P<sign>\*\*=?|//=?|[-+*/%<>!=]=|->|[-+*/%=<>()\[\]])",
    re.S,
)
_PROGRAM = re.compile(r"(?m)^(?:def \w+\(|import \w+|from \w+ import |class \w+[(:])")
_STATEMENT = re.compile(
    r"^(?:\s+\S.*|def \w+\(.*|class \w+.*|import \w.*|from \w+ import .*|(?:for|while|if|elif|with) .*:|else:|try:"
    r"|except.*:|return\b.*|print\(.*|[A-Za-z_][\w.\[\]]* [-+*/%]?= .*|@\w+|\w+\(.*\)|\s*)$"
)
_IN_PLACE = frozenset(("+=", "-=", "*=", "/=", "%=", "//=", "**="))
_TYPES = re.compile(r"\s*->\s*[\w\[\], .|]+(?=:)|(?<=\w)\s*:\s*[A-Za-z_][\w.\[\]|]*(?=\s*[,)=])")
_NUMBER, _LETTER = re.compile(r"(?<!\S)\d[\d.]*(?!\S)"), re.compile(r"(?<!\S)[^\W\d_](?!\S)")
# besides numbers and letters, tokens that are no operation
PASSIVE = frozenset(("(", ")", "[", "]", *CONSTANTS))


def skeleton(text: str) -> str:
    """What a trace computes, without its wording: numbers, symbols and code in their order, joined by blanks.

    Kept: numbers ("1,000" is 1000, "3.50" is 3.5), operators, brackets and single letters of formulas, functions, and
    of code (fenced, or a text with `def` or `import`) keywords, calls and operators. One thing has one token however it
    is written: x, *, ·, \\times, 3(4) and "times" between numbers; \\frac{3}{4} and 3/4. Dropped: words, relations
    (=, <, "gives": they compute nothing), punctuation, bullets, emphasis, tags, units, all LaTeX that computes nothing,
    comments and the names of variables in code. So "3 + 4 = 7" and "3 plus 4 gives 7" are "3 + 4 7", and "add 3 to 4,
    get 7" is "3 4 7": what is told by words alone stays untold.
    """
    found = (t for start, end, code in blocks(text) for e in of_block(text[start:end], code=code) for t in e.tokens)
    return " ".join(found)


def of_block(text: str, *, code: bool) -> list[Expression]:
    """The expressions of a piece of `blocks`; a block of code is one."""
    if not code:
        return expressions(plain(text))
    fence = _FENCE.fullmatch(text.strip())
    tokens = tuple(_program(fence[3] if fence else text))
    return [Expression(tokens, bool(kind(tokens)), False)] if tokens else []


def kind(tokens: tuple[str, ...] | list[str]) -> set[str]:
    """The operators, functions, keywords and calls among the tokens of a skeleton."""
    return {t for t in tokens if t not in PASSIVE and not t[0].isdigit() and (len(t) > 1 or not t.isalpha())}


def blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Start, end and whether it is code, of the pieces of a text in order, without a gap: code in fences, lines that
    look like statements where the text defines or imports something, and what stands between them."""
    if "```" not in text and "~~~" not in text and "def " not in text and "import " not in text:
        yield 0, len(text), False
        return
    at = 0
    for fence in _FENCE.finditer(text):
        yield from _statements(text, at, fence.start())
        code = fence[2].lower() not in _NO_CODE
        code &= bool(fence[2] or _PROGRAM.search(fence[3]) or _all_statements(fence[3]))
        yield fence.start(), fence.end(), code
        at = fence.end()
    yield from _statements(text, at, len(text))


def shape(skeleton: str) -> str:
    """A skeleton with N for every number and v for every letter: structure that compares across problems."""
    return _NUMBER.sub("N", _LETTER.sub("v", skeleton))


def computed(shape: str) -> str:
    """A shape without the numbers and letters that no operation takes: given, repeated or found ones are wording."""
    kept: list[str] = []
    tokens = shape.split()
    for token, after in zip(tokens, [*tokens[1:], ""], strict=False):  # none: no pair
        begins = after in ("", "N", "v", "(") or after.isalpha()  # of another expression
        if token in ("N", "v") and begins and (not kept or kept[-1] in ("N", "v", ")", "!")):
            continue
        kept.append(token)
    return " ".join(kept)


def _statements(text: str, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The pieces of a text outside fences: lines that look like statements are code once it defines something."""
    if not _PROGRAM.search(text[start:end]):
        yield start, end, False
        return
    coded, begun = False, start
    for line in text[start:end].splitlines(keepends=True):
        if (statement := bool(_STATEMENT.match(line.rstrip("\r\n")))) != coded:
            yield begun, start, coded
            begun, coded = start, statement
        start += len(line)
    yield begun, end, coded


def _all_statements(text: str) -> bool:
    return bool(text.strip()) and all(_STATEMENT.match(line) for line in text.splitlines())


def _program(text: str) -> list[str]:
    """Tokens of code: keywords, called names, operators, numbers; other names are v, strings are s."""
    own = set(re.findall(r"\bdef\s+(\w+)", text))
    text = _TYPES.sub("", text)
    out = []
    for piece in _CODE.finditer(text):
        group, token = piece.lastgroup, piece[0]
        if group == "number":
            out.append(number(token))
        elif group == "sign":
            if token not in ("=", "->"):  # a result is named
                if token in _IN_PLACE:  # x += 1 is x = x + 1
                    out.append(out[-1] if out else "v")
                    token = token.removesuffix("=")
                out.append("^" if token == "**" else token)
        elif group == "string":
            out.append("s")
        elif group == "name":
            name = re.sub(r"\s", "", token)
            called = text[piece.end() : piece.end() + 1] == "(" and name not in own
            out.append(name if keyword.iskeyword(name) or called else "v")
    return out
