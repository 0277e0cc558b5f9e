"""What the page shows of a test run: its rows, and the name of its file."""

Row = dict[str, str | int | float]

PAGE = "report.html"
