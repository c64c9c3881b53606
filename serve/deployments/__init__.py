"""The deployments: the models, each with its own replicas, and the ingress that sends a request through them.

Plain classes: `serve.app` makes deployments of them. Each is given the configuration and the generations to serve
(`serve.start`).
"""
