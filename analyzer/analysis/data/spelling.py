r"""One spelling for an answer that can be written in many: 1/2, .5 and \frac{1}{2} are one, and so are (B) and B.

By rules alone: numbers become fractions, layout vanishes, case does not count. What the rules do not know stays as it
is, so that two spellings may stay two answers; that two answers become one takes units: 12 cm, 12 % and 12 are one.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

_WRAPPED = re.compile(
    r"\\(?:boxed|text|textbf|mathrm|mathbf)\s?\{(.*)\}|\$+(.*?)\$+|\\\((.*)\\\)|\\\[(.*)\\\]|\*\*(.*)\*\*|\{(.*)\}|\"(.*)\"",
    re.S,
)
_FRACTION = re.compile(r"\\[dt]?frac\s?(?:\{\s?(-?\d+)\s?\}|(\d))\s?(?:\{\s?(\d+)\s?\}|(\d))")
_UNIT = re.compile(r"(?<=\d)(?:\s|\\[,; ])*(?:\\(?:text|mathrm)\s?\{[^{}\d]*\}|\\?%|°|\^\{?\s?\\circ\s?\}?)$")
_LAYOUT = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:! ]")
_NUMBER = re.compile(r"([-+]?)\s?\\?[$€£]?\s?([-+]?)(\d{1,3}(?:,\d{3})+|\d{0,40})(\.\d{1,40})?(?:\s?/\s?(\d{1,40}))?")
_WORDED = re.compile(  # words, or a letter and "="; a number, perhaps with a currency; words
    r"(?:[^\W\d_]{2,}[\s:,']{1,3}|[^\W\d_]\s?=\s?|[^\W\d_]{2,}\s?=\s?){0,12}\*{0,2}"
    r"([-+]?\s?\\?[$€£]?\s?[\d,]{0,40}\d(?:\.\d{1,40})?(?:\s?/\s?\d{1,40})?)\*{0,2}"
    r"(?:[\s,.:/(-]{1,3}[^\W\d_]{1,40}[).']?){0,12}"
)
_NEGATED = re.compile(r"\b(?:not|minus|negative|no|less|more)\b", re.I)
_OPTION = re.compile(r"\(?([A-Za-z])[).:]?")
_SIGNS = str.maketrans({"−": "-", "–": "-", "⁄": "/", "“": '"', "”": '"'})


@lru_cache(1 << 14)  # a problem's draws give the same few answers
def spelling(answer: str) -> str:
    """The answer in one spelling: a number as a fraction in lowest terms, an option as its letter, else the text in
    lower case without blanks around signs and without layout."""
    text = unicodedata.normalize("NFKC", answer).translate(_SIGNS)
    while True:
        text = text.strip().removesuffix(".").rstrip()
        wrapped = _WRAPPED.fullmatch(text)
        inside = next((x for x in wrapped.groups() if x is not None), "") if wrapped else ""
        if not inside or "{" in inside and not _closed(inside) or "$" in inside[1:]:
            break
        text = inside
    text = _FRACTION.sub(lambda f: f"{f[1] or f[2]}/{f[3] or f[4]}", _UNIT.sub("", text.replace("{,}", ",")))
    if value := _value(text):
        return value
    if option := _OPTION.fullmatch(text):
        return option[1].lower()
    return re.sub(r"\s?([^\w\s])\s?", r"\1", " ".join(_LAYOUT.sub(" ", text).casefold().split()))


@lru_cache(1 << 14)
def amount(answer: str) -> str:
    """The number of an answer that is one number and words around it ("12 apples", "x = 12", "about $12 each"), as
    `spelling` writes it; "" for any other answer. "12 kg" and "12 miles" are one: for who asks whether an answer that
    counts as wrong may be meant as the right one."""
    text = unicodedata.normalize("NFKC", answer).translate(_SIGNS).replace("{,}", ",").strip().removesuffix(".")
    worded = _WORDED.fullmatch(_UNIT.sub("", text))
    return _value(worded[1]) if worded and not _NEGATED.search(text) else ""


def _value(text: str) -> str:
    """The number that the whole text is, as a fraction; "" for any other text."""
    found = _NUMBER.fullmatch(text)
    if not found or not (found[3] or found[4]) or (found[1] and found[2]) or (found[5] and not found[5].strip("0")):
        return ""
    whole = Fraction((found[3].replace(",", "") or "0") + (found[4] or "")) / int(found[5] or 1)
    return str(-whole if "-" in (found[1], found[2]) else whole)


def _closed(text: str) -> bool:
    """Whether every brace has its partner within the text."""
    depth = 0
    for sign in text:
        depth += (sign == "{") - (sign == "}")
        if depth < 0:
            return False
    return depth == 0
