"""The morning after: alerts, nights, drift and accuracy, one report a release, messages and rules for others."""
