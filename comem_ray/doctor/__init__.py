"""What is there and what is missing: the files of the benchmarks, and the artifacts of a run. Changes nothing.

`comem_ray.doctor.diagnosis.diagnose` puts it together; `comem doctor` prints it.
"""
