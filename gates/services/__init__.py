"""The services of the gates: policies, measurements and diagnoses."""
