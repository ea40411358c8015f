"""Every name of a setting or a metric in deploy/ is one that the product has."""

import re

from tests.support.deploy_files import DEPLOY, EXPECTED, ROOT, variables

FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
PAGE = ROOT / "docs" / "deploy.md"


def named(text):
    return set(re.findall(r"\bPENSTOCK_[A-Z_]+[A-Z]\b", text))


def test_every_variable_is_a_setting():
    """A name that is no setting is refused when a process starts, so none may stand here."""
    found = {name: path for path in (*FILES, PAGE) for name in named(path.read_text())}
    assert {"PENSTOCK_WORKER", "PENSTOCK_API_KEY", "PENSTOCK_WORKER_TOKEN"} <= set(found)
    unknown = {name: path for name, path in found.items() if name not in variables() | EXPECTED}
    assert not unknown


def test_what_was_expected_is_not_there_yet():
    """A setting that the product has by now leaves the list of those to come."""
    assert not EXPECTED & variables()
