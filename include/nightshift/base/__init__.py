"""Bring base models in as plain weights, ask what is known of them, and choose one on evidence."""
