"""Knowledge that is added, replaced and deleted while the service runs: a durable journal, folded into shards later."""
