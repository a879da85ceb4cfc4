"""What holds for sets is tested with the deep set; here: vectors with missing elements."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from pydantic import ValidationError

from sbi_core.components import InputShape
from sbi_core.embeddings.deepset import DeepsetEmbedding
from sbi_core.embeddings.transformer import TransformerConfig, TransformerEmbedding
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.rng import stream


def module_of(shape=(6,), **options):
    torch.manual_seed(3)
    return TransformerEmbedding(TransformerConfig(width=16, hidden=(8,))).build(
        InputShape(shape, **options)
    )


def test_elements_of_a_vector_have_a_place():
    module = module_of()
    x = torch.randn(3, 6)
    assert module(x, None, None, None).shape == (3, 8)
    assert (module(x.flip(1), None, None, None) - module(x, None, None, None)).abs().max() > 1e-3


def test_missing_elements_are_not_attended_to():
    module = module_of(has_mask=True)
    mask = torch.tensor([[1.0, 1, 0, 1, 0, 1]])
    x = torch.randn(1, 6)
    other = torch.where(mask > 0, x, 77.0)
    assert torch.equal(module(x, None, mask, None), module(other, None, mask, None))
    assert torch.isfinite(module(x, None, torch.zeros(1, 6), None)).all()


@pytest.mark.parametrize("embedding", [TransformerEmbedding, DeepsetEmbedding])
def test_what_is_not_observed_changes_no_bit_of_an_estimator(embedding, bounded_sets):
    training = bounded_sets
    made = (
        TransformerEmbedding(TransformerConfig(width=16, blocks=1, hidden=(8,)))
        if embedding is TransformerEmbedding
        else embedding()
    )
    estimator = MixtureEstimator(MixtureConfig(components=1, hidden=(8,)))
    estimator.fit(training, made)
    batch = training.observe(training.batch[:5], stream(4))
    other = batch.with_(x=torch.where(batch.mask, batch.x, 99.0))
    assert_array_equal(estimator.sample(batch, 4, 1), estimator.sample(other, 4, 1))
    # a set may come with less padding than in training, not with more members
    few = batch.with_(x=batch.x[:, :3], mask=batch.mask[:, :3])
    assert np.isfinite(estimator.sample(few, 4, 1)).all()
    more = batch.with_(x=torch.cat([batch.x] * 2, 1), mask=torch.cat([batch.mask] * 2, 1))
    with pytest.raises(ObservationError, match=r"x \(10, 2\)"):
        estimator.sample(more, 4, 1)


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(ValidationError, match="must divide"):
        TransformerConfig(width=10, heads=4)
    with pytest.raises(ConfigError, match=r"got \(1, 2, 3\)"):
        TransformerEmbedding().build(InputShape((1, 2, 3)))
