"""The promises that sbi-core relies on; its quick preset runs in test_end_to_end."""

import pytest


@pytest.mark.sbi_plugin("chempy", without=["*-it-runs-from-end-to-end"])
def test_conformance(sbi_check):
    sbi_check()
