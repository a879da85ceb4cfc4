"""Hooks of the plugin."""

from sbi_core import hookimpl


@hookimpl
def register_combiners(register):
    register(
        "floored",
        "sbi_floored.combiner:FlooredCombiner",
        config="sbi_floored.combiner:FlooredConfig",
        summary="Gaussian rule with a floor under the error",
    )
