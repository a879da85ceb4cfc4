r"""Search for the options of the estimator and its training, with optuna.

Every trial trains on the same simulations and is scored on the validation rows, whose loss the
training loop watches anyway; the test rows stay untouched:

.. math:: \text{score} = -\,E_\mathrm{val} \log q(z \mid x)
          + w \cdot \tfrac1d \sum_{k=1}^d \max\left(0,\; D_k - \tfrac{0.83}{\sqrt B}\right)

in nats, with :math:`D_k` the Kolmogorov-Smirnov distance of the SBC ranks of parameter k on B
validation rows and 0.83/sqrt(B) its median for uniform ranks. Trials are kept in a journal in the
run directory: the same command goes on where it was interrupted. Trials that are clearly worse
than the median at the same epoch are stopped.

References:
    | Akiba et al. 2019, "Optuna", arXiv:1907.10902
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from sbi_core.data.batch import Batch
from sbi_core.data.writing import atomic_write
from sbi_core.diagnostics import sbc_ranks
from sbi_core.errors import ConfigError, SbiError, counted
from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.config import RunConfig, assign, resolve
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.runner import execute
from sbi_core.progress import Progress
from sbi_core.registry import Registry
from sbi_core.rng import stream, torch_defaults
from sbi_core.training.splits import splits_of

__all__ = ["Search", "Tuned", "default_search", "tune"]

_CHECKED = 300  # validation rows of the calibration penalty
_DRAWS = 100
_MEDIAN_KS = 0.83
_SHARED = ("simulations", "streamed")  # what a context caches about simulations


@dataclass(frozen=True)
class Search:
    """Values of one option to search.

    Parameters
    ----------
    key
        Option, e.g. ``train.learning_rate``.
    choices
        Values to choose from; or None for a range.
    low, high
        Ends of the range, both included; integers make it a range of integers.
    log
        Search in the logarithm.
    """

    key: str
    choices: tuple[Any, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    @classmethod
    def parse(cls, text: str) -> Search:
        """Read ``KEY=A,B,C`` (JSON values), ``KEY=LOW:HIGH`` or ``KEY=LOW:HIGH:log``.

        Raises
        ------
        ConfigError
            If it is none of them.
        """
        key, _, values = text.partition("=")
        try:
            if ":" in values:
                low, high, *rest = values.split(":")
                if rest not in ([], ["log"]):
                    raise ValueError(values)
                ends = json.loads(low), json.loads(high)
                if not ends[0] < ends[1] or (rest and ends[0] <= 0):
                    raise ValueError(values)
                return cls(key, None, *ends, bool(rest))
            choices = tuple(json.loads(f"[{values}]"))
            if not key or not choices:
                raise ValueError(values)
        except (ValueError, TypeError):
            msg = (
                f"cannot read '{text}': use KEY=LOW:HIGH, KEY=LOW:HIGH:log or KEY=A,B,C, "
                "e.g. train.learning_rate=1e-3:1e-2:log"
            )
            raise ConfigError(msg) from None
        return cls(key, choices)

    def suggest(self, trial: Any) -> Any:
        """Return the value of an optuna trial."""
        if self.choices is not None:
            # optuna stores plain values only: lists by their number
            return self.choices[trial.suggest_categorical(self.key, list(range(len(self.choices))))]
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.key, self.low, self.high, log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Tuned:
    """Result of a search.

    Parameters
    ----------
    options
        The best values by key.
    score
        Their score; smaller is better.
    trials
        Finished trials: number, score (None if it was stopped or failed), state, values.
    path
        ``best.toml``, for ``sbi-run --config``.
    """

    options: Mapping[str, Any]
    score: float
    trials: tuple[Mapping[str, Any], ...]
    path: Path


def default_search(config: RunConfig) -> list[Search]:
    """Return the default search: learning rate, batch size and size of the network."""
    searched = [
        Search("train.learning_rate", None, 5e-4, 1e-2, True),
        Search("train.batch_size", (128, 256, 512, 1024)),
    ]
    options = config.estimator.options
    if "transforms" in options:
        searched.append(Search("estimator.transforms", None, 3, 8))
    if "components" in options:
        searched.append(Search("estimator.components", None, 2, 12))
    widths = (32, 64, 128, 256)
    if isinstance(options.get("hidden"), int):
        searched.append(Search("estimator.hidden", widths))
    elif "hidden" in options:
        depth = max(len(options["hidden"]), 1)
        searched.append(Search("estimator.hidden", tuple([w] * depth for w in widths)))
    return searched


@torch_defaults()
def tune(
    registry: Registry,
    plugin: str,
    out: str | Path,
    *,
    trials: int = 20,
    search: Iterable[Search] = (),
    calibration_weight: float = 1.0,
    progress: Progress | None = None,
    preset: str = "standard",
    **options: Any,
) -> Tuned:
    """Search for better options of the estimator and its training; continue an earlier search.

    Parameters
    ----------
    registry, plugin, preset
        The pipeline.
    out
        Run directory; its simulations are made once and also serve a later run.
    trials
        Total number of trials, those of earlier calls included.
    search
        Options to search; default: :func:`default_search`.
    calibration_weight
        w, nats per unit of KS distance.
    options
        As for :func:`sbi_core.pipeline.config.resolve`.

    Raises
    ------
    ConfigError
        If optuna is not installed, or an option does not exist.
    SbiError
        If no trial finished.
    """
    optuna = _optuna()
    progress = progress or Progress()
    fixed = [*options.pop("overrides", ())]
    config = resolve(registry, plugin, preset=preset, overrides=fixed, **options)
    searched = list(search) or default_search(config)
    for s in searched:  # a wrong key is an error before anything is simulated
        first = s.low if s.choices is None else s.choices[0]
        word = f"{s.key}={json.dumps(first)}"
        resolve(registry, plugin, preset=preset, overrides=[*fixed, word], **options)
    execute(config, out, registry, stages=["simulate"], progress=progress)
    directory = RunDirectory(out)
    base = Context(config, registry, directory, progress)
    folder = directory.root / "tune"
    folder.mkdir(exist_ok=True)
    study = _study(optuna, folder, config, searched, calibration_weight)

    def objective(trial: Any) -> float:
        values = {s.key: s.suggest(trial) for s in searched}
        words = [*fixed, *(f"{k}={json.dumps(v)}" for k, v in values.items())]
        chosen = resolve(registry, plugin, preset=preset, overrides=words, **options)
        return _score(optuna, trial, replace_config(base, chosen), calibration_weight)

    done = [t for t in study.trials if t.state.is_finished()]
    progress.start("tune", trials, "trials")
    progress.skip(min(len(done), trials))
    if len(done) < trials:
        study.optimize(
            objective,
            n_trials=trials - len(done),
            catch=(SbiError,),
            callbacks=[lambda s, t: progress.advance(1, _best_words(s))],
        )
    scored = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    if not scored:
        msg = (
            f"none of {counted(trials, 'trial')} finished; see '{folder}' and the options searched"
        )
        raise SbiError(msg)
    best = min(scored, key=lambda t: t.value)
    values = {s.key: s.suggest(optuna.trial.FixedTrial(best.params)) for s in searched}
    path = folder / "best.toml"
    tree: dict[str, Any] = {}
    for key, value in values.items():
        assign(tree, key, value)
    with atomic_write(path) as f:
        f.write(tomli_w.dumps(tree))
    progress.finish(f"best score {best.value:.4f} nats: {path}")
    table = tuple(
        {"number": t.number, "score": t.value, "state": t.state.name.lower(), **t.params}
        for t in study.trials
        if t.state.is_finished()
    )
    return Tuned(values, float(best.value), table, path)


def replace_config(base: Context, config: RunConfig) -> Context:
    """Return a context with another configuration and the same simulations."""
    made = Context(config, base.registry, base.directory, Progress())
    base.training  # noqa: B018  # reads the simulations once, for all trials
    made.__dict__["simulator"] = base.simulator
    made.__dict__.update({k: base.__dict__[k] for k in _SHARED if k in base.__dict__})
    return made


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        msg = f"tuning needs optuna: pip install 'sbi-core[tune]' ({error})"
        raise ConfigError(msg) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(
    optuna: Any, folder: Path, config: RunConfig, searched: list[Search], weight: float
) -> Any:
    """Open the journal; refuse one of another search."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    fixed = config.model_dump(mode="json", include={"estimator", "embedding", "train", "simulator"})
    what = json.dumps({"search": repr(searched), "weight": weight, "fixed": fixed}, sort_keys=True)
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    names = [s.study_name for s in optuna.get_all_study_summaries(storage)]
    before = len(optuna.load_study(study_name="tune", storage=storage).trials) if names else 0
    study = optuna.create_study(
        storage=storage,
        study_name="tune",
        load_if_exists=True,
        direction="minimize",
        sampler=optuna.samplers.TPESampler(seed=config.seed + before),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=5),
    )
    known = study.user_attrs.get("what")
    if known is None:
        study.set_user_attr("what", what)
    elif known != what:
        msg = f"'{folder}' holds another search; choose another --out, or delete that folder"
        raise ConfigError(msg)
    return study


def _score(optuna: Any, trial: Any, context: Context, weight: float) -> float:
    training = replace(context.training, directory=None)
    estimator = context.new_estimator()

    def watch(line: Mapping[str, float]) -> None:
        trial.report(line["val_loss"], int(line["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    record = estimator.fit(training, context.embedding, [watch])
    loss = min(line["val_loss"] for line in record.history)
    if weight <= 0:
        return loss
    rows = splits_of(training).val[:_CHECKED]
    seed = context.config.seed
    clean = training.batch[rows]
    assert isinstance(clean, Batch)
    batch = training.observe(clean, stream(seed, "tune", "noise"))
    assert batch.theta is not None
    theta = batch.theta.double().cpu().numpy()[:, list(training.columns)]
    draws = estimator.sample(batch, _DRAWS, stream(seed, "tune", "draws"))
    ranks = sbc_ranks(draws, theta, stream(seed, "tune", "ties"))
    return loss + weight * _excess(ranks)


def _excess(ranks: Any) -> float:
    """Mean excess of the KS distance of ranks (B, d) over its median for uniform ones."""
    t = np.arange(1, _DRAWS + 1) / (_DRAWS + 1)
    counts = np.array([np.bincount(r, minlength=_DRAWS + 1)[:-1].cumsum() for r in ranks.T])
    distance = np.abs(counts / len(ranks) - t).max(axis=1)
    return float(np.maximum(0.0, distance - _MEDIAN_KS / math.sqrt(len(ranks))).mean())


def _best_words(study: Any) -> str:
    try:
        return f"best score {study.best_value:.4f}"
    except ValueError:
        return "no score yet"
