"""What a test run needs besides the network: inputs, results and their files, summaries."""
