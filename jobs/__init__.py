"""What a person runs: command line, study file, plan, report."""
