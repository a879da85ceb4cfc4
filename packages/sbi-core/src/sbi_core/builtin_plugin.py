"""The components of sbi-core, registered through the same hooks as those of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbi_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from sbi_core.analyses import Analysis
    from sbi_core.components import Combiner, Embedding, Estimator
    from sbi_core.hookspecs import Register

__all__ = [
    "register_analyses",
    "register_combiners",
    "register_embeddings",
    "register_estimators",
]


@hookimpl
def register_embeddings(register: Register[Embedding]) -> None:
    """Register the summary networks: for vectors, images, spectra and sets."""
    for name, stem, summary in (
        ("identity", "Identity", "the data as they are: values, errors and mask"),
        ("mlp", "Mlp", "multilayer perceptron"),
        ("cnn", "Cnn", "convolutional network, for images and series"),
        ("conv1d-attention", "Conv1dAttention", "convolutions with attention, for spectra"),
        ("deepset", "Deepset", "mean over the members of a set, and their number"),
        ("transformer", "Transformer", "attention over elements, or over the members of a set"),
    ):
        module = f"sbi_core.embeddings.{name.replace('-', '_')}"
        register(
            name, f"{module}:{stem}Embedding", config=f"{module}:{stem}Config", summary=summary
        )


@hookimpl
def register_estimators(register: Register[Estimator]) -> None:
    """Register the estimators: flows, mixture, discrete ones, ensembles, those of sbi."""
    for name, module, stem, summary in (
        ("mixture", "mixture", "Mixture", "Gaussian mixture with closed-form moments"),
        ("maf", "flows", "Maf", "masked autoregressive flow (zuko)"),
        ("nsf", "flows", "Nsf", "neural spline flow (zuko); also for one parameter"),
        ("ordinal", "ordinal", "Ordinal", "discretised logistic distribution, for integers"),
        ("categorical", "categorical", "Categorical", "softmax over a few values"),
        ("mixed", "mixed", "Mixed", "discrete and continuous parameters together"),
        ("ensemble", "ensemble", "Ensemble", "average of several trainings of an estimator"),
        ("sbi-maf", "sbi", "SbiMaf", "masked autoregressive flow of the package sbi"),
        ("sbi-nsf", "sbi", "SbiNsf", "neural spline flow of the package sbi"),
        ("sbi-npse", "sbi", "SbiNpse", "score network of the package sbi; slow density"),
        ("sbi-fmpe", "sbi", "SbiFmpe", "flow matching of the package sbi; slow density"),
    ):
        path = f"sbi_core.estimators.{module}:{stem}"
        register(name, f"{path}Estimator", config=f"{path}Config", summary=summary)


@hookimpl
def register_combiners(register: Register[Combiner]) -> None:
    """Register the rules that combine many objects."""
    for name, stem, summary in (
        ("gaussian", "Gaussian", "product of Gaussian posteriors divided by N - 1 priors"),
        ("simulated-moments", "SimulatedMoments", "scores, centred by simulations at the solution"),
        ("group-moments", "GroupMoments", "moments of the group; nuisance parameters marginalised"),
        ("deepset", "Deepset", "one network for groups of any size"),
        ("product", "Product", "product of the densities, on a grid or by MCMC"),
        ("score", "Score", "diffusion with the scores of all objects; needs sbi-npse"),
        ("likelihood", "Likelihood", "likelihood of every object on a grid; slow reference"),
    ):
        module = f"sbi_core.combiners.{name.replace('-', '_')}"
        register(name, f"{module}:{stem}Combiner", config=f"{module}:{stem}Config", summary=summary)


@hookimpl
def register_analyses(register: Register[Analysis]) -> None:
    """Register the analysis that adds nothing."""
    register("none", "sbi_core.analyses:NoAnalysis", summary="adds nothing to the results")
