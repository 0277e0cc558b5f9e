"""Where and in which number format a run computes: device, precision, CUDA graphs, processes."""
