"""The training benchmark runs at small shapes, with the trainer's own parts."""

from benchmarks.train_step import measure


def test_a_step_at_small_shapes(make_config):
    config = make_config(training={"data": "none", "global_batch": 2, "micro_batch": 1, "items": 2})
    figures = measure(config, "cpu", steps=1)
    assert figures["samples_per_s"] > 0
    assert 4 < figures["loss"] < 7  # random weights know nothing: about ln(263) nats per token
    assert figures["tokens_per_sample"] > 2 * 300 + 60 + 60
    assert figures["mfu"] is None  # a CPU's peak is not known
    known = measure(
        make_config(training={"data": "none", "global_batch": 1, "micro_batch": 1, "items": 1, "peak_tflops": 0.1}),
        "cpu",
        steps=1,
    )
    assert 0 < known["mfu"] < 1
