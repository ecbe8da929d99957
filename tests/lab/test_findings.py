"""The table of findings: whole, in one voice, and counting."""

import re
from pathlib import Path

import pytest

from nkjax.lab.findings import EXAMPLES, LEAVES_OUT, RULES, SEVERITIES, Findings

ROOT = Path(__file__).parents[2]


def test_every_rule_is_whole():
    for code, rule in RULES.items():
        assert re.fullmatch("NK[1-4][0-9]{2}", code) and rule.severity in SEVERITIES
        assert rule.what and rule.response, code
        # Somebody who is refused, or warned, is told what to do.
        assert rule.fix or rule.severity != "error", code
        for text in (rule.what, rule.response, rule.fix):
            assert text == " ".join(text.split()) and not text.endswith("."), code


def test_every_rule_is_used_and_every_code_used_has_a_rule():
    code = "\n".join(path.read_text() for path in (ROOT / "nkjax" / "lab").glob("*.py")
                     if path.name != "findings.py")  # fmt: skip
    used = set(re.findall('"(NK[0-9]{3})"', code))
    assert used <= set(RULES)
    assert set(RULES) - used == set()


def test_what_is_left_out_is_listed_and_says_so():
    words = ("left out", "thinned out", "not used")
    says = {code for code, rule in RULES.items() if rule.response.startswith(words)}
    # Joints, and lines and columns of a table, are no entries.
    assert LEAVES_OUT == says - {"NK206", "NK306", "NK308", "NK423"}
    for code in LEAVES_OUT:
        assert RULES[code].severity != "error" or "when allowed" in RULES[code].response


def test_findings_count_and_keep_three_examples():
    findings = Findings()
    for i in range(5):
        findings.add("NK214", f"person {i}", count=2)
    findings.add("NK101", "a\n b.jpg")
    findings.add("NK201")
    assert findings.count("NK214") == 10 and findings.count("NK102") == 0
    listed = findings.listed()
    assert [f.code for f in listed] == ["NK101", "NK214", "NK201"]
    assert [f.severity for f in listed] == ["error", "warning", "note"]
    assert listed[0].examples == ("a b.jpg",) and listed[0].fix == RULES["NK101"].fix
    assert listed[1].examples == ("person 0", "person 1", "person 2") and EXAMPLES == 3
    assert listed[2].examples == ()


def test_allowed_errors_are_no_errors():
    findings = Findings()
    for code in ("NK101", "NK131", "NK214"):
        findings.add(code)
    assert [f.code for f in findings.errors()] == ["NK101", "NK131"]
    assert [f.code for f in findings.errors({"NK101"})] == ["NK131"]
    assert findings.errors(["NK101", "NK131"]) == ()


def test_an_unknown_code_is_a_mistake():
    with pytest.raises(KeyError):
        Findings().add("NK999")
