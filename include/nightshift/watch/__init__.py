"""What watches a release that serves: its traces, its objectives, its answers."""
