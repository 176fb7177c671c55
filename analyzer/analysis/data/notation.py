r"""One spelling for what is written in many: Unicode, LaTeX, markup and words for operators become plain signs.

What computes is on a list (`_SIGNS`, `_COMMANDS`, `_WORDS`); any other command, tag or character is layout and
vanishes, so that a notation unknown here drops out instead of becoming a kind of step. Every rule is linear.
"""

from __future__ import annotations

import html
import re
import unicodedata

_list = str.split
FUNCTIONS = frozenset(
    _list(
        "sqrt sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp min max gcd lcm floor ceil det "
        "lim sum prod int partial nabla"
    )
)
CONSTANTS = frozenset(("pi", "infty"))
_GREEK = {
    **dict(
        zip(_list("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu"), "αβγδεζηθικλμ", strict=True)
    ),
    **dict(zip(_list("nu xi rho sigma tau upsilon phi chi psi omega varphi vartheta"), "νξρστυφχψωφθ", strict=True)),
    **dict(zip(_list("varepsilon Gamma Delta Theta Lambda Sigma Phi Psi Omega"), "εΓΔΘΛΣΦΨΩ", strict=True)),
}
_COMMANDS = {
    **{name: f"\\{name} " for name in FUNCTIONS | CONSTANTS},
    **dict.fromkeys(("times", "cdot", "ast"), " * "),
    **{
        "div": " / ",
        "pm": " ± ",
        "mp": " ± ",
        "iint": "\\int ",
        "oint": "\\int ",
        "tg": "\\tan ",
        "lfloor": "\\floor(",
    },
    **{"rfloor": ")", "lceil": "\\ceil(", "rceil": ")", "bmod": " \\mod ", "mod": " \\mod ", "pmod": " \\mod "},
    **{"cup": " \\cup ", "cap": " \\cap ", "lbrace": " ", "lbrack": "[", "rbrack": "]", "choose": " \\choose "},
    **dict.fromkeys(
        _list("le leq leqslant ge geq geqslant ne neq lt gt ll gg approx equiv sim simeq cong propto"), " = "
    ),
    **dict.fromkeys(_list("to mapsto implies iff rightarrow Rightarrow longrightarrow Longrightarrow"), " = "),
    **dict.fromkeys(_list("Leftrightarrow leftrightarrow Longleftrightarrow coloneqq doteq leadsto"), " = "),
    **dict.fromkeys(_list("left right middle big Big bigl bigr Bigl Bigr bigg Bigg limits nolimits displaystyle"), ""),
    **_GREEK,
}
_SIGNS = {
    **dict.fromkeys("×·∙⋅•✕✖∗⨯", "*"), **dict.fromkeys("÷∕⁄➗", "/"), **dict.fromkeys("−–‐‑‒﹣➖", "-"), "➕": "+",
    **dict.fromkeys("≤≥≠≈≡≅≃∼∝→⇒⟹⟶⟾⇔⟺↔↦⇨➡➔≜≔⩽⩾≦≧", " = "), **{"±": " ± ", "∓": " ± ", "√": " \\sqrt ", "π": "\\pi "},
    **{"∛": " \\sqrt[3]", "∑": " \\sum ", "∏": " \\prod ", "∫": " \\int ", "∞": "\\infty ", "∂": " \\partial "},
    **{"∇": " \\nabla ", "∪": " \\cup ", "∩": " \\cap ", "⌊": " \\floor(", "⌋": ")", "⌈": " \\ceil(", "⌉": ")"},
    **{"。": ". ", "、": ", ", "，": ", ", "；": "; ", "\u20e3": ". "},
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "…": " ", "—": " "},
    **{"\u00a0": "\u00a0", "\u202f": "\u00a0", "\u2009": "\u00a0", "\u2028": "\n", "\u2029": "\n", "\u0085": "\n"},
    **{sign: f"_{digit}" for sign, digit in zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True)},
}  # fmt: skip


class _Characters(dict[int, str]):
    """For str.translate: what each character becomes, found once."""

    def __missing__(self, code: int) -> str:
        self[code] = found = _character(chr(code))
        return found


def _character(sign: str) -> str:
    if sign.isascii() or sign in _SIGNS:
        return _SIGNS.get(sign, sign)
    kind = unicodedata.category(sign)
    if kind == "Nd":
        return str(unicodedata.decimal(sign))
    plain = unicodedata.normalize("NFKC", sign)
    if kind == "No" and "⁄" in plain:  # ⅔
        return f" {plain.replace('⁄', '/')} "
    if kind[0] in "MC":  # joiners, accents of their own, variation selectors
        return ""
    if plain != sign:
        return "".join(_character(s) for s in plain) if sign not in plain else " "
    return sign if kind[0] == "L" else " "


_CHARACTERS = _Characters()
_UP = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_NAMES = "think|thinking|answer|solution|reasoning|tool_call|tool_response|html|body|div|span"
_NAMES += "|pre|code|strong|em|sub|sup|center|font|table|tr|td|th|tbody|thead|ul|ol|li|br|hr|h[1-6]|pad|eos|bos|unk"
_NAMES += "|math|mn|mo|mi|mrow|mtext|mstyle"
_TAG = re.compile(
    rf"</?(?:{_NAMES}|p|b|i|u|s)(?:\s[^<>\n]{{0,200}})?/?>"
    r"|<\|[^|<>\n]{0,80}\|>|<<[^<>\n]{0,200}>>|\[/?INST\]",
    re.I,
)
_RAISED = re.compile(r"<su([pb])>\s{0,9}([-+\w]{1,20})\s{0,9}</su[pb]>", re.I)
_ENTITY = re.compile(r"&(?:[A-Za-z]{2,12}|#[0-9]{1,6}|#x[0-9A-Fa-f]{1,6});")
_ADDRESS = re.compile(r"\bhttps?://\S+|\bwww\.\S+")
_DATE = re.compile(
    r"[0-9](?<![0-9/-][0-9])[0-9]{0,3}(?:-[0-9][0-9]?-[0-9][0-9]?|:[0-9][0-9]:[0-9][0-9]|/[0-9][0-9]?/[0-9]{4})(?![\w/-])"
)
_ARROW = re.compile(r"(?<![-=])[-=]+>|<[-=]+>")
_GROUP = r"\s*(?:\{((?:[^{}]|\{[^{}]*\})*)\}|(\d))"
_FRACTION = re.compile(r"\\((?:[dtcsx]|nice)?frac|[dt]?binom)" + _GROUP + _GROUP)
_OVER = re.compile(r"\{([^{}\\]*)\\over\b([^{}]*)\}")
_PRIME = re.compile(r"\^\s*\{\s*(?:\\prime\s*){1,3}\}|\^?\s*\\prime\b")
_LOGARITHM = re.compile(  # to any base
    r"(?<![A-Za-z])(?:\\log\s?_\s?(?:\{[^{}]{0,40}\}|\w)|\\?log(?:_(?:\{[^{}]{0,40}\}|\w{1,9})|(?:2|10)(?=\()))"
)
_POWERED = re.compile(  # sin^2 x
    r"([\d)][^\S\n]?)?(?<![A-Za-z])\\?(sin|cos|tan|cot|sec|csc|sinh|cosh|tanh|log|ln)\s?\^\s?(?:\{\s?(-?\d{1,2})\s?\}|(-?\d))"
)
_CHOICE = re.compile(r"(?<!\w)C\(\s?(\d{1,4}|[nmkr])\s?,\s?(\d{1,4}|[nmkr])\s?\)")  # C(6, 2)
_CHOICES = re.compile(  # 6C2
    r"(?:\{\}\s?)?(?:[_^]\{?(\d{1,3}|n)\}?C_?\{?(\d{1,3}|[rk])\}?|(?<![\w.])(\d{1,3}|n)C(\d{1,3}|[rk]))(?!\w)"
)
_SHARE = re.compile(  # 3/4 of 8
    r"((?<![\d.,])\d[\d.,]*\s?(?:%|per\s?cent\b)|(?<![\d./])\d+\s?/\s?\d+)\s+of\s+(?:(?:the|these|those|all|his|her|their|its)\s+)?"
    r"(?=[$€£(]?\d)",
    re.I,
)
_BARE = re.compile(  # commands whose arguments are no content
    r"\\(?:begin|end)\s*\{[^{}]*\}(?:\[[^][]*\])?(?:\{[clr|@ ]*\})?"
    r"|\\(?:label|tag|color|textcolor|colorbox|[hv]space|[hv]phantom|phantom|(?:eq)?ref|cite|url|href|fontsize|rule)"
    r"\*?\s*(?:\[[^][]*\])?\{[^{}]*\}"
)
_TEXT = re.compile(
    r"\\(?:text|mathrm|textrm|textsf|mbox|operatorname|textnormal)\*?\s*\{([^{}]*)\}(\s*\^\s*\{?-?\d\}?)?"
)
_LIMITS = re.compile(r"(\\(?:sum|prod|i?int|oint|lim))\s*(?:\\limits)?((?:\s*[_^]\s*(?:\{[^{}]*\}|\\?\w+?\b|\w)){1,2})")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)\b)")
_BREAK = re.compile(r"\\\\(?:\[\d[^][]*\])?")
_ESCAPED = re.compile(r"\\([^A-Za-z\s]|(?=\s))")
_COMMAND = re.compile(r"\\([A-Za-z]+)\*?")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\ |\u00a0)(?=\d{3}(?!\d))")
_UNIT = re.compile(
    r"([0-9])(?:(?: *[A-Za-z]{2,}| +[mshgLl])(?:/[A-Za-z]+)?\^\{?-?[23]\}?(?!\w)| +[mshgLl](?:/[A-Za-z]+)?(?![\w(]))"
)
_WORDS = {
    "plus": "+",
    "minus": "-",
    "times": "*",
    "multiplied by": "*",
    "added to": "+",
    "subtracted from": "-",
    "divided by": "/",
    "mod": "\\mod",
}
_WORDS |= {"to the power of": "^", "to the power": "^", "modulo": "\\mod", "choose": "\\choose"}
_WORDS |= {"squared": "^2", "cubed": "^3", "factorial": "\\factorial", "root of": "\\sqrt"}
_WORDS |= {"mal": "*", "multipliziert mit": "*", "fois": "*", "vezes": "*", "por": "*", "умножить на": "*"}
_WORDS |= {"geteilt durch": "/", "dividiert durch": "/", "divisé par": "/", "dividido por": "/", "dividido entre": "/"}
_WORDS |= {"разделить на": "/", "moins": "-", "menos": "-", "más": "+", "mais": "+", "плюс": "+", "минус": "-"}
_FIRST = ("plus", "minus", "times", "divided", "multiplied", "power", "squared", "cubed", "mod", "choose", "factorial")
_FIRST += ("root of", "added to", "subtracted", "mal", "multipliziert", "fois", "vezes", "por", "умножить", "geteilt")
_FIRST += ("dividi", "divisé", "разделить", "moins", "menos", "más", "mais", "плюс", "минус")
_HAN = re.compile(r"(?<=[\d)])\s?[\u4e00-\u9fff]?(乘以?|除以|加上?|减去?)\s?(?=[\d(])")
_HAN_SIGNS = {"乘": "*", "除": "/", "加": "+", "减": "-"}
_ALL = sorted((cased for word in _WORDS for cased in (word, word.upper())), key=len, reverse=True)
_SPOKEN = re.compile("|".join(_ALL))
_LEFT = re.compile(r"(?:[\d)}!%]|\b[b-hj-zB-HJ-Z])(?:[^\S\n]+[a-z]{1,12})?[^\S\n]+(?:raised[^\S\n]+)?\Z")
_OPERAND = re.compile(r"(?:[\d)}]|\b[b-hj-zB-HJ-Z])[^\S\n]+\Z")
_RIGHT = re.compile(r"[^\S\n]+(?:[-+]?[\d({\\]|[-+]?\.\d|[b-hj-zB-HJ-Z]\b)")
_ORDINAL = re.compile(r"[0-9](?<![0-9][0-9])[0-9]*(?:st|nd|rd|th|'s)\b", re.I)
_ITEMS = (
    "step",
    "case",
    "part",
    "example",
    "method",
    "approach",
    "attempt",
    "option",
    "schritt",
    "étape",
    "paso",
    "шаг",
)
_ITEM = re.compile(rf"(?i:\b(?:{'|'.join(_ITEMS)}))\s+#?\d+(?:\s?(?:/|of)\s?\d+)?\s*[:.)]")
_HAN_ITEM = re.compile(r"第\s?\d+\s?步|步骤\s?\d+")
_MARK = re.compile(r"[*_][^\s*]")  # in every match of _EMPHASIS
_EMPHASIS = re.compile(r"(?<![\w)\]*])(\*\*|__|\*)(?=[^\s*])([^*\n]{1,200}?)(?<=[^\s*])\1(?![\w(*])")
_MODULUS = re.compile(r"\(\s*(?:\\mod|mod|modulo)\s+([^()\n]{1,40})\)")
_SEAM = re.compile(r"(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])(?=[A-Za-z])")  # no blank before a name there


def plain(text: str) -> str:
    """The text with one spelling for every sign: + - * / ^ = ± and \\mod, \\sqrt ...; all relations are "=".

    Letters, digits, brackets and line breaks stay; tags, addresses, dates, layout and unknown symbols become blanks.
    """
    if not text.isascii():
        text = _SUPERSCRIPT.sub(_raised, text).translate(_CHARACTERS)
        text = _SEAM.sub(" ", _HAN_ITEM.sub(" ", text) if "步" in text else text)
        text = _HAN.sub(lambda found: f" {_HAN_SIGNS[found[1][0]]} ", text)
    if "<" in text or "&" in text or "[" in text:
        text = _RAISED.sub(lambda found: f"{'^' if found[1] in 'pP' else '_'}{{{found[2]}}}", text)
        text = _TAG.sub(" ", text)
        text = _ENTITY.sub(lambda found: html.unescape(found[0]).translate(_CHARACTERS), text) if "&" in text else text
    if _MARK.search(text):
        text = _EMPHASIS.sub(r"\2", text)
    text = _ORDINAL.sub(" ", _DATE.sub(" ", text))
    lower = text.lower()
    if any(word in lower for word in _ITEMS):
        text = _ITEM.sub(" ", text)
    if "://" in text or "www." in text:
        text = _ADDRESS.sub(" ", text)
    text = _ARROW.sub(" = ", text) if ">" in text else text
    text = _named(text)
    if "{" in text or "\\" in text or "\u00a0" in text:
        text = _latex(text)
    for sign in "$`&|~":
        text = text.replace(sign, " ")
    if any(word in lower for word in _FIRST):
        text = _MODULUS.sub(r" \\mod \1 ", _SPOKEN.sub(_spoken, text))
    text = _SHARE.sub(r"\1 * ", text) if " of " in lower else text
    return _UNIT.sub(r"\1 ", text)


def _raised(found: re.Match[str]) -> str:
    digits = found[0].translate(_UP)
    return f"^{digits}" if len(digits) == 1 else f"^{{{digits}}}"


def _named(text: str) -> str:
    """Functions that have signs of their own: logarithms to a base, powers of sines, choices."""
    if "log" in text:
        text = _LOGARITHM.sub(r"\\log ", text)
    if "^" in text:
        text = _POWERED.sub(_powered, text)
    if "C" in text:
        text = text if "B(" in text else _CHOICE.sub(r" \1 \\choose \2 ", text)  # a point named after B(1, 2)
        text = _CHOICES.sub(lambda x: f" {x[1] or x[3]} \\choose {x[2] or x[4]} ", text)
    return text


def _powered(found: re.Match[str]) -> str:
    before, name, power = found[1] or "", found[2], found[3] or found[4]
    if power == "-1" and name in ("sin", "cos", "tan"):
        return f"{before} \\arc{name} "
    return f"{before}{' * ' * bool(before)} {power}^\\{name} "


def _spoken(found: re.Match[str]) -> str:
    """A word for an operator is one between operands, with at most a word for a unit before it."""
    text, word = found.string, found[0].lower()
    start, end = found.span()
    if word in ("squared", "cubed", "factorial"):
        known = _OPERAND.search(text, max(start - 24, 0), start)
    elif word == "root of":
        known = _RIGHT.match(text, end)
    else:
        known = _RIGHT.match(text, end) and _LEFT.search(text, max(start - 24, 0), start)
    return f" {_WORDS[word]} " if known else found[0]


def _latex(text: str) -> str:
    text = _THOUSANDS.sub("", text)
    if "\\" not in text:
        return text
    text = _BREAK.sub("\n", _BARE.sub(" ", _DEGREE.sub("", text)))
    text = _PRIME.sub("'", text) if "prime" in text else text
    text = _OVER.sub(r"\\frac{\1}{\2}", text) if "\\over" in text else text
    text = _TEXT.sub(_worded, text)
    text = _LIMITS.sub(lambda found: f"{found[1]} {re.sub(r'[_^{}=]', ' ', found[2])} ", text)
    if "frac" in text or "binom" in text:
        for _ in range(8):  # the outermost first
            text, found = _FRACTION.subn(_fraction, text)
            if not found:
                break
    text = _ESCAPED.sub(lambda found: "%" if found[1] == "%" else " ", text)
    return _COMMAND.sub(lambda found: _COMMANDS.get(found[1], " "), text)


def _worded(found: re.Match[str]) -> str:
    """Words in a formula: gone with their exponent, but for numbers, signs and names of functions."""
    inside = found[1].strip()
    if inside in FUNCTIONS:
        return f"\\{inside} "
    if "of" in inside.split():
        return f" {inside} "
    return f" {inside} {found[2] or ''}" if any(s.isdigit() or s in "+=*/" for s in inside) else " "


def _fraction(found: re.Match[str]) -> str:
    top, bottom = found[2] or found[3] or "", found[4] or found[5] or ""
    top, bottom = (x if re.fullmatch(r"\s*[\w.]+\s*", x) else f"({x})" for x in (top, bottom))
    sign = "/" if "frac" in found[1] else "\\choose "
    return f" {top}{sign}{bottom} "
