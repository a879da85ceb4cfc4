from sbi_core.testing import PluginChecks


class TestLotka(PluginChecks):
    plugin = "lotka"
