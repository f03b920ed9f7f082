"""Ask tonight's systems, pick one, judge it against the release in production, and decide."""
