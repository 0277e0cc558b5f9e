"""What people look at after a test run: the page and the figures."""
