"""What steps run on: processes, containers, environments, SLURM."""
