"""What a trace computes, without its wording: numbers, symbols and code in their order, by rules alone.

A regular expression cuts a text into pieces; a few rules of neighbourhood then decide which letters are variables,
which signs are operators and which brackets belong to a formula. Nothing is executed or evaluated.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator
from functools import lru_cache

_SIGNS = str.maketrans(
    {"×": "*", "·": "*", "∙": "*", "⋅": "*", "÷": "/", "∕": "/", "⁄": "/", "−": "-", "–": "-", "—": " ", "…": " "}
    | {"≤": "<=", "≥": ">=", "≠": "!=", "√": "\\sqrt ", "π": "\\pi ", "→": " ", "⇒": " ", "⟹": " ", "∴": " ", "°": " "}
    | {"½": " 1/2 ", "¼": " 1/4 ", "¾": " 3/4 ", "⅓": " 1/3 ", "⅔": " 2/3 ", "$": " ", "`": " ", "‑": "-"}
    | {sign: f"^{digit}" for sign, digit in zip("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")}
)
_COMMANDS = {"times": "*", "cdot": "*", "ast": "*", "div": "/", "le": "<=", "leq": "<=", "ge": ">=", "geq": ">="}
_COMMANDS |= {"ne": "!=", "neq": "!=", "lt": "<", "gt": ">", "bmod": "mod", "pmod": "mod", "mod": "mod"}
_LAYOUT = re.compile(
    r"left|right|middle|[bB]igg?|q?quad|f?box(?:ed)?|(?:display|text)style|math(?:bb|cal|bf|rm|it|sf)|operatorname|(?:no)?limits"
    r"|label|tag|hline|newline|[hv]space|phantom|[lcv]?dots|therefore|because|implies|iff|[lL]ong(?:left)?rightarrow"
    r"|[Ll]eftarrow|[Rr]ightarrow|Leftrightarrow|Longrightarrow|to|mapsto|circ|[dtc]?frac|over|text"
)
_FUNCTIONS = re.compile(r"sqrt|sin|cos|tan|cot|sec|log|ln|exp|min|max|gcd|lcm|mod|floor|ceil|abs|det")
_GROUP = r"\s*(?:\{((?:[^{}]|\{[^{}]*\})*)\}|(\d))"
_FRACTION = re.compile(r"\\[dtc]?frac" + _GROUP + _GROUP)
_FENCE = re.compile(r"```[ \t]*(\w*)[^\n`]*\n?(.*?)(?:```|\Z)", re.S)
_NOISE = re.compile(
    r"</?(?:think|thinking|answer|solution|reasoning|tool_call|tool_response)>|<\|[^|<>\n]*\|>"  # tags
    r"|\\(?:text|textbf|textit|textrm|mbox)\s*\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}|\\[^A-Za-z\s]"  # LaTeX layout
    r"|(?<![-=])[-=]+>|<-+(?=\s)|\b\d+(?:st|nd|rd|th)\b|(?<=\d)'s\b"  # arrows, ordinals
    r"|(?m:^[ \t]*(?:\d{1,2}[.)]|\([a-z\d]\)|[-*+•#>]+)[ \t]+)"  # bullets, numbers of items, headings
    r"|(?i:\b(?:step|case|part|example|method|approach|attempt|option)\s+#?\d+\s*[:.)])"  # "Step 2:"
)
_NOISY = frozenset("<>\\'")  # with these three, what every match of _NOISE holds in ASCII
_LINE_OR_ORDINAL = re.compile(r"[\n\d](?:(?<=\n)[ \t]*(?:[-*+#>(]|\d\d?[.)])|(?<=\d)(?:st|nd|rd|th))")
_ITEMS = ("step", "case", "part", "example", "method", "approach", "attempt", "option")
_MARK = re.compile(r"[*_][^\s*]")  # in every match of _EMPHASIS
_EMPHASIS = re.compile(r"(?<![\w)\]*])(\*\*|__|\*)(?=[^\s*])([^*\n]{1,200}?)(?<=[^\s*])\1(?![\w(*])")
_PIECE = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])|\d+(?:\.\d+)?)|(?P<command>\\[A-Za-z]+)"
    r"|(?P<word>[^\W\d_]+(?:['_]\w+)*)|(?P<sign>\*\*|//|[<>!=]=|[-+*/^=<>%!:])|(?P<open>[(\[])|(?P<close>[)\]])"
)
_CODE = re.compile(
    r"(?P<skip>#[^\n]*|'''.*?'''|\"\"\".*?\"\"\")|(?P<string>'[^'\n]*'|\"[^\"\n]*\")|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>\.?\s*[^\W\d]\w*)|(?P<sign>\*\*=?|//=?|[-+*/%<>!=]=|->|[-+*/%=<>()\[\]])",
    re.S,
)
_PROGRAM = re.compile(r"(?m)^(?:def \w+\(|import \w+|from \w+ import |class \w+[(:])")
_STATEMENT = re.compile(
    r"^(?:\s+\S.*|def \w+\(.*|class \w+.*|import \w.*|from \w+ import .*|(?:for|while|if|elif|with) .*:|else:|try:"
    r"|except.*:|return\b.*|print\(.*|[\w.\[\]]+ [-+*/%]?= .*|@\w+|\w+\(.*\)|\s*)$"
)
_NUMBER, _LETTER = re.compile(r"(?<!\S)\d[\d.]*(?!\S)"), re.compile(r"(?<!\S)[^\W\d_](?!\S)")
_ENDS = ("number", "variable", "close", "symbol")
_STARTS = ("number", "variable", "open", "symbol", "function")


def skeleton(text: str) -> str:
    """What a trace computes, without its wording: numbers, symbols and code in their order, joined by blanks.

    Kept: numbers ("1,000" is 1000, "3.50" is 3.5), symbolic operators and comparisons, brackets and single letters of
    formulas, LaTeX functions and symbols, and of code (fenced, or a text with `def` or `import`) keywords, calls and
    operators. Notations of one thing are one token (x, *, ·, \\times; \\frac{3}{4} and 3/4). Dropped: words, also words
    for operators and for numbers ("add", "twelve"), punctuation, bullets and numbers of items, emphasis, LaTeX layout,
    comments and the names of variables in code. So "add 11 get 12" and "plus 11 gives 12" are "11 12", while
    "+ 11 = 12" keeps two more tokens: writing symbols instead of words counts as a different skeleton.
    """
    return " ".join(filter(None, (of_block(text[start:end], code=code) for start, end, code in blocks(text))))


def of_block(text: str, *, code: bool) -> str:
    """The skeleton of a piece of `blocks`, or of a part of one."""
    if not code:
        return " ".join(_formula(text))
    fence = _FENCE.fullmatch(text.strip())
    return " ".join(_program(fence[2] if fence else text))


def blocks(text: str) -> Iterator[tuple[int, int, bool]]:
    """Start, end and whether it is code, of the pieces of a text in order, without a gap: code in fences, lines that
    look like statements where the text defines or imports something, and what stands between them."""
    if "`" not in text and "def " not in text and "import " not in text:
        yield 0, len(text), False
        return
    at = 0
    for fence in _FENCE.finditer(text):
        yield from _statements(text, at, fence.start())
        yield fence.start(), fence.end(), bool(fence[1] or _PROGRAM.search(fence[2]))
        at = fence.end()
    yield from _statements(text, at, len(text))


def shape(skeleton: str) -> str:
    """A skeleton with N for every number and v for every letter: structure that compares across problems."""
    return _NUMBER.sub("N", _LETTER.sub("v", skeleton))


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


def _program(text: str) -> list[str]:
    """Tokens of code: keywords, called names, operators, numbers; other names are v, strings are s."""
    own = set(re.findall(r"\bdef\s+(\w+)", text))
    out = []
    for piece in _CODE.finditer(text):
        kind, token = piece.lastgroup, piece[0]
        if kind == "number":
            out.append(_number(token))
        elif kind == "sign":
            out.append(token)
        elif kind == "string":
            out.append("s")
        elif kind == "name":
            name = re.sub(r"\s", "", token)
            called = text[piece.end() : piece.end() + 1] == "(" and name not in own
            out.append(name if keyword.iskeyword(name) or called else "v")
    return out


def _formula(text: str) -> list[str]:
    """Tokens of prose with formulas."""
    if not text.isascii() or not _PLAIN.issuperset(text):
        text = text.translate(_SIGNS)
        if _MARK.search(text):
            text = _EMPHASIS.sub(r"\2", text)
        if "frac" in text:
            for _ in range(8):  # the outermost first
                text, found = _FRACTION.subn(_fraction, text)
                if not found:
                    break
    if _may_be_noisy(text):
        text = _NOISE.sub(" ", text)
    # no piece crosses a blank, and traces repeat their words: each is cut once
    kind: list[str] = []
    token: list[str] = []
    glued: list[bool] = []  # to the piece before it
    signs, letters, brackets = [], [], False  # places of signs and of single letters
    for word in text.split():
        kinds, tokens, joined, own_signs, own_letters, bracketed = _pieces(word)
        if own_signs:
            signs += [len(kind) + i for i in own_signs]
        if own_letters:
            letters += [len(kind) + i for i in own_letters]
        brackets = brackets or bracketed
        kind += kinds
        token += tokens
        glued += joined
    kind.append("")  # after the last and, as [-1], before the first
    token.append("")
    glued.append(False)
    _glued(kind, token, glued, signs)
    _variables(kind, token, glued, letters, signs)
    if brackets:
        _brackets(kind)
    _operators(kind, token, glued, signs)
    return [t for k, t in zip(kind, token, strict=True) if k not in _SILENT]


def _may_be_noisy(text: str) -> bool:
    """False only where `_NOISE` finds nothing: on a short text the pattern costs as much as all the rest."""
    if not text.isascii() or not _NOISY.isdisjoint(text) or _LINE_OR_ORDINAL.search(f"\n{text}"):
        return True
    lower = text.lower()
    return any(word in lower for word in _ITEMS)


_SILENT = frozenset(("word", "dropped", ""))
_Pieces = tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...], tuple[int, ...], tuple[int, ...], bool]


@lru_cache(maxsize=1 << 15)
def _pieces(word: str) -> _Pieces:
    """Kinds and tokens of what stands between two blanks, which of them are glued to the piece before them, the places
    of signs and of single letters, and whether there are brackets."""
    kinds: list[str] = []
    tokens: list[str] = []
    glued: list[bool] = []
    signs, letters, brackets, last = [], [], False, -1
    for piece in _PIECE.finditer(word):
        kind, token = piece.lastgroup or "", piece[0]
        start, end = piece.span()
        if kind == "sign":
            signs.append(len(kinds))
        elif kind == "word":
            if end - start == 1:
                letters.append(len(kinds))
            elif word[end : end + 1] == "(" and _FUNCTIONS.fullmatch(token.lower()):
                kind = "function"
        elif kind == "command":
            token = token[1:]
            if _LAYOUT.fullmatch(token):
                continue
            kind = "function" if _FUNCTIONS.fullmatch(token) else "symbol"
            if token in _COMMANDS:
                token = _COMMANDS[token]
                kind = "symbol" if token == "mod" else "sign"
            if kind == "sign":
                signs.append(len(kinds))
        elif kind == "number":
            if not token.isdecimal() or token[0] == "0":
                token = _number(token)
        else:
            brackets = True
        kinds.append(kind)
        tokens.append(token)
        glued.append(start == last)
        last = end
    return tuple(kinds), tuple(tokens), tuple(glued), tuple(signs), tuple(letters), brackets


def _glued(kind: list[str], token: list[str], glued: list[bool], signs: list[int]) -> None:
    """Drop the signs that hang on a word: well-known, km/h."""
    for i in signs:
        if glued[i] and token[i] in "-/" and kind[i - 1] == "word" and len(token[i - 1]) > 1:
            kind[i] = "dropped"


def _variables(kind: list[str], token: list[str], glued: list[bool], letters: list[int], signs: list[int]) -> None:
    """Single letters beside a sign, glued to a number or a bracket (2x), or the argument of a name (f(x))."""
    for i in letters:
        before, after = kind[i - 1], kind[i + 1]
        if before == after == "number" and token[i] in "xX":
            kind[i], token[i] = "sign", "*"
            signs.append(i)
            continue
        factor = glued[i] and before in ("number", "close")
        argument = before == "open" and glued[i - 1]
        if factor or argument or before == "sign" or after == "sign":
            kind[i] = "variable"


def _brackets(kind: list[str]) -> None:
    """Drop the brackets that hold words, hold nothing, or have no partner."""
    opened: list[int] = []
    clean: list[bool] = []
    for i, name in enumerate(kind):
        if name == "open":
            opened.append(i)
            clean.append(True)
        elif name == "close":
            start = opened.pop() if opened else None
            formula = bool(start is not None and clean.pop() and start < i - 1)
            if not formula:
                kind[i] = "dropped"
                if start is not None:
                    kind[start] = "dropped"
        elif name == "word" and clean:
            clean[-1] = False
    for i in opened:
        kind[i] = "dropped"


def _operators(kind: list[str], token: list[str], glued: list[bool], signs: list[int]) -> None:
    """Keep the signs that stand before an operand; "=" always, %, : and ! in their own places."""
    for i in signs:
        sign = token[i]
        if kind[i] != "sign" or sign in ("=", "!=", "<=", ">="):
            continue
        before, after = kind[i - 1], kind[i + 1]
        if sign == "==":
            token[i] = "="
        elif sign == "**":
            token[i] = "^"
        if sign == "%":
            keep = before == "number"
        elif sign == ":":
            keep = glued[i] and before == after == "number" and glued[i + 1]
        elif sign == "!":
            keep = glued[i] and before in _ENDS and after in ("sign", "close")
        else:
            keep = sign == "==" or after in _STARTS or (after == "sign" and token[i + 1] in "+-")
            keep = keep and (sign not in "<>" or before in _ENDS)
        if not keep:
            kind[i] = "dropped"


_PLAIN = frozenset(" abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,+-/=()\n?;:")


def _fraction(found: re.Match[str]) -> str:
    top, bottom = found[1] or found[2] or "", found[3] or found[4] or ""
    top, bottom = (x if re.fullmatch(r"\s*[\w.]+\s*", x) else f"({x})" for x in (top, bottom))
    return f" {top}/{bottom} "


def _number(token: str) -> str:
    token = token.replace(",", "")
    if "." in token:
        token = token.rstrip("0").rstrip(".")
    return token.lstrip("0") or "0" if "." not in token else token
