"""How a worker holds a job: queue, lease, cost limits, sandbox, and the list of workers."""
