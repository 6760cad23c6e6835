"""Jobs of workers: queue, leases, cost limits, sandbox, and the list of workers."""
