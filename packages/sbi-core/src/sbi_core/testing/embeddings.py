"""Promises of an embedding: its width, its invariances, and that it can be stored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from sbi_core.components import Embedding, InputShape
from sbi_core.errors import SbiError
from sbi_core.testing.outcome import NotApplicable, bind, require, run_all

__all__ = ["EMBEDDING_CHECKS", "EmbeddingCase", "check_embedding"]

# A vector, a set, a long series, an image: at least one of them must be welcome.
SHAPES = (
    InputShape((8,), has_err=True, has_mask=True),
    InputShape((8,)),
    InputShape((6, 3), context=1, has_err=True, has_mask=True),
    InputShape((2, 128), has_err=True, has_mask=True),
    InputShape((256,), has_err=True, has_mask=True),
    InputShape((1, 16, 16), has_mask=True),
)
_SETS = (InputShape((6, 3), context=1, has_err=True, has_mask=True), InputShape((6, 3)))


@dataclass
class EmbeddingCase:
    """An embedding with the shapes it takes.

    Parameters
    ----------
    embedding
        The embedding.
    shapes
        Shapes of one row; those it refuses with an error of sbi_core are left out.
    """

    embedding: Embedding
    shapes: Sequence[InputShape] = ()
    _built: list[tuple[InputShape, nn.Module]] = field(default_factory=list)

    @property
    def modules(self) -> list[tuple[InputShape, nn.Module]]:
        """A module for every shape that it takes."""
        if not self._built:
            refused = []
            candidates = self.shapes or (_SETS if self.embedding.takes_sets else SHAPES)
            for shape in candidates:
                try:
                    with _seed(1):
                        self._built.append((shape, self.embedding.build(shape).eval()))
                except SbiError as error:
                    refused.append(str(error))
            require(
                bool(self._built),
                f"build refuses every shape ({'; '.join(refused)})",
                "pass the shape it is for: check_embedding(embedding, shapes=[InputShape(...)])",
            )
        return self._built


class _seed:  # noqa: N801
    """A fixed state of torch's global generator, from which modules are initialised."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self.state = torch.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *_: object) -> None:
        torch.set_rng_state(self.state)


Data = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]


def _data(shape: InputShape, n: int, seed: int = 2) -> Data:
    """Return standardised x, x_err, mask and context; zeros where nothing was observed."""
    gen = torch.Generator().manual_seed(seed)
    mask = (torch.rand((n, *shape.x), generator=gen) > 0.2).float()
    if len(shape.x) == 2:  # a set: whole members are missing, the first one never
        mask = (torch.rand((n, shape.x[0], 1), generator=gen) > 0.3).float().expand(mask.shape)
        mask = mask.clone()
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


def _rows(data: Data, rows: slice) -> Data:
    x, err, mask, context = (None if d is None else d[rows] for d in data)
    assert x is not None
    return x, err, mask, context


@torch.no_grad()
def _apply(module: nn.Module, data: Data) -> Tensor:
    out: Tensor = module(*data)
    return out


def _off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max()) if a.shape == b.shape else float("inf")


def check_can_be_built_again(case: EmbeddingCase) -> None:
    """Name and options describe it: an estimator stores them and builds it again from them."""
    embedding = case.embedding
    name = getattr(embedding, "name", None)
    require(
        isinstance(name, str) and bool(name),
        f"attribute 'name' is {name!r}",
        "set it to the name it is registered under",
    )
    require(
        isinstance(getattr(embedding, "takes_sets", None), bool),
        "attribute 'takes_sets' is missing or no bool",
        "write takes_sets = False, or True where a row is a set whose order does not matter",
    )
    config: Any = getattr(embedding, "config", "missing")
    require(
        config is None or isinstance(config, BaseModel),
        f"attribute 'config' is {config!r}",
        "keep the pydantic model of the options there, or None where there are none",
    )
    if config is None:
        return
    options = json.loads(json.dumps(config.model_dump(mode="json")))
    again = type(config).model_validate(options)
    require(again == config, f"options {config} read back as {again}", "use JSON-like option types")


def check_width_is_what_it_says(case: EmbeddingCase) -> None:
    """(n, out_features) finite numbers, for one row and for several."""
    for shape, module in case.modules:
        width: Any = getattr(module, "out_features", None)
        require(
            isinstance(width, int) and width > 0,
            f"the module for {shape} has out_features = {width!r}",
            "set self.out_features in its __init__",
        )
        for n in (1, 5):
            out = _apply(module, _data(shape, n))
            require(
                tuple(out.shape) == (n, width),
                f"for {shape} and {n} row(s) it returns {tuple(out.shape)}, not ({n}, {width})",
                "return (n, out_features)",
            )
            require(bool(torch.isfinite(out).all()), f"for {shape} it returns NaN", "mend forward")


def check_rows_are_independent(case: EmbeddingCase) -> None:
    """A row has the same summary alone and among others; no batch normalisation."""
    for shape, module in case.modules:
        batch = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        require(
            not batch,
            f"the module for {shape} uses {type(batch[0]).__name__ if batch else ''}",
            "use LayerNorm or GroupNorm: with batch normalisation an object's posterior depends on "
            "the objects beside it",
        )
        data = _data(shape, 6)
        off = _off(_apply(module, data)[2:3], _apply(module, _rows(data, slice(2, 3))))
        require(
            off < 1e-4,
            f"for {shape} the summary of a row changes by {off:.2g} with its company",
            "compute each row by itself",
        )


def check_same_input_same_output(case: EmbeddingCase) -> None:
    """In evaluation mode two calls agree to the last bit."""
    for shape, module in case.modules:
        data = _data(shape, 4)
        off = _off(_apply(module, data), _apply(module, data))
        require(
            off == 0.0,
            f"for {shape} two calls in evaluation mode differ by {off:.2g}",
            "randomness (dropout) must stop in evaluation mode",
        )


def check_every_weight_learns(case: EmbeddingCase) -> None:
    """A gradient reaches every parameter."""
    for shape, module in case.modules:
        if not any(p.requires_grad for p in module.parameters()):
            continue
        with _seed(3):
            module.train()
            out: Tensor = module(*_data(shape, 16))
            torch.autograd.backward(out.square().sum())
        module.eval()
        dead = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
        wild = [
            n
            for n, p in module.named_parameters()
            if p.grad is not None and not bool(torch.isfinite(p.grad).all())
        ]
        module.zero_grad(set_to_none=True)
        require(
            not dead, f"for {shape} no gradient reaches {dead}", "use or remove these parameters"
        )
        require(not wild, f"for {shape} the gradient of {wild} is not finite", "mend forward")


def check_weights_can_be_stored(case: EmbeddingCase) -> None:
    """Weights written as safetensors and loaded into a fresh module give the same bits."""
    from safetensors.torch import load, save

    for shape, module in case.modules:
        try:
            stored = save({k: v.contiguous() for k, v in module.state_dict().items()})
        except RuntimeError as error:
            require(False, f"weights cannot be stored: {error}", "share no tensor between names")
        with _seed(99):
            fresh = case.embedding.build(shape)
        fresh.load_state_dict(load(stored))
        data = _data(shape, 4)
        off = _off(_apply(fresh.eval(), data), _apply(module, data))
        require(
            off == 0.0,
            f"for {shape} the stored and reloaded module differs by {off:.2g}",
            "keep everything that matters in parameters and buffers, or in the options",
        )


def check_sets_have_no_order(case: EmbeddingCase) -> None:
    """The order of the members of a set, and padding, change nothing."""
    if not case.embedding.takes_sets:
        msg = "it does not take sets"
        raise NotApplicable(msg)
    for shape, module in case.modules:
        x, err, mask, context = _data(shape, 4)
        order = torch.randperm(shape.x[0], generator=torch.Generator().manual_seed(4))
        turned = [None if d is None else d[:, order] for d in (x, err, mask)]
        off = _off(
            _apply(module, (x, err, mask, context)),
            _apply(module, (turned[0], turned[1], turned[2], context)),  # type: ignore[arg-type]
        )
        require(
            off < 1e-5,
            f"for {shape} the order of members changes the summary by {off:.2g}",
            "pool over members; use no position",
        )
        if mask is None:
            continue
        padded = [
            None if d is None else torch.cat([d, torch.zeros_like(d[:, :2])], 1)
            for d in (x, err, mask)
        ]
        off = _off(
            _apply(module, (x, err, mask, context)),
            _apply(module, (padded[0], padded[1], padded[2], context)),  # type: ignore[arg-type]
        )
        require(
            off < 1e-6,
            f"for {shape} two padded members change the summary by {off:.2g}",
            "leave members whose mask is 0 out of every sum and count",
        )


EMBEDDING_CHECKS = (
    check_can_be_built_again,
    check_width_is_what_it_says,
    check_rows_are_independent,
    check_same_input_same_output,
    check_every_weight_learns,
    check_weights_can_be_stored,
    check_sets_have_no_order,
)


def check_embedding(embedding: Embedding, shapes: Sequence[InputShape] = ()) -> None:
    """Run all checks of an embedding.

    Parameters
    ----------
    embedding
        The embedding.
    shapes
        Shapes of one row it is for; some usual ones when left out.

    Raises
    ------
    ConformanceError
        With every promise that is broken.
    """
    case = EmbeddingCase(embedding, shapes)
    name = str(getattr(embedding, "name", type(embedding).__name__))
    run_all(bind("embedding", name, EMBEDDING_CHECKS, lambda: case))
