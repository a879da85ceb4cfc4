r"""Density of the accreted galaxies of a halo: their number N, and an ordered set of members.

**The model.** The posterior of a halo x is factorised into the number of members and, by decreasing
stellar mass, each member given all heavier ones,

.. math::
    q(N, \theta_{1..N} \,|\, x) = q(N \,|\, h) \prod_{k=1}^{N} q(\theta_k \,|\, c_k),
    \qquad h = h(x), \qquad c_k = c(\theta_{<k}, k, N, h),

with h the summary of the plane (an embedding network) and :math:`\theta_k` = (log M_star, log M_dm,
tau) of member k. It is an autoregressive density of a set of variable size: one flow, shared by all
ranks k and all N, instead of a flow over 3N numbers. Sorting by mass removes the permutation
symmetry.

**Whitened members** (:mod:`~sbi_casbi.sets.whitening`). With F the prior distribution function of
log M, order statistics give coordinates that are standard normal under the prior for every N,

.. math::
    v_{k1} = \Phi^{-1}\left[\left(\frac{F(M_k)}{F(M_{k-1})}\right)^{N - k + 1}\right], \qquad
    q(\theta_k \,|\, c_k) = q(v_k \,|\, c_k)\,
    \left|\det \frac{\partial v_k}{\partial \theta_k}\right| .

Order and mass range therefore hold for every draw, and a network that learns nothing returns the
prior.

**One member** (:mod:`~sbi_casbi.sets.member_flow`). Monotonic rational-quadratic splines T, one per
coordinate, each conditioned on the context and the coordinates before it,

.. math::
    q(v_k \,|\, c_k) = \prod_j \mathcal N\big(T(v_{kj}; c_k, v_{k,<j})\big)\,
    |\partial T / \partial v_{kj}| .

**The number** (:mod:`~sbi_casbi.sets.number`). q(N | h) is a mixture of discretised logistics in
log N; the classifier and the dequantised flow of the published two-step design are alternatives.

**The context** (:mod:`~sbi_casbi.sets.context`).

.. math::
    c_k = \mathrm{MLP}\left[h, k, N, \theta_{k-1}, \langle\phi(\theta_{<k})\rangle, R_k\right]

contains a deep set of the earlier members and :math:`R_k`, the part that they leave over of sums
over all members: the accreted mass and the mass-weighted mean member, which the data constrain
best. The sums are estimated from the data, each a Gaussian with its own loss
(:mod:`~sbi_casbi.sets.sums`). No gradient of the density flows into these estimates. They are
functions of the data, not random variables, so that the product above remains a normalised density.

**The loss.** For each halo and training step, a few ranks k (always the first),

.. math::
    L = -\log q(N \,|\, h) - \langle \log q(v_k \,|\, c_k) \rangle_k + 0.2\, L_\mathrm{sums} .

**The total mass** (:mod:`~sbi_casbi.sets.total_mass`). After training, on validation halos: a drawn
set is rescaled so that its total mass t scatters as the estimate of the accreted mass does. With
:math:`q^*` the density above,

.. math:: q(t, r) = \int q^*(t^*, r)\, p(t\,|\,r)\, \mathrm dt^*, \qquad r = M_k / M_1 .

:mod:`~sbi_casbi.sets.density` joins the terms (:class:`SetDensity`: loss, log probability,
sampling), :class:`sbi_casbi.estimator.SetEstimator` trains and stores it, and
:mod:`~sbi_casbi.sets.diagnostics` measures calibration and accuracy of integers and sets.

References:
    | Papamakarios, Pavlakou & Murray 2017, https://arxiv.org/abs/1705.07057 (autoregressive flows)
    | Durkan et al. 2019, Neural Spline Flows, https://arxiv.org/abs/1906.04032
    | Zaheer et al. 2017, Deep Sets, https://arxiv.org/abs/1703.06114
    | Salimans et al. 2017, PixelCNN++, https://arxiv.org/abs/1701.05517 (discretised logistics)
"""

from __future__ import annotations

from sbi_casbi.sets.density import SetConfig, SetDensity

__all__ = ["SetConfig", "SetDensity"]
