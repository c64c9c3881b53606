"""Ray jobs, a stage each: `ray job submit --working-dir . -- python -m jobs.<stage> --config <file>`."""
