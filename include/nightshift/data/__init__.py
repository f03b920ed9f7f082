"""From sources to a corpus: every stage that reads documents and writes tables of sections."""
