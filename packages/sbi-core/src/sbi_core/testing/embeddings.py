"""Requirements on an embedding: its width, its invariances, and that it can be stored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from pydantic import BaseModel
from safetensors.torch import load, save
from torch import Tensor, nn

from sbi_core.components import Embedding, InputShape
from sbi_core.errors import SbiError
from sbi_core.testing.checks import Checks, fail, once, skip

__all__ = ["EmbeddingChecks"]

# A vector, a set, a long series, an image: at least one of them must be welcome.
_SHAPES = (
    InputShape((8,), has_err=True, has_mask=True),
    InputShape((8,)),
    InputShape((6, 3), context=1, has_err=True, has_mask=True),
    InputShape((2, 128), has_err=True, has_mask=True),
    InputShape((256,), has_err=True, has_mask=True),
    InputShape((1, 16, 16), has_mask=True),
)
_SETS = (InputShape((6, 3), context=1, has_err=True, has_mask=True), InputShape((6, 3)))

Data = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]


class EmbeddingChecks(Checks[Embedding]):
    """An embedding has the width it declares, treats rows alike, and can be stored.

    Attributes
    ----------
    shapes
        Shapes of one row it is for; some usual ones when left out. Those it refuses with an
        error of sbi_core are not tested.
    """

    shapes: ClassVar[Sequence[InputShape]] = ()

    @once
    def modules(self) -> list[tuple[InputShape, nn.Module]]:
        """A module for every shape that it takes."""
        built, refused = [], []
        for shape in self.shapes or (_SETS if self.subject.takes_sets else _SHAPES):
            try:
                with _seeded(1):
                    built.append((shape, self.subject.build(shape).eval()))
            except SbiError as error:
                refused.append(str(error))
        assert built, (
            f"build refuses every shape ({'; '.join(refused)}); "
            "set the shape it is for: shapes = [InputShape(...)] in the class of its tests"
        )
        return built

    def test_can_be_built_again(self) -> None:
        """Name and options describe it: an estimator stores them and builds it again from them."""
        embedding = self.subject
        name = getattr(embedding, "name", None)
        if not name or not isinstance(name, str):
            fail(f"attribute 'name' is {name!r}; set it to the name it is registered under")
        assert isinstance(getattr(embedding, "takes_sets", None), bool), (
            "attribute 'takes_sets' is missing or no bool; "
            "write takes_sets = False, or True where a row is a set whose order does not matter"
        )
        config: Any = getattr(embedding, "config", "missing")
        assert config is None or isinstance(config, BaseModel), (
            f"attribute 'config' is {config!r}; "
            "keep the pydantic model of the options there, or None where there are none"
        )
        if config is not None:
            options = json.loads(json.dumps(config.model_dump(mode="json")))
            again = type(config).model_validate(options)
            assert again == config, (
                f"options {config} read back as {again}; use JSON-like option types"
            )

    def test_width_is_out_features(self) -> None:
        """(n, out_features) finite numbers, for one row and for several."""
        for shape, module in self.modules:
            width: Any = getattr(module, "out_features", None)
            if not isinstance(width, int) or width < 1:
                fail(f"out_features of the module for {shape} is {width!r}; set it in __init__")
            for n in (1, 5):
                out = _apply(module, _data(shape, n))
                assert tuple(out.shape) == (n, width), (
                    f"for {shape} and {n} rows it returns {tuple(out.shape)}, not ({n}, {width}); "
                    "return (n, out_features)"
                )
                finite = bool(torch.isfinite(out).all())
                assert finite, f"for {shape} it returns NaN; correct forward"

    def test_rows_are_independent(self) -> None:
        """A row has the same summary alone and among others; no batch normalisation."""
        for shape, module in self.modules:
            batch = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            assert not batch, (
                f"the module for {shape} uses {type(batch[0]).__name__ if batch else ''}; "
                "use LayerNorm or GroupNorm: with batch normalisation an object's posterior "
                "depends on the other objects of the batch"
            )
            data = _data(shape, 6)
            alone: Any = tuple(None if d is None else d[2:3] for d in data)
            off = _off(_apply(module, data)[2:3], _apply(module, alone))
            assert off < 1e-4, (
                f"for {shape} the summary of a row changes by {off:.2g} with the other rows; "
                "compute each row by itself"
            )

    def test_same_input_same_output(self) -> None:
        """In evaluation mode two calls agree to the last bit."""
        for shape, module in self.modules:
            data = _data(shape, 4)
            off = _off(_apply(module, data), _apply(module, data))
            assert off == 0.0, (
                f"for {shape} two calls in evaluation mode differ by {off:.2g}; "
                "randomness (dropout) must stop in evaluation mode"
            )

    def test_every_weight_learns(self) -> None:
        """A finite gradient reaches every parameter."""
        for shape, module in self.modules:
            learning = {n: p for n, p in module.named_parameters() if p.requires_grad}
            if not learning:
                continue
            with _seeded(3):
                out: Tensor = module.train()(*_data(shape, 16))
                torch.autograd.backward(out.square().sum())
            module.eval()
            gradients = {n: p.grad for n, p in learning.items()}
            module.zero_grad(set_to_none=True)
            dead = [n for n, g in gradients.items() if g is None]
            assert not dead, f"for {shape} no gradient reaches {dead}; use or remove them"
            wild = [n for n, g in gradients.items() if g is not None and not g.isfinite().all()]
            assert not wild, f"for {shape} the gradient of {wild} is not finite; correct forward"

    def test_weights_can_be_stored(self) -> None:
        """Weights written as safetensors and loaded into a fresh module give the same bits."""
        for shape, module in self.modules:
            try:
                stored = save({k: v.contiguous() for k, v in module.state_dict().items()})
            except RuntimeError as error:
                fail(f"weights cannot be stored: {error}; share no tensor between names")
            with _seeded(99):
                fresh = self.subject.build(shape)
            fresh.load_state_dict(load(stored))
            data = _data(shape, 4)
            off = _off(_apply(fresh.eval(), data), _apply(module, data))
            assert off == 0.0, (
                f"for {shape} the stored and reloaded module differs by {off:.2g}; "
                "keep everything that matters in parameters and buffers, or in the options"
            )

    def test_sets_have_no_order(self) -> None:
        """The order of the members of a set, and padding, change nothing."""
        if not self.subject.takes_sets:
            skip("it does not take sets")
        for shape, module in self.modules:
            *parts, context = _data(shape, 4)
            order = torch.randperm(shape.x[0], generator=torch.Generator().manual_seed(4))
            turned: Any = [None if d is None else d[:, order] for d in parts]
            padded: Any = [
                None if d is None else torch.cat([d, torch.zeros_like(d[:, :2])], 1) for d in parts
            ]
            plain = _apply(module, (*parts, context))
            off = _off(plain, _apply(module, (*turned, context)))
            assert off < 1e-5, (
                f"for {shape} the order of members changes the summary by {off:.2g}; "
                "pool over members; use no position"
            )
            if shape.has_mask:
                off = _off(plain, _apply(module, (*padded, context)))
                assert off < 1e-6, (
                    f"for {shape} two padded members change the summary by {off:.2g}; "
                    "leave members whose mask is 0 out of every sum and count"
                )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Fix torch's global generator, from which modules are initialised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _data(shape: InputShape, n: int) -> Data:
    """Return standardised x, x_err, mask and context; zeros where nothing was observed."""
    gen = torch.Generator().manual_seed(2)
    mask = (torch.rand((n, *shape.x), generator=gen) > 0.2).float()
    if len(shape.x) == 2:  # a set: whole members are missing, the first one never
        mask = (
            (torch.rand((n, shape.x[0], 1), generator=gen) > 0.3).float().repeat(1, 1, shape.x[1])
        )
        mask[:, 0] = 1.0
    x = torch.randn((n, *shape.x), generator=gen)
    err = torch.randn((n, *shape.x), generator=gen)
    context = torch.randn((n, shape.context), generator=gen)
    if shape.has_mask:
        x, err = x * mask, err * mask
    return (
        x,
        err if shape.has_err else None,
        mask if shape.has_mask else None,
        context if shape.context else None,
    )


@torch.no_grad()
def _apply(module: nn.Module, data: Any) -> Tensor:
    out: Tensor = module(*data)
    return out


def _off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) if a.shape == b.shape else float("inf")
