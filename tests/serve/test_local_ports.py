"""Under serve/one_machine.env no port of Ray and of Serve is open to the network."""

from __future__ import annotations

from support.small_app import Small


def test_every_port_listens_on_this_machine_alone(small: Small) -> None:
    ports = small.listening()
    assert set(ports) <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    assert len(ports["127.0.0.1"]) > 3  # proxy, metrics, dashboard, a replica
