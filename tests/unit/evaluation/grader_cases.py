r"""What the graders say about hand-checked pairs: (completion, answer, boxed, math-verify).

The verdict of ``boxed`` is text or exact number; that of ``math-verify`` is mathematics. Where a verdict is not what a
reader would say, the comment says why it is left so.
"""

CASES = [
    # which box
    (r"\boxed{1} no, \boxed{2}", "2", True, True),
    (r"\boxed{2} no, \boxed{1}", "2", False, False),
    (r"\boxed{1}, \boxed{2}", "1, 2", False, False),  # two boxes are two answers, not a set
    (r"\boxed{2} and then \boxed{", "2", True, True),  # cut inside the second box
    (r"\boxed{\boxed{4}}", "4", True, True),
    (r"\boxed{}", "2", False, False),
    (r"the value is 2. \boxed{}", "2", False, False),
    ("The answer is $2$", "2", False, False),  # no box
    (r"\fbox{2}", "2", False, False),
    # units and currency
    (r"\boxed{5\text{ cm}}", "5", False, True),
    (r"\boxed{5\ \mathrm{cm}^2}", "5", False, True),
    (r"\boxed{5}", r"5\text{ cm}", False, True),
    (r"\boxed{90^\circ}", "90", False, True),
    (r"\boxed{\$18}", "18", False, True),
    (r"\boxed{18 dollars}", "18", False, False),  # a unit outside \text is a product of letters
    # percentages
    (r"\boxed{50\%}", "50", False, True),
    (r"\boxed{50\%}", "0.5", False, True),
    (r"\boxed{50}", r"50\%", False, True),
    (r"\boxed{50}", "0.5", False, False),
    # text
    (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}", True, True),
    (r"\boxed{Evelyn}", r"\text{Evelyn}", False, True),
    (r"\boxed{\text{(B)}}", "B", False, True),
    (r"\boxed{\text{no}}", r"\text{yes}", False, False),
    # tuples, sets, lists
    (r"\boxed{(1,2)}", "(1, 2)", True, True),
    (r"\boxed{(2,1)}", "(1,2)", False, False),
    (r"\boxed{\{1,2\}}", r"\{2,1\}", False, True),
    (r"\boxed{1 \text{ and } 2}", "1,2", False, True),
    (r"\boxed{2, 3}", "2", False, False),
    (r"\boxed{5 or 6}", "5", False, False),
    # intervals
    (r"\boxed{[0,1)}", "[0,1)", True, True),
    (r"\boxed{[0,1]}", "[0,1)", False, False),
    (r"\boxed{(-\infty, 3]}", r"(-\infty,3]", True, True),
    (r"\boxed{[0,1)\cup(2,3]}", r"(2,3]\cup[0,1)", False, True),
    # fractions and decimals
    (r"\boxed{\frac{2}{4}}", r"\frac{1}{2}", True, True),
    (r"\boxed{\frac12}", r"\frac{1}{2}", False, True),
    (r"\boxed{.5}", r"\dfrac{1}{2}", True, True),
    (r"\boxed{1\frac{1}{2}}", r"\frac{3}{2}", False, True),
    (r"\boxed{0.333}", r"\frac{1}{3}", False, False),
    (r"\boxed{3.14}", r"\pi", False, False),
    # equations
    (r"\boxed{x=5}", "5", False, True),
    (r"\boxed{5}", "x=5", False, True),
    (r"\boxed{x = 5}", "6", False, False),
    (r"\boxed{f(x)=2x}", "2x", False, True),
    # thousands
    (r"\boxed{1,000}", "1000", True, True),
    (r"\boxed{1{,}000}", "1000", False, True),
    (r"\boxed{1\,000}", "1000", False, True),
    (r"\boxed{1\,000}", "0", False, False),  # the library alone reads 1 · 000
    (r"\boxed{1 000}", "1000", True, True),
    (r"\boxed{1 000 000}", "0", False, False),
    (r"\boxed{11,\! 111}", "11,111", False, True),
    (r"\boxed{12,5}", "125", False, False),
    (r"\boxed{$1,234.50$}", "1234.5", True, True),
    # expressions
    (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", False, True),
    (r"\boxed{(x+1)^2}", "x^2+2x+1", False, True),
    (r"\boxed{10!}", "3628800", False, True),
    (r"\boxed{-3}", "3", False, False),
    (r"\boxed{025}", "25", True, True),
    (r"\boxed{110}", "110_2", False, True),  # the library drops the base
    (r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix}2\\1\end{pmatrix}", False, False),
    # thinking
    (r"<think>\boxed{1}</think> \boxed{2}", "2", True, True),
    (r"<think>\boxed{2}</think> so 2", "2", False, False),
    (r"<think>\boxed{2}, but wait", "2", True, True),
    # nothing to compare with
    (r"\boxed{2}", "", None, None),
]
