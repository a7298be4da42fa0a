"""What cellvim must survive: kills, full disks, rivals and damaged files. `python -m pipelines.torture --help`."""
