"""A night, once its stages have run.

publish  what it made as one commit on its branch, or kept until that is possible
changes  its metrics, beside what they were
account  what it took
"""
