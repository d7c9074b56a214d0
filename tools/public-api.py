#!/usr/bin/env python3
"""Prints the library's public interface, a line for each item, method and trait implementation, from what rustdoc has
written: the declarations that a reader of the documentation sees, without what the compiler derives by itself.

Usage: public-api.py DOC_FOLDER, such as target/doc/lastorders.
"""

import html
import re
import sys
from pathlib import Path


def text(markup):
    """A declaration on one line. The methods of a trait have lines of their own."""
    markup = re.sub(r'<span class="comment">.*?</span>|<summary.*?</summary>|\u24d8', "", markup)
    markup = re.sub(r"<[^>]*>", "", re.sub(r"</?(div|br)", r" \g<0>", markup))
    line = " ".join(html.unescape(markup).split())
    return re.sub(r"(pub (unsafe )?trait [^{]*) {.*", r"\1", line)


def declarations(page):
    page = re.split(r'<h2 id="(?:synthetic-implementations|blanket-implementations|implementors|foreign-impls)"', page)[0]
    own, _, of_traits = page.partition('<h2 id="trait-implementations"')
    yield from re.findall(r'<pre class="rust item-decl"><code>(.*?)</code></pre>', own, re.S)
    yield from re.findall(r'<h4 class="code-header">(.*?)</h4>', own, re.S)
    yield from re.findall(r'<h3 class="code-header">(.*?)</h3>', of_traits, re.S)


folder = Path(sys.argv[1])
lines = set()
for file in folder.rglob("*.html"):
    kind, _, name = file.stem.partition(".")
    if name:
        path = "::".join([*file.parent.relative_to(folder.parent).parts, name])
        lines.update(f"{path}: {text(declaration)}" for declaration in declarations(file.read_text()))
print("\n".join(sorted(line for line in lines if "StructuralPartialEq" not in line)))
