"""Notation is no method: texts that compute the same and are written differently have one skeleton and kinds."""

from __future__ import annotations

import pytest
from growth import growth
from hypothesis import given, settings
from hypothesis import strategies as st

from analyzer.analysis.data import notation, steps

ALIKE = {
    # signs
    "times sign": ("6 * 7 = 42", "6 × 7 = 42"),
    "dot": ("6 * 7 = 42", r"$6 \cdot 7 = 42$"),
    "letter x": ("6 * 7 = 42", "6 x 7 = 42"),
    "tight": ("6 * 7 = 42", "6*7=42"),
    "product by brackets": ("6 * 7 = 42", "6(7) = 42"),
    "two brackets": ("6 * 7 = 42", r"$\left(6\right)\left(7\right) = 42$"),
    "coefficient": ("5 * y = 20", "5y = 20"),
    "full width": ("15 - 6 = 9", "１５－６＝９"),
    "other digits": ("15 - 6 = 9", "١٥ - ٦ = ٩"),
    "minus sign": ("15 - 6 = 9", "15 − 6 = 9"),
    "no-break blanks": ("15 - 6 = 9", "15\u00a0-\u00a06\u00a0=\u00a09"),
    "colon": ("18 / 3 = 6", "18 : 3 = 6"),
    "fraction": ("2/5 * 10 = 4", r"$\frac{2}{5} \times 10 = 4$"),
    "one sign": ("3/4 * 8 = 6", "¾ × 8 = 6"),
    "short fraction": ("3/4 * 8 = 6", r"$\frac34 \cdot 8 = 6$"),
    "fraction in one": ("(3/4)/2 = 3/8", r"$\dfrac{\dfrac{3}{4}}{2} = \dfrac{3}{8}$"),
    "power": ("4^2 = 16", "4² = 16"),
    "long power": ("2^10 = 1024", r"$2^{10} = 1024$"),
    "root": ("sqrt(25) = 5", r"$\sqrt{25} = 5$"),
    "root sign": ("√(9 + 16) = 5", r"$\sqrt{9 + 16} = 5$"),
    "plus or minus": ("y = ±4", r"$y = \pm 4$"),
    "both": ("6 ± 1", r"$6 \pm 1$"),
    "remainder": ("19 mod 4 = 3", "19 % 4 = 3"),
    "congruent": ("19 ≡ 3 (mod 4)", r"$19 \equiv 3 \pmod{4}$"),
    "choose": (r"$\binom{6}{2} = 15$", "6 choose 2 = 15"),
    "sum": (r"∑_{i=1}^{4} i = 10", r"$\sum_{i=1}^{4} i = 10$"),
    "greek": ("cos(θ) = 1/2", r"$\cos(\theta) = \frac{1}{2}$"),
    "sine of": ("sin 45 = 0.7", r"$\sin 45 = 0.7$"),
    "infinity": ("y < ∞", r"$y < \infty$"),
    "circle": ("2 * π * 3", r"$2\pi \cdot 3$"),
    "dots": ("2 + 4 + ... + 8 = 20", r"$2 + 4 + \cdots + 8 = 20$"),
    "absolute value": ("|4 - 9| = 5", r"$\left\lvert 4 - 9 \right\rvert = 5$"),
    "index": ("a_1 - a_2 = 6", r"$a_{1} - a_{2} = 6$"),
    "index below": ("a1 - a2 = 6", "a₁ - a₂ = 6"),
    "negative": ("the change is -6", "the change is negative 6"),
    "brackets that begin a line": ("6 * 7 = 42", "(6) * (7) = 42"),
    "the same in LaTeX": ("6 * 7 = 42", r"$(6) \times (7) = 42$"),
    "brackets without need": ("6 * 7 + 2 = 44", "(6 * 7) + 2 = 44"),
    "brackets around a power": ("3 - 4^2 / 8 = 1", r"$3 - \left(4^2 / 8\right) = 1$"),
    "over": ("18 / 3 = 6", r"${18 \over 3} = 6$"),
    "small fraction": ("18 / 3 = 6", r"$\nicefrac{18}{3} = 6$"),
    "powers of two digits": ("10^23", "10²³"),
    "logarithm to a base": ("log 8 = 3", "log_2(8) = 3"),
    "the same, LaTeX": ("log 8 = 3", r"$\log_{2} 8 = 3$"),
    "the same, tight": ("log 8 = 3", "log2(8) = 3"),
    "sine squared": (r"$\sin^2 x + \cos^2 x = 1$", "sin²(x) + cos²(x) = 1"),
    "sine squared, tight": (r"$\sin^{2} x = 1$", "sin²x = 1"),
    "inverse sine": ("arcsin(1) = 90", r"$\sin^{-1}(1) = 90$"),
    "choose, as a function": ("6 choose 2 = 15", "C(6, 2) = 15"),
    "choose, in one": ("6 choose 2 = 15", "6C2 = 15"),
    "choose, raised": ("6 choose 2 = 15", r"${}^{6}C_{2} = 15$"),
    "derivative": ("f'(x) = 2x", r"$f^{\prime}(x) = 2x$"),
    "circle, all signs": ("A = π * r^2", "A = πr²"),
    "circle, LaTeX": ("A = 2 * π * r", r"$A = 2 \pi r$"),
    "multiple of a root": ("2 * sqrt(3)", r"$2\sqrt{3}$"),
    "multiple of a root, sign": ("2 * sqrt(3)", "2√3"),
    # relations
    "equals": ("15 - 6 = 9", "15 - 6 equals 9"),
    "gives": ("15 - 6 = 9", "15 - 6 gives us 9"),
    "arrow": ("15 - 6 = 9", "15 - 6 → 9"),
    "typed arrow": ("15 - 6 = 9", "15 - 6 => 9"),
    "about": ("10 / 3 = 3.3", r"$10 / 3 \approx 3.3$"),
    "about, sign": ("10 / 3 = 3.3", "10 / 3 ≈ 3.3"),
    "at least": ("y >= 4", r"$y \geqslant 4$"),
    "therefore": ("5 + 3 = 8, 8 - 1 = 7", r"$5 + 3 = 8 \Rightarrow 8 - 1 = 7$"),
    "result first": ("15 - 6 = 9", "9 = 15 - 6"),
    "named": ("15 - 6 = 9", "rest = 15 - 6 = 9"),
    "letter for a name": ("r = 15 - 6 = 9", "rest = 15 - 6 = 9"),
    # words
    "plus": ("8 + 5 = 13", "8 plus 5 is 13"),
    "plus, with units": ("8 cups + 5 cups = 13 cups", "8 cups plus 5 cups makes 13 cups"),
    "minus": ("15 - 6 = 9", "15 minus 6 leaves 9"),
    "times": ("6 * 7 = 42", "6 times 7 equals 42"),
    "multiplied": ("6 * 7 = 42", "6 multiplied by 7 is 42"),
    "divided": ("18 / 3 = 6", "18 divided by 3 comes to 6"),
    "squared": ("4^2 = 16", "4 squared is 16"),
    "to the power": ("2^5 = 32", "2 raised to the power of 5 is 32"),
    "square root": ("sqrt(25) = 5", "the square root of 25 is 5"),
    "factorial": ("4! = 24", "4 factorial = 24"),
    "times, with units": ("6 * 7 = 42", "6 boxes x 7 pens = 42 pens"),
    "times, German": ("6 * 7 = 42", "6 mal 7 ergibt 42"),
    "times, French": ("6 * 7 = 42", "6 fois 7 égale 42"),
    "divided, German": ("18 / 3 = 6", "18 geteilt durch 3 ist 6"),
    "divided, Spanish": ("18 / 3 = 6", "18 dividido entre 3 es 6"),
    "plus, Chinese": ("8 + 5 = 13", "8加5等于13"),
    "minus, Chinese": ("15 - 6 = 9", "15减去6等于9"),
    "function, Chinese": ("so gcd(12, 8) = 4", "于是gcd(12, 8) = 4。"),
    "function, Japanese": ("so sqrt(25) = 5", "よってsqrt(25) = 5です"),
    "function, Korean": ("so sqrt(25) = 5", "그래서sqrt(25) = 5"),
    "choice, Chinese": ("so C(6, 2) = 15", "得到C(6, 2) = 15"),
    "sign, Chinese": ("then -13 + 5 = -8", "接着，-13 + 5 = -8。"),
    "times, Chinese": ("6 * 7 = 42", "6乘以7等于42"),
    "divided, Chinese": ("18 / 3 = 6", "18除以3等于6"),
    "factorial, in words": ("4! = 24", "4! equals 24"),
    # numbers and units
    "thousands": ("2500 + 10 = 2510", "2,500 + 10 = 2,510"),
    "thousands, LaTeX": ("2500 + 10 = 2510", r"$2{,}500 + 10 = 2{,}510$"),
    "thousands, thin blank": ("2500 + 10 = 2510", "2\u202f500 + 10 = 2\u202f510"),
    "half": ("0.5 + 1 = 1.50", ".5 + 1 = 1.5"),
    "list": ("sorted: [300, 400, 500]", "sorted: [300,400,500]"),
    "per cent": ("20% of 50 = 10", "20 percent of 50 = 10"),
    "per cent of": ("20% * 50 = 10", "20% of 50 is 10"),
    "per cent of, in capitals": ("20% * 50 = 10", "20% OF 50 IS 10"),
    "ordinals in capitals": ("3 + 4 = 7", "3 + 4 = 7 ON THE 2ND DAY, NOT THE 1ST"),
    "per cent of, LaTeX": ("20% * 50 = 10", r"$20\% \text{ of } \$50 = 10$"),
    "share of": ("3/4 * 8 = 6", r"$\frac{3}{4}$ of the 8 is 6"),
    "per cent, LaTeX": ("20% + 5% = 25%", r"$20\% + 5\% = 25\%$"),
    "without per cent": ("20 + 5 = 25", "20% + 5% = 25%"),
    "kilometres": ("20 + 5 = 25", "20 km + 5 km = 25 km"),
    "units in LaTeX": ("20 + 5 = 25", r"$20\text{ m} + 5\,\mathrm{m} = 25\text{ m}$"),
    "square metres": ("6 * 7 = 42", "6 m * 7 m = 42 m^2"),
    "square centimetres": ("6 * 7 = 42", r"$6 \cdot 7 = 42 \text{ cm}^2$"),
    "per hour and time": ("60 * 2 = 120", "60 km/h * 2 h = 120 km"),
    "per hour": ("90 / 2 = 45", "90 km / 2 h = 45 km/h"),
    "money": ("7 + 2 = 9", r"\$7 + \$2 = \$9"),
    "degrees": ("A = 60°", r"$\angle A = 60^{\circ}$"),
    # layout
    "bold": ("15 - 6 = 9", "**15 - 6 = 9**"),
    "bold numbers": ("15 - 6 = 9", r"$15 - 6 = \mathbf{9}$"),
    "bold text": ("15 - 6 = 9", r"$15 - 6 = \textbf{9}$"),
    "colour": ("15 - 6 = 9", r"$15 - 6 = \color{blue}{9}$"),
    "text colour": ("15 - 6 = 9", r"$15 - \textcolor{red}{6} = 9$"),
    "brace below": ("15 - 6 = 9", r"$\underbrace{15 - 6}_{} = 9$"),
    "line above": ("CD = 8", r"$\overline{CD} = 8$"),
    "end of proof": ("15 - 6 = 9", r"15 - 6 = 9 $\blacksquare$"),
    "tick": ("15 - 6 = 9", r"15 - 6 = 9 ✓ $\checkmark$"),
    "items": ("15 - 6 = 9\n9 / 3 = 3", "\\begin{itemize}\n\\item 15 - 6 = 9\n\\item 9 / 3 = 3\n\\end{itemize}"),
    "aligned": ("15 - 6 = 9\n9 / 3 = 3", "\\begin{align*}\n15 - 6 &= 9 \\\\\n9 / 3 &= 3\n\\end{align*}"),
    "display": ("So z = 15 - 6 = 9.", "So\n\\[\nz = 15 - 6\n\\]\n\\[\n= 9\n\\]"),
    "dollars": ("So z = 15 - 6 = 9.", "So\n$$\nz = 15 - 6\n= 9\n$$"),
    "html": ("15 - 6 = 9", "<p><b>15 - 6 = 9</b></p>"),
    "html breaks": ("15 - 6 = 9\n9 / 3 = 3", "15 - 6 = 9<br/>9 / 3 = 3"),
    "html power": ("4^2 = 16", "4<sup>2</sup> = 16"),
    "mathml": ("15 - 6 = 9", "<math><mn>15</mn><mo>-</mo><mn>6</mn><mo>=</mo><mn>9</mn></math>"),
    "html relation": ("15 + 6 = 21", "15 &plus; 6 &equals; 21"),
    "ties": ("15 * 6 = 90", r"$15~\times~6~=~90$"),
    "boxes on the way": ("15 - 6 = 9\n9 / 3 = 3", "\\boxed{15 - 6 = 9}\n\\boxed{9 / 3 = 3}"),
    "behind": ("15 - 6 = 9", "9 (= 15 - 6)"),
    "negative after a comma": ("6 - 15 = -9", "6 - 15; -9"),
    "time": ("15 - 6 = 9", "[00:12:07] 15 - 6 = 9"),
    "added": ("15 + 6 = 21", "15 added to 6 makes 21"),
    "html signs": ("15 - 6 = 9", "15 &minus; 6 = 9"),
    "end tag": ("15 - 6 = 9", "15 - 6 = 9</s>"),
    "end token": ("15 - 6 = 9", "15 - 6 = 9<|eot_id|>"),
    "thought": ("15 - 6 = 9", "<think>\n15 - 6 = 9\n</think>"),
    "calculator": ("15 - 6 = 9", "15 - 6 = <<15-6=9>>9"),
    "table": ("15 - 6 = 9", "| 15 - 6 | = 9 |"),
    "address": ("15 - 6 = 9", "15 - 6 = 9 (from https://example.org/a-b/1?c=2)"),
    "short lines": ("8+5=13\n13-6=7", "8 + 5 = 13\n13 - 6 = 7"),
    "line ends": ("15 - 6 = 9\n9 / 3 = 3", "15 - 6 = 9\r\n9 / 3 = 3"),
    "one line": ("15 - 6 = 9, then 9 / 3 = 3", "15 - 6 = 9.\n9 / 3 = 3"),
    "semicolon": ("15 - 6 = 9; 9 / 3 = 3", "15 - 6 = 9\n9 / 3 = 3"),
    "other full stops": ("15 - 6 = 9. 9 / 3 = 3.", "15 - 6 = 9。9 / 3 = 3。"),
    "numbered": ("15 - 6 = 9", "Step 4: 15 - 6 = 9"),
    "numbered of": ("15 - 6 = 9", "Step 1/3: 15 - 6 = 9"),
    "numbered, Chinese": ("15 - 6 = 9", "第1步：15 - 6 = 9"),
    "numbered, German": ("15 - 6 = 9", "Schritt 1: 15 - 6 = 9"),
    "numbered, emoji": ("15 - 6 = 9", "2️⃣ 15 - 6 = 9"),
    "answer, named": ("So it is 9.", "Answer = 9"),
    "boxed": ("The answer is 9.", r"The answer is $\boxed{9}$."),
    "fence of text": ("15 - 6 = 9\n9 / 3 = 3", "```text\n15 - 6 = 9\n9 / 3 = 3\n```"),
    "fence of mathematics": ("15 - 6 = 9\n9 / 3 = 3", "```math\n15 - 6 = 9\n9 / 3 = 3\n```"),
    "fence of LaTeX": ("15 * 6 = 90", "```latex\n15 \\times 6 = 90\n```"),
    # code
    "other fence": ("```python\nv = 15 - 6\n```", "~~~python\nv = 15 - 6\n~~~"),
    "fence without a name": ("```python\nv = 15 - 6\nprint(v)\n```", "```\nv = 15 - 6\nprint(v)\n```"),
    "types": ("```python\ndef f(a):\n    return a - 6\n```", "```python\ndef f(a: int) -> int:\n    return a - 6\n```"),
    "in place": ("```python\nv = v - 6\n```", "```python\nv -= 6\n```"),
}
OTHER = {
    "another sign": ("15 - 6 = 9", "15 + 6 = 21"),
    "a power is no product": ("4^2 = 16", "4 * 4 = 16"),
    "a factorial": ("4! = 24", "4 * 6 = 24"),
    "a function": ("cos(0) = 1", "0 + 1 = 1"),
    "a remainder is no per cent": ("19 % 4 = 3", "19% of 4 = 3"),
    "words not between operands": ("The minus 6 stays", "The 15 minus 6 stays"),
    "a sentence between": ("It is 15. Minus 6 gives 9.", "It is 15 minus 6, which gives 9."),
    "a quotient of a product": ("12 / (6 * 2) = 1", "12 / 6 = 2"),
    "a part, not a share": ("3/4 is more; 8 of 9 = 8", "3/4 of 8 is 6; 9 = 8"),
    "a choice": ("Of 6 choose any 2", "6 choose 2"),
}


@pytest.mark.parametrize("name", ALIKE)
def test_another_notation_is_the_same_method(name):
    one, other = (steps.skeleton_of_steps(text) for text in ALIKE[name])
    assert one.replace(steps.MARK, " ") == other.replace(steps.MARK, " ") and one
    assert steps.kinds(one) == steps.kinds(other)


@pytest.mark.parametrize("name", OTHER)
def test_another_computation_is_another(name):
    one, other = (steps.kinds(steps.skeleton_of_steps(text)) for text in OTHER[name])
    assert one != other


def test_brackets_that_are_needed_stay():
    for text in ("6 * (7 + 2) = 54", "12 / (6 * 2) = 1", "2^(3 * 2) = 64", "9 - (7 - 2) = 4", "(1 + 2) mod 3 = 0"):
        assert "(" in steps.skeleton_of_steps(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80) | st.text("\\{}$^_frac12+-=<>/ &x½√\n", max_size=60))
def test_layout_never_fails_and_unknown_commands_vanish(text):
    assert "\\" not in " ".join(steps.skeleton_of_steps(text).split())
    plain = notation.plain(text)
    assert all(s.isascii() or s.isalpha() or s in "±\u00a0" for s in plain)
    assert steps.kinds(steps.skeleton_of_steps(rf"$\fancy{{3}} \weird 4 \ding$ {text}")) is not None
    assert steps.kinds(steps.skeleton_of_steps(r"$\fancy{3} \weird 4 \ding \unheardof[2]{of}$")) == ()


HOSTILE = ["123,456,", "9", "12:", "12 ", "a_", "x1", "{", "\\frac{", "<p ", "3 times ", "5 m ", "|", "answer is "]
HOSTILE += [
    "answer : ",
    "answer is" + " " * 999,
    "$a_{1}$",
    "\\text{a}^2",
    "\\sum_",
    "**a",
    "(",
    "-",
    "=",
    "&",
    "<sup>",
]
HOSTILE += ["[1,", "\\boxed{", "1/", "\n- ", "2^", "\\begin{", "\\sqrt[", "= 1 ", "1-", "<"]


@pytest.mark.parametrize("piece", HOSTILE)
def test_reading_is_linear_in_the_text(piece):
    """Ten times the text takes about ten times the time (11 at most when measured); a square would take 100 times."""

    def read(n: int) -> None:
        steps.kinds(steps.skeleton_of_steps(piece * (n // len(piece))))

    assert growth(read, 20_000, 200_000) < 40
