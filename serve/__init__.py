"""The Ray Serve application (not to be confused with `ray.serve`, which is imported as `ray_serve`)."""
