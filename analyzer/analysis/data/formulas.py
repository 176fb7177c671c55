"""The expressions of a text in plain spelling (`notation.plain`): which letters are variables, which signs operators.

A regular expression cuts the text into pieces; a few rules of neighbourhood do the rest. Nothing is evaluated.
Relations (=, <, "gives") compute nothing: they part expressions and vanish, and so do names of results (x = ...),
brackets around one number, signs of a number (-3), percent signs and units. A product without a sign, 3(4) or 2x, has
its sign.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from analyzer.analysis.data.notation import CONSTANTS, FUNCTIONS

_PIECE = re.compile(
    r"(?P<number>(?<!\d)(?<!\d,)(?<!\[)\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d|,\d)|\d+(?:\.\d+)?(?:[eE][-+]?\d+(?![\w.]))?|(?<![\w.)])\.\d+)"
    r"|(?P<command>\\[A-Za-z]+)|(?P<index>(?<![^\W_])[^\W\d_](?:_\{[^{}]*\}|_\w+|\d+)(?![\w(]))|(?P<word>[^\W\d_]+(?:['_]\w+)*)|(?P<relation>[<>!=:]=+|[=<>])"
    r"|(?P<sign>\*\*|//|[-+*/^±%!:])|(?P<open>[(\[])|(?P<close>[)\]])|(?P<brace>[{}])|(?P<stop>[,;])"
)
_BULLET = re.compile(
    r"(?m)^[ \t]*(?:(?:\d{1,2}(?:\.\d{1,2}){0,3}[.)]|\([a-z\d]\)(?![ \t]*(?:[*/^=+]|-[ \t]*[\d(]))|[-*+#>]+)"
    r"(?:[ \t]+|$))+"
)
_SPOKEN = frozenset(("sqrt", "sin", "cos", "tan", "log", "ln", "gcd", "lcm"))  # functions also without a bracket
_INFIX = frozenset(("\\mod", "\\choose", "\\cup", "\\cap"))
_VERBS = frozenset(("is", "equals", "gives", "makes", "ways"))  # 5! is 120
_ENDS = frozenset(("number", "variable", "close", "factorial"))
_STARTS = frozenset(("number", "variable", "open", "function"))


class Expression(NamedTuple):
    """Tokens of one expression; computes: it holds an operator or function; linked: a relation stands before."""

    tokens: tuple[str, ...]
    computes: bool
    linked: bool


_Pieces = tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...], int]


class _Row:
    """Pieces in order: kind, token and whether each is glued to the one before; both ends have an empty kind."""

    def __init__(self, words: list[_Pieces], marks: int) -> None:
        self.kind = ["", *chain.from_iterable([w[0] for w in words]), ""]
        self.token = ["", *chain.from_iterable([w[1] for w in words]), ""]
        self.glued = [False, *chain.from_iterable([w[2] for w in words]), False]
        self.marks = marks

    def keep(self, wanted: list[bool]) -> None:
        """Drop the other pieces; what was glued to one of them no longer is."""
        places = [i for i, w in enumerate(wanted) if w]
        self.glued = [self.glued[i] and wanted[i - 1] for i in places]
        self.kind, self.token = [self.kind[i] for i in places], [self.token[i] for i in places]


_SIGNS, _LETTERS, _BRACKETS, _BRACES, _NUMBERS, _PRODUCT = 1, 2, 4, 8, 16, 32


@lru_cache(maxsize=1 << 15)
def _pieces(word: str) -> _Pieces:
    """Kinds and tokens of what stands between two blanks, which are glued to the piece before, and what there is."""
    kinds: list[str] = []
    tokens: list[str] = []
    glued: list[bool] = []
    marks, last = 0, -1
    for piece in _PIECE.finditer(word):
        kind, token = piece.lastgroup or "", piece[0]
        if kind == "index":
            kind, token = "letter", token[0]
        elif kind == "word":
            name = token.lower()
            if len(token) == 1 and name != token.upper():
                kind = "letter"
            elif name in _SPOKEN or (name in FUNCTIONS and word[piece.end() : piece.end() + 1] == "("):
                kind, token = "function", name
            elif name in CONSTANTS:
                kind, token = "constant", name
        elif token == "\\factorial":
            kind, token, marks = "factorial", "!", marks | _SIGNS
        elif kind == "command":
            kind = "sign" if token in _INFIX else "constant" if token[1:] in CONSTANTS else "function"
            token = token[1:]
        elif kind == "number":
            marks |= _NUMBERS
            if not token.isdecimal() or token[0] == "0":
                token = number(token)
        elif kind == "sign":
            token = {"**": "^", "±": "+-"}.get(token, token)
        elif kind in ("open", "close"):
            token, marks = "(" if kind == "open" else ")", marks | _BRACKETS
        elif kind == "brace":
            marks |= _BRACES
        if kind in ("sign", "relation", "function", "constant"):
            marks |= _SIGNS
        if kind in ("letter", "constant") or (kind == "sign" and kinds and kinds[-1] == "word"):
            marks |= _LETTERS
        kinds.append(kind)
        tokens.append(token)
        glued.append(piece.start() == last)
        last = piece.end()
    if any(glued) and (marks & _BRACKETS or (marks & _NUMBERS and marks & _LETTERS)):
        marks |= _PRODUCT
    return tuple(kinds), tuple(tokens), tuple(glued), marks


def expressions(text: str) -> list[Expression]:
    """The expressions of a piece of text in order; a lone number before its formula goes behind it."""
    if "\n" in text:
        text = _BULLET.sub(" ", text)
    elif found := _BULLET.match(text):
        text = text[found.end() :]
    words, marks = [_pieces(word) for word in text.split()], 0
    for word in words:
        marks |= word[3]
    if not marks & (_SIGNS | _PRODUCT):  # prose with numbers at most: most steps
        return [Expression((t,), False, False) for w in words if w[3] for k, t in zip(*w[:2]) if k == "number"]
    row = _Row(words, marks)
    if row.marks & _BRACES:
        _braces(row)
    if row.marks & _LETTERS:
        _variables(row)
    if row.marks & _BRACKETS:
        _brackets(row)
    _operators(row)
    return _parted(row)


def _braces(row: _Row) -> None:
    """Braces after ^ or a function are brackets, all others layout."""
    wanted, opened = [True] * len(row.kind), []
    for i, kind in enumerate(row.kind):
        if kind != "brace":
            continue
        if row.token[i] == "{":
            opened.append(row.kind[i - 1] == "function" or row.token[i - 1] == "^")
        bracket = opened[-1] if opened else False
        if row.token[i] == "}" and opened:
            opened.pop()
        if bracket:
            row.kind[i], row.token[i] = ("open", "(") if row.token[i] == "{" else ("close", ")")
            row.marks |= _BRACKETS
        wanted[i] = bracket
    row.keep(wanted)


def _variables(row: _Row) -> None:
    """Single letters beside a sign or relation, glued to a number or bracket (2x), or the argument of a name."""
    kind, token, glued = row.kind, row.token, row.glued
    for i, token_i in enumerate(token):
        if kind[i] == "constant":
            kind[i] = "variable"
        elif kind[i] == "letter":
            before, after = kind[i - 1], kind[i + 1]
            counted = before == "number" or (before == "word" and kind[i - 2] == "number")  # 6 boxes x 7
            if counted and after == "number" and token_i in "xX":
                kind[i], token[i] = "sign", "*"
            elif glued[i] and before == "dropped":
                kind[i] = "word"  # km/h
            elif (
                (before in ("sign", "relation") and token[i - 1] not in "%!:")
                or ((before == "function" or token[i - 1] in CONSTANTS) and token_i not in "aAI")
                or (after in ("sign", "relation") and token[i + 1] not in "%!:")
                or (glued[i] and before in ("number", "close", "open"))
            ):
                kind[i] = "variable"
            else:
                kind[i] = "word"
        elif (
            kind[i] == "sign" and token_i in ("-", "/") and glued[i] and kind[i - 1] == "word" and len(token[i - 1]) > 1
        ):
            kind[i] = "dropped"  # well-known, km/h


def _brackets(row: _Row) -> None:
    """Drop the brackets that hold words or no operation, or have no partner; a product by a bracket gets its sign."""
    kind, opened, wanted = row.kind, [], [True] * len(row.kind)
    clean: list[bool] = []
    busy: list[bool] = []
    times = []
    for i, name in enumerate(kind):
        if name == "open":
            opened.append(i)
            clean.append(True)
            busy.append(False)
            continue
        if name == "close":
            wanted[i] = False
            if opened:
                start = opened.pop()
                formula, computes = clean.pop() and start < i - 1, busy.pop()
                wanted[start] = wanted[i] = formula and computes
                if busy and computes:
                    busy[-1] = True
                of = row.glued[start] and kind[start - 1] in ("number", "close")
                if formula and (of or row.token[start - 1] in CONSTANTS):
                    times.append(start)
        elif name in ("word", "relation") and clean:
            clean[-1] = False
        elif name in ("sign", "function") and busy:
            plain = row.token[i] in ("%", ":") or (row.token[i] in ("+", "-", "+-") and kind[i - 1] in ("open", "sign"))
            busy[-1] |= name == "function" or not plain
    for i in opened:
        wanted[i] = False
    for i, keep in enumerate(wanted):
        if not keep:
            kind[i] = "times" if i in times else "dropped"
        elif i in times:
            row.token[i] = "* ("
    if not all(wanted):
        row.keep([k != "dropped" for k in kind])


def _operators(row: _Row) -> None:
    """Keep the signs that stand between operands; %, : and ! in their own places; the sign of a number is none."""
    kind, token, glued = row.kind, row.token, row.glued
    places = [i for i, k in enumerate(kind) if k in ("sign", "function")]
    for i in reversed(places):  # what follows is decided
        sign, before, after = token[i], kind[i - 1], kind[i + 1]
        if kind[i] == "function" and after not in _STARTS and after not in ("unary", "times"):
            kind[i] = "dropped"  # a log of wood
        if kind[i] != "sign":
            continue
        if sign == "%":
            keep = before in _ENDS and after in _STARTS and (glued[i + 1] or not glued[i])
            token[i] = "mod"
        elif sign == ":":
            keep = before == after == "number" and kind[i + 2 : i + 3] == ["relation"]
            token[i] = "/"
        elif sign == "!":
            keep = glued[i] and before in _ENDS
            keep &= after in ("sign", "relation", "close", "times", "unary") or token[i + 1] in _VERBS
        elif sign in ("+", "-", "+-"):
            keep = after in _STARTS or after in ("unary", "sign")
            unary = before in ("", "relation", "open", "function", "times")
            unary |= before == "sign" and token[i - 1] not in ("%", "!")
            unary |= before not in _ENDS and glued[i + 1] and not glued[i]
            if unary or not keep:
                kind[i] = "unary" if keep else "dropped"
                continue
        else:
            keep = (after in _STARTS or after == "unary") and before not in ("", "relation", "open", "times")
        kind[i] = ("factorial" if sign == "!" else "sign") if keep else "dropped"


_SILENT = frozenset(("word", "dropped", "unary", "stop", ""))


def _parted(row: _Row) -> list[Expression]:
    out: list[Expression] = []
    tokens: list[str] = []
    computes = linked = times = False
    depth, last, before = 0, "", ""
    for kind, token, glued in zip(row.kind, row.token, row.glued, strict=True):
        beside, before = before not in _SILENT, kind
        if kind in _SILENT:
            continue
        if kind == "times":
            times = True
            continue
        if kind == "relation":
            _ended(out, tokens, computes, linked)
            tokens, computes, linked, depth = [], False, True, 0
            continue
        if kind in _STARTS and tokens and last in _ENDS:
            product = times or token == "* (" or (glued and kind in ("variable", "function"))
            if product or (beside and _multiple(kind, token, tokens[-1])):
                tokens.append("*")
                computes = True
            elif not depth:
                _ended(out, tokens, computes, linked)
                tokens, computes, linked = [], False, False
        times = False
        tokens.append("(" if token == "* (" else token)
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
        elif kind not in ("number", "variable"):
            computes = True
        last = kind
    _ended(out, tokens, computes, linked)
    return _named_last(out) if len(out) > 1 else out


def _multiple(kind: str, token: str, before: str) -> bool:
    """Whether what stands beside is multiplied without a sign: 2 sin x, 2 \\pi r."""
    return kind == "function" or token in CONSTANTS or (kind == "variable" and before in CONSTANTS)


def _ended(out: list[Expression], tokens: list[str], computes: bool, linked: bool) -> None:
    """The expression goes to `out`, but for a lone letter, which names a result as words do."""
    if computes:
        tokens = _bared(tokens) if tokens[0] == "(" else tokens
        out.append(Expression(tuple(_lean(tokens) if "(" in tokens else tokens), True, linked))
    elif tokens and (len(tokens) > 1 or tokens[0][0].isdigit() or tokens[0] in CONSTANTS):
        out.append(Expression(tuple(tokens), False, linked))


def _bared(tokens: list[str]) -> list[str]:
    """Without brackets around the whole."""
    depth = 0
    for i, token in enumerate(tokens if tokens[-1] == ")" else ()):
        depth += (token == "(") - (token == ")")
        if depth == 0:
            inside = tokens[1:-1]
            return tokens if i < len(tokens) - 1 or i < 2 else _bared(inside) if inside[0] == "(" else inside
    return tokens


_SUMS = frozenset(("+", "-", "+-"))
_BEFORE, _AFTER = _SUMS | {"("}, _SUMS | {")"}
_LOOSE = _SUMS | {"mod", "choose", "cup", "cap"}


def _lean(tokens: list[str]) -> list[str]:
    """Without the brackets that change nothing: a product or power within a sum."""
    dropped: set[int] = set()
    opened: list[int] = []
    loose: list[bool] = []
    for i, token in enumerate(tokens):
        if token == "(":
            opened.append(i)
            loose.append(False)
        elif token == ")" and opened:
            start, held = opened.pop(), loose.pop()
            before, after = tokens[start - 1] if start else "+", tokens[i + 1] if i + 1 < len(tokens) else "+"
            if not held and before in _BEFORE and after in _AFTER:
                dropped |= {start, i}
        elif token in _LOOSE and loose:
            loose[-1] = True
    return [token for i, token in enumerate(tokens) if i not in dropped] if dropped else tokens


def _named_last(found: list[Expression]) -> list[Expression]:
    """7 = 3 + 4 is 3 + 4 = 7."""
    for i in range(len(found) - 1):
        head, body = found[i], found[i + 1]
        if not head.computes and not head.linked and body.computes and body.linked:
            found[i], found[i + 1] = body._replace(linked=False), head._replace(linked=True)
    return found


def number(token: str) -> str:
    """One spelling of a number: 1,000 is 1000, 3.50 is 3.5, .5 is 0.5."""
    token = token.replace(",", "")
    if "e" in token.lower():
        return token.lower()
    if "." in token:
        token = token.rstrip("0").rstrip(".")
        return f"0{token}" if token[:1] in (".", "") else token
    return token.lstrip("0") or "0"
