"""The plain text beside HTML."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.plain_text import text_of


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", ""),
        ("plain", "plain"),
        ("<p>One</p><p>Two</p>", "One\n\nTwo"),
        ("<div>One</div><div>Two</div>", "One\nTwo"),
        ("One<br>Two<br/><br />Three", "One\nTwo\n\nThree"),
        ("  a \n\t b  <b> c</b>d <i>e</i>", "a b cd e"),
        ("<h1>Title</h1>Text", "Title\n\nText"),
        ("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>d", "- a\n- b\n  - c\n\nd"),
        (
            "<ul>" * 9 + "<li>a" + "</ul>" * 9 + "<ul><li>b</ul>",
            "                - a\n\n- b".replace("  " * 8, "  " * 7),
        ),
        ("<ol><li>a<li>b</ol>", "1. a\n2. b"),
        ("<table><tr><th>a</th><td>b</td></tr><tr><td>c<td>d</table>", "a b\nc d"),
        ("<pre>  a\n\n    b</pre>c", "  a\n\n    b\n\nc"),
        ("a<hr>b", "a\n\n---\n\nb"),
        ('<a href="https://x.test/a?b=1&amp;c=2">here</a>.', "here (https://x.test/a?b=1&c=2)."),
        ("<a href='https://x.test/'>https://x.test</a>", "https://x.test"),
        ("<a href=https://x.test/>x.test</a>", "x.test"),
        ('<a href="https://x.test/"><img src="a.png"></a>', "https://x.test/"),
        ('<a href="https://x.test/"><img alt="Shop" src=a></a> b', "Shop (https://x.test/) b"),
        ('<a href="mailto:a@b.test">Write</a> <a href="mailto:a@b.test">a@b.test</a>', "Write (a@b.test) a@b.test"),
        ('<a href="javascript:alert(1)">x</a><a href="#top">y</a><a name=z>z</a>', "xyz"),
        ('<a href="https://x.test/\n\tpath">x', "x (https://x.test/path)"),
        ("<style>p{}</style><script>if (a</b) x</script>t<title>no</title>", "t"),
        ("<script>never closed <p>x", ""),
        ("<script>a</scripty>b</script >c", "c"),
        ("a<!-- b <p> -->c<!-->d<!--->e<!doctype html>f<?xml ?>g</ x>h", "acdefgh"),
        ("a<!-- never closed", "a"),
        ("1 < 2 &lt; 3 &amp;amp; &nbsp;&#8364;&#x20ac;&euro;", "1 < 2 < 3 &amp; \u00a0€€€"),
        ("<p title=\"a > b\">c</p><p x='>'>d", "c\n\nd"),
        ("<P CLASS=x>a</P><DIV>b</DIV>", "a\n\nb"),
        ("a&#0;b&#" + "9" * 5000 + ";c&#xFFFFFFFFF;d&#xd800;", "a\ufffdb\ufffdc\ufffdd\ufffd"),
        ("a\x00b\x1bc", "a b c"),
        ("<a", ""),
        ("x<p", "x"),
        ("<p>a</p>\n\n\n<p>b</p>   <br><br><br><br>c", "a\n\nb\n\nc"),
    ],
)
def test_it_reads_as_it_looks(source: str, text: str) -> None:
    assert text_of(source) == text


@pytest.mark.parametrize(
    "piece",
    [
        "<", "<!", "<!--", "<a ", "<a href='", '<a href="x', "<a x=", "&", "&#", "&#9", "&amp", "<div>", "</div>", "<ul><li>",
        "<ul>", "<b>", "<pre>\n", "<script>", "<style></style", "</", "<p/", "=", "='", "<a href=https://x>", "<li>",
        "<a href=https://x>y", "<ol><li>x", "<table><tr><td>", "\n ", "<br>", "<?", "--", "-->", "<a =", "<a\t", "<a =\t",
        "<x" + " y" * 50, "</ol>", "<!---", "<textarea>", "</script>", "<img alt='", "< ", "</ ",
    ],
)  # fmt: skip
def test_nothing_takes_more_than_its_length(piece: str) -> None:
    """What takes the square of a quarter of a mebibyte takes minutes."""
    source = piece * ((1 << 18) // len(piece))
    began = time.process_time()
    text = text_of(source)
    assert time.process_time() - began < 2
    assert len(text) <= 12 * len(source)


@given(st.text("<>/!-=&#;x'\"a \nlibrpoutdscfhe", max_size=200))
@settings(max_examples=300, deadline=None)
def test_whatever_it_is_it_is_text(source: str) -> None:
    text = text_of(source)
    assert "\r" not in text
    assert text == text.strip("\n")
