"""Console pages of operations: drift, jobs, audit, health."""
