"""The trained flow and its copy on disk."""

from sbi_sedflow.estimator import SedFlowEstimator


def test_a_loaded_estimator_gives_the_same_bits(toy, trained, tmp_path):
    trained.save(tmp_path)
    again = SedFlowEstimator.load(tmp_path)
    for network in (trained.network, again.network):
        tensors = (*network.parameters(), *network.buffers())
        assert all(t.data_ptr() % 64 == 0 for t in tensors)  # else some processors round otherwise
    batch = toy.observe(toy.draw(20, 1), 2)
    assert (trained.sample(batch, 100, 3) == again.sample(batch, 100, 3)).all()
    theta = trained.sample(batch, 5, 4)
    assert (trained.log_prob(theta, batch) == again.log_prob(theta, batch)).all()
