import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_core.components import InputShape
from sbi_core.data.batch import Batch
from sbi_core.embeddings.mlp import MlpEmbedding
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.estimators.mixture import MixtureHead
from sbi_core.rng import stream
from sbi_core.training.networks import ConditionalNetwork, Standardizer


def data(n=400, shape=(5,)):
    rng = stream(2)
    mask = torch.as_tensor(rng.random((n, *shape)) < 0.7)
    x = torch.as_tensor(rng.normal(3.0, 10.0, (n, *shape))).float()
    err = torch.as_tensor(10 ** rng.uniform(-3, 0, (n, *shape))).float()
    context = torch.as_tensor(rng.normal(-1.0, 0.1, (n, 2))).float()
    return Batch(x=x, x_err=err, mask=mask, context=context)


def network(batch):
    shape = InputShape.of(batch)
    module = MlpEmbedding().build(shape)
    head = MixtureHead(module.out_features, 2, 3, (16,))
    return ConditionalNetwork(Standardizer(shape).fit(batch), module, head)


def test_observed_entries_are_standardised_and_the_rest_is_zero():
    batch = data()
    x, err, mask, context = Standardizer(InputShape.of(batch)).fit(batch)(batch)
    for value in (x, err):
        assert (value[~batch.mask] == 0).all()
        for column in range(5):
            seen = value[batch.mask[:, column], column].double()
            assert_allclose(seen.mean(), 0, atol=1e-5)
            assert_allclose(seen.std(correction=0), 1, atol=1e-5)
    assert torch.equal(mask, batch.mask.float())
    assert_allclose(context.double().std(0, correction=0), 1, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -7.0])
def test_what_is_not_observed_changes_no_bit(value):
    batch = data()
    net, z = network(batch), torch.randn(400, 2)
    other = batch.with_(
        x=torch.where(batch.mask, batch.x, value),
        x_err=torch.where(batch.mask, batch.x_err, value),
    )
    assert torch.equal(net.features(batch), net.features(other))
    assert torch.equal(net.loss(z, batch), net.loss(z, other))
    a, b = (Standardizer(InputShape.of(batch)).fit(d).state_dict() for d in (batch, other))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("cut", [lambda h: h[:, :5], lambda h: h[:64]])
def test_features_of_another_shape_in_long_batches_are_explained(cut):
    batch = data()
    net = network(batch)
    forward = net.embedding.forward
    net.embedding.forward = lambda *inputs: cut(forward(*inputs))
    with pytest.raises(ConfigError, match=r"_Mlp' returns \(\d+, \d+\) for 400 rows, not \(400"):
        net.features(batch)


@pytest.mark.parametrize("name", ["mine", ""])
def test_an_embedding_that_fails_in_long_batches_is_named(name):
    batch = data()
    net = network(batch)
    net = ConditionalNetwork(net.standardizer, net.embedding, net.head, name)
    forward = net.embedding.forward

    def short(x, *rest):
        return forward(x, *rest) if len(x) <= 8 else torch.ones(2, 3) @ torch.ones(2, 3)

    net.embedding.forward = short
    net.features(batch[:8])
    message = rf"^embedding '{name or '_Mlp'}' raised RuntimeError: mat1 and .*\) for 400 rows$"
    with pytest.raises(ConfigError, match=message):
        net.features(batch)


def test_gradients_stay_finite_when_what_is_not_observed_is_nan():
    batch = data()
    net = network(batch)
    hidden = batch.with_(x=torch.where(batch.mask, batch.x, torch.nan))
    net.loss(torch.randn(400, 2), hidden).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_missing_context_is_its_mean():
    batch = data()
    net = network(batch)
    hidden = batch.context.clone()
    hidden[:, 0] = torch.nan
    filled = batch.context.clone()
    filled[:, 0] = net.standardizer.context_mean[0]
    a, b = (net.features(batch.with_(context=c)) for c in (hidden, filled))
    assert torch.equal(a, b)


def test_a_constant_column_is_only_shifted():
    x = torch.stack([torch.full((50,), 0.3), torch.linspace(0, 1, 50)], 1)
    batch = Batch(x=x)
    out = Standardizer(InputShape.of(batch)).fit(batch)(batch)[0]
    assert_allclose(out[:, 0], 0, atol=1e-6)
    assert_allclose(Standardizer(InputShape.of(batch)).fit(batch).x_scale[0], 1)


@pytest.mark.parametrize(
    ("pooling", "size"), [("element", (3, 4)), ("channel", (3, 1)), ("feature", (1, 4))]
)
def test_pooling_says_which_entries_share_a_scale(pooling, size):
    batch = data(shape=(3, 4))
    standardizer = Standardizer(InputShape.of(batch), pooling).fit(batch)
    assert standardizer.x_mean.shape == size
    seen = standardizer(batch)[0][batch.mask].double()
    assert_allclose([seen.mean(), seen.std()], [0, 1], atol=1e-3)


def test_data_of_another_kind_are_refused():
    batch = data()
    net = network(batch)
    with pytest.raises(ObservationError, match=r"x \(4,\)"):
        net.standardizer.check(data(shape=(4,)))
    with pytest.raises(ObservationError, match="x_err"):
        net.standardizer.check(batch.with_(x_err=None))
    complete = Standardizer(InputShape((5,), context=2))
    with pytest.raises(ObservationError, match="complete data"):
        complete.check(batch)
    complete.check(batch.with_(mask=torch.ones_like(batch.mask)))  # an all-true mask is no mask


def test_data_may_come_in_double_precision():
    batch = data()
    net = network(batch)
    a, b = net.features(batch), net.features(batch.to("cpu", torch.float64))
    assert b.dtype == torch.float32
    assert_allclose(a.detach(), b.detach(), atol=1e-5)


def test_raw_input_is_passed_on_as_it_is():
    batch = data()
    shape = InputShape.of(batch)
    x, err, _, _ = Standardizer(shape, "raw").fit(batch)(batch)
    assert torch.equal(x, torch.where(batch.mask, batch.x, 0.0))
    assert_allclose(err[batch.mask].mean(), 0, atol=0.1)  # errors are standardised all the same
