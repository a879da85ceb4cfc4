"""The contract of a plugin; its quick preset runs in test_end_to_end."""

from sbi_core.testing import PluginChecks


class TestChempy(PluginChecks):
    plugin = "chempy"
    without = ("*-it-runs-from-end-to-end",)
