"""Carries messages and time to the machines. Decides nothing."""
