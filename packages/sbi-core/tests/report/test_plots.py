import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from sbi_core.report import plots

LABELS = [r"\alpha", r"\beta"]


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def drawers(inputs):
    """Every plot of one panel, by name, as a function of axes."""
    arrays = inputs["arrays"]
    theta, mean, sd = arrays["theta"], arrays["mean"], arrays["sd"]
    combined = inputs["report"]["combined"]
    literature = [{"label": "x", "n": 200, "parameters": {"alpha_imf": {"mean": -2.1, "sd": 0.1}}}]
    return {
        "sbc_ecdf": lambda ax: plots.sbc_ecdf(arrays["ranks"], 200, LABELS, ax),
        "coverage": lambda ax: plots.coverage(
            arrays["coverage_levels"], arrays["coverage_values"], 500, ax, labels=LABELS
        ),
        "tarp": lambda ax: plots.tarp(arrays["tarp_levels"], arrays["tarp_ecp"], ax, n=500),
        "training_curve": lambda ax: plots.training_curve(inputs["history"], ax),
        "recovery": lambda ax: plots.recovery(theta[:, 0], mean[:, 0], sd[:, 0], LABELS[0], ax),
        "convergence": lambda ax: plots.convergence(
            combined, "alpha_imf", LABELS[0], ax, literature=literature
        ),
        "pulls": lambda ax: plots.pulls(combined, "alpha_imf", LABELS[0], ax),
    }


NAMES = ["sbc_ecdf", "coverage", "tarp", "training_curve", "recovery", "convergence", "pulls"]


@pytest.mark.parametrize("name", NAMES)
def test_plots_draw_on_the_given_axes_and_return_them(name, inputs, ax):
    assert drawers(inputs)[name](ax) is ax
    assert ax.lines


@pytest.mark.parametrize("name", NAMES)
def test_plots_make_their_own_axes_otherwise_and_leave_settings_alone(name, inputs):
    before = dict(mpl.rcParams)
    made = drawers(inputs)[name](None)
    assert isinstance(made.figure, Figure)
    assert dict(mpl.rcParams) == before


def test_combined_calibration_takes_two_axes_and_numbers_per_parameter():
    axes = Figure().subplots(1, 2)
    entries = [
        {"combiner": "gaussian", "n": n, "z_rms": {"a": 1.0, "b": 1.2}, "coverage_68": 0.68}
        for n in (1, 100)
    ]
    left, right = plots.combined_calibration(entries, axes)
    assert (left, right) == tuple(axes)
    names = left.get_legend_handles_labels()[1]
    assert names == ["gaussian, a", "gaussian, b"]


def test_corner_contours_enclose_the_mass_they_promise(rng):
    samples = rng.standard_normal((20_000, 2))
    ax = plots.corner(samples, ["a", "b"]).axes[2]
    lines = [c for c in ax.collections if not len(c.get_facecolor())]
    for level, path in zip((0.95, 0.68), lines[-1].get_paths(), strict=True):
        inside = path.contains_points(samples).mean()
        assert inside == pytest.approx(level, abs=0.03)  # smoothing widens contours a little


def test_corner_lays_a_second_posterior_over_the_first(rng):
    samples = rng.standard_normal((500, 3))
    labels = ["a", "b", "c"]
    figure = plots.corner(samples, labels, [0, np.nan, 0], prior=3 * samples, name="one")
    again = plots.corner(samples + 1, labels, figure=figure, colour="red", name="two")
    assert again is figure
    assert len(figure.axes) == 9
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["one", "two"]


@pytest.mark.parametrize(("d", "one"), [(2, r"$a\ [\mathrm{Gyr}]$"), (6, "$a$\n$[\\mathrm{Gyr}]$")])
def test_units_stand_on_a_second_line_where_the_panels_of_a_corner_plot_are_small(d, one, rng):
    figure = plots.corner(rng.standard_normal((200, d)), [r"a\ [\mathrm{Gyr}]"] * d)
    assert figure.axes[-1].get_xlabel() == one
    figure.canvas.draw()
    boxes = [
        label.get_window_extent()
        for ax in figure.axes
        for label in (ax.xaxis.label, ax.yaxis.label)
    ]
    assert min(min(box.x0, box.y0) for box in boxes) >= 0  # inside the figure


def test_a_narrow_second_posterior_is_not_cut_off(rng):
    wide = rng.normal(size=(4000, 2))
    figure = plots.corner(wide, ["a", "b"])
    limits = figure.axes[0].get_xlim()
    plots.corner(0.1 * wide, ["a", "b"], figure=figure, colour="C1")
    ax = figure.axes[0]
    assert ax.get_ylim()[1] > 3
    assert ax.get_xlim() == pytest.approx(limits)
    plots.corner(10 * wide, ["a", "b"], figure=figure, colour="C2")
    assert ax.get_ylim()[1] > 3


def test_a_posterior_fifty_times_narrower_does_not_flatten_the_first(rng):
    wide = rng.normal(size=(4000, 2))
    figure = plots.corner(wide, ["a", "b"])
    top = figure.axes[0].get_ylim()[1]
    plots.corner(0.02 * wide, ["a", "b"], figure=figure, colour="C1")
    assert figure.axes[0].get_ylim()[1] == pytest.approx(top)


def test_corner_survives_one_parameter_and_constant_draws(rng):
    assert len(plots.corner(rng.standard_normal((200, 1)), ["a"]).axes) == 1
    constant = np.column_stack([np.ones(200), rng.standard_normal(200)])
    plots.corner(constant, ["a", "b"])


def test_recovery_thins_large_samples_and_survives_none(rng, ax):
    theta = rng.standard_normal(5000)
    plots.recovery(theta, theta, np.ones(5000), "a", ax)
    assert max(len(line.get_xdata()) for line in ax.lines) == 250
    plots.recovery([np.nan], [0.0], [1.0], "a")


def test_pulls_leave_out_what_has_no_truth_or_no_error(ax):
    entries = [
        {"combiner": "g", "n": 1, "parameters": {"a": {"mean": 0.0, "sd": 1.0}}},
        {"combiner": "g", "n": 10, "parameters": {"a": {"mean": 0.0, "sd": 0.0, "truth": 0.0}}},
        {"combiner": "g", "n": 100, "parameters": {"a": {"mean": 1.0, "sd": 0.5, "truth": 0.0}}},
    ]
    plots.pulls(entries, "a", "a", ax)
    assert [list(line.get_ydata()) for line in ax.lines if line.get_marker() == "o"] == [[2.0]]


@pytest.mark.parametrize("label", [r"\nonsense{", "100 % $ off", "<script>"])
def test_labels_that_are_no_tex_are_shown_as_they_are(label, ax):
    ax.set_title(plots.math_label(label))
    ax.figure.canvas.draw()
