"""The page of docs/engines tells of the contract as it is."""

from tests.support.conformance_table import FILES, PAGE, cases


def test_every_case_of_the_contract_has_a_row_and_no_engine_fails_one():
    """A new case is run over every engine, by `make conformance`, before it is merged."""
    page = PAGE.read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for case in cases():
        words = case.removeprefix("test_").replace("_", " ")
        assert any(row.startswith(f"| {words} |") for row in rows), (
            f"run `make conformance`: {words}"
        )
    assert "**no**" not in page
    for pattern in FILES.values():
        assert pattern.partition(" ")[0] in page
