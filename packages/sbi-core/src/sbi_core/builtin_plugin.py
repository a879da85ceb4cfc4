"""The components that come with sbi-core, registered through the hooks a stranger uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbi_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from sbi_core.analyses.base import Analysis
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
        ("identity", "Identity", "values, errors and mask as they are"),
        ("mlp", "Mlp", "multilayer perceptron"),
        ("cnn", "Cnn", "strided convolutions, for images and series"),
        ("conv1d-attention", "Conv1dAttention", "convolutions and attention, for spectra"),
        ("deepset", "Deepset", "masked mean over the members of a set, and their number"),
        ("transformer", "Transformer", "masked attention over elements or members of a set"),
    ):
        module = f"sbi_core.embeddings.{name.replace('-', '_')}"
        register(
            name, f"{module}:{stem}Embedding", config=f"{module}:{stem}Config", summary=summary
        )


@hookimpl
def register_estimators(register: Register[Estimator]) -> None:
    """Register the estimators: flows, mixture, discrete ones, ensembles, those of sbi."""
    for name, stem, summary in (
        ("mixture", "Mixture", "Gaussian mixture head, closed-form moments"),
        ("maf", "Maf", "masked autoregressive flow (zuko)"),
        ("nsf", "Nsf", "neural spline flow (zuko); also for one parameter"),
        ("ordinal", "Ordinal", "discretised logistics, for integers and ordered values"),
        ("categorical", "Categorical", "softmax, for few values"),
        ("mixed", "Mixed", "discrete parameters, and continuous ones given them"),
        ("ensemble", "Ensemble", "several trainings of any estimator as one density"),
        ("sbi-maf", "SbiMaf", "masked autoregressive flow of the sbi package (nflows)"),
        ("sbi-nsf", "SbiNsf", "neural spline flow of the sbi package (nflows)"),
        ("sbi-npse", "SbiNpse", "score network of the sbi package; slow densities"),
        ("sbi-fmpe", "SbiFmpe", "flow matching of the sbi package; slow densities"),
    ):
        module = f"sbi_core.estimators.{name.partition('-')[0]}"
        register(
            name, f"{module}:{stem}Estimator", config=f"{module}:{stem}Config", summary=summary
        )


@hookimpl
def register_combiners(register: Register[Combiner]) -> None:
    """Register the rules that combine many objects."""
    for name, stem, summary in (
        ("gaussian", "Gaussian", "product of Gaussian posteriors, prior divided out"),
        ("recalibrated", "Recalibrated", "gaussian, then a learned correction of its error"),
        ("deepset", "Deepset", "one network for whole groups, amortised over their size"),
        ("product", "Product", "product of densities, on a grid or by an ensemble sampler"),
        ("score", "Score", "diffusion with the scores of all objects; needs estimator sbi-npse"),
        ("likelihood", "Likelihood", "likelihood of every object on a grid; the slow reference"),
    ):
        module = f"sbi_core.combiners.{name}"
        register(name, f"{module}:{stem}Combiner", config=f"{module}:{stem}Config", summary=summary)


@hookimpl
def register_analyses(register: Register[Analysis]) -> None:
    """Register the analysis that adds nothing."""
    register("none", "sbi_core.analyses.base:NoAnalysis", summary="adds nothing to the results")
