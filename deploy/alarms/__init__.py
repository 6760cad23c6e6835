"""Alarms: conditions that call for a person, detected and recorded."""
