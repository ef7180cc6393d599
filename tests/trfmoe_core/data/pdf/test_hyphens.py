import pytest

from trfmoe_core.data.pdf.hyphens import HyphenCounts, join_hyphens


def joined(*pages: str) -> str:
    return "\f".join(join_hyphens(pages)[0])


CASES = {
    # A hyphen at a line's end, and what becomes of it where the rest of the document says nothing.
    "a treat-\nment plan": "a treatment plan",
    "non-\nsmall-cell carcinoma": "non-small-cell carcinoma",
    "after a 1-\nmonth visit": "after a 1-month visit",
    "from 3-\n4 to 5": "from 3-4 to 5",
    "mit dem Haus-\nund Hofarzt": "mit dem Haus- und Hofarzt",
    "pre-\nand postoperative": "pre- and postoperative",
    "anti-\ninflammatory drugs": "anti-inflammatory drugs",
    "as Jean-\nPaul said": "as Jean-Paul said",
    "a graph-\nbased way": "a graph-based way",
    "a self-\nsufficient farm": "a self-sufficient farm",
    "nothing self-\nish at all": "nothing selfish at all",
    "THE INTRO-\nDUCTION": "THE INTRODUCTION",
    "state-of-the-\nart tools": "state-of-the-art tools",
    "a well-estab-\nlished rule": "a well-established rule",
    "Прави-\nтельство": "Правительство",
    "rou-\n  tine and soft\u00ad\nware": "routine and software",
    "soft\u00adly within a line": "soft-ly within a line",
    "a dash --\nhere, one -\nthere": "a dash --\nhere, one -\nthere",
}


@pytest.mark.parametrize("text", CASES)
def test_a_hyphen_stays_where_it_belongs_to_the_word(text: str) -> None:
    assert joined(text) == CASES[text]


def test_the_document_knows_its_words() -> None:
    torn = "We use over-\nfitted models in the co-\noperative."
    assert joined(torn, "An over-fitted model. Our co-operative.") == (
        "We use over-fitted models in the co-operative.\fAn over-fitted model. Our co-operative."
    )
    assert joined(torn, "An overfitted model. Our cooperative.").startswith(
        "We use overfitted models in the cooperative."
    )
    assert joined("A log-\nlikelihood.", "The log-likelihood, loglikelihood, loglikelihood.").startswith("A log-like")
    assert joined("The sub-\nsample.", "One sub-group, two sub-types.").startswith("The sub-sample.")
    assert joined("A sea-\nshore walk.", "The sea and the shore.").startswith("A sea-shore")


def test_hyphens_are_counted() -> None:
    pages, counts = join_hyphens(["one treat-\nment, two experi-\nments", "a 3-\nday walk", "no hyphen"])
    assert counts == HyphenCounts(joined=2, kept=1)
    assert pages[2] == "no hyphen"


def test_many_hyphens_cost_linear_time() -> None:
    # Quadratic time takes hours here, not seconds: the suite's own time limit ends it.
    for run in ("a-\n", "a-", "-\n", "a", "a -\n"):
        join_hyphens([run * 100_000 + "x"])
