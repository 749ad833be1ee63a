"""What is counted of all turns: totals for the console, and numbers for Prometheus."""
