import numpy as np
from numpy.testing import assert_allclose

from sbi_casbi.cosmology import age_gyr, redshift
from sbi_casbi.onezone import Constants, evolve


def harmonic(a, b):
    return 1 / (1 / a - 1 / b)


def test_constant_parameters_follow_the_analytic_solution():
    """Weinberg et al. 2017, eqs. 50 and 53, for an exponential history and one delay time."""
    c = Constants(dtd=((1.5, 1.0),))
    tau_star, eta, tau_sfh, tau_ia = 2.0, 1.6, 4.0, 1.5
    steps = 4000
    edges = np.linspace(0, 10, steps + 1)
    t = 0.5 * (edges[1:] + edges[:-1])
    psi = np.exp(-t / tau_sfh)
    late = np.where(t > c.delay, np.exp(-(t - c.delay) / tau_sfh), 0.0)
    z_o, z_fe = evolve(
        psi[None],
        late[None],
        np.diff(edges)[None],
        np.array([tau_star]),
        np.full((1, steps), eta),
        c,
    )
    depletion = tau_star / (1 + eta - c.recycling)
    big_t, d, i = (
        harmonic(depletion, tau_sfh),
        harmonic(depletion, tau_ia),
        harmonic(tau_ia, tau_sfh),
    )
    x = t - c.delay
    want_o = c.y_o * big_t / tau_star * (1 - np.exp(-t / big_t))
    ia = c.y_ia * (big_t / tau_star) * (i / tau_ia) * np.exp(c.delay / tau_sfh)
    ia = ia * (1 - np.exp(-x / big_t) - d / big_t * (np.exp(-x / i) - np.exp(-x / big_t)))
    want_fe = c.y_cc / c.y_o * want_o + np.where(x > 0, ia, 0)
    after = t > 0.5
    assert_allclose(z_o[0, after], want_o[after], rtol=2e-3)
    assert_allclose(z_fe[0, after], want_fe[after], rtol=8e-3)


def test_no_iron_of_type_ia_before_the_delay():
    c = Constants()
    dt = np.full((1, 10), 0.01)  # ends before 0.15 Gyr
    z_o, z_fe = evolve(np.ones((1, 10)), np.zeros((1, 10)), dt, np.ones(1), np.ones((1, 10)), c)
    assert_allclose(z_fe / z_o, c.y_cc / c.y_o, rtol=1e-12)


def test_long_steps_stay_stable():
    c = Constants()
    z_o, z_fe = evolve(
        np.ones((1, 3)), np.ones((1, 3)), np.full((1, 3), 50.0), np.ones(1), np.full((1, 3), 1e4), c
    )
    assert np.isfinite(z_o).all()
    assert (z_fe > 0).all()


def test_age_and_redshift_are_inverse_and_agree_with_astropy():
    from astropy.cosmology import FlatLambdaCDM

    z = np.array([0.0, 0.5, 1.0, 3.0, 9.0])
    want = FlatLambdaCDM(H0=67.1, Om0=0.3175, Tcmb0=0).age(z).value
    assert_allclose(age_gyr(z), want, rtol=1e-6)
    assert_allclose(redshift(age_gyr(z)), z, atol=1e-9)
