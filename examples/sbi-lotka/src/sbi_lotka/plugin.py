"""Hooks of the plugin; components are given by name and imported only when they are used."""

from importlib.resources import files

from sbi_core import hookimpl


@hookimpl
def register_simulators(register):
    register(
        "lotka",
        "sbi_lotka.simulator:LotkaSimulator",
        config="sbi_lotka.simulator:LotkaConfig",
        summary="prey and predators, event by event",
    )


@hookimpl
def register_embeddings(register):
    register(
        "lotka-series",
        "sbi_lotka.embedding:SeriesEmbedding",
        config="sbi_lotka.embedding:SeriesConfig",
        summary="convolutions over short series with gaps",
    )


@hookimpl
def register_pipelines(register):
    register("lotka", _pipeline, summary="counts on islands -> the rates they share")


def _pipeline() -> str:
    return files("sbi_lotka").joinpath("pipeline.toml").read_text(encoding="utf-8")
