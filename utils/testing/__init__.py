"""A test run apart from the network: inputs, results and their files, summaries."""
