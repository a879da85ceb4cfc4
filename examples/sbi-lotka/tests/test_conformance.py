import pytest


@pytest.mark.sbi_plugin("lotka")
def test_conformance(sbi_check):
    sbi_check()
