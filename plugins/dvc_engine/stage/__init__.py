"""One stage, run once: decided, cloned, reproduced in a process of its own, reported.

outcome   what a night fixed, what a stage returns, and what its end means
start     what a night starts from, and what it lacks
plan      what need not run, from lock entries alone
attempt   one attempt at one stage, from the decision to the report
strays    what a stage wrote and does not declare
job       what the child is told
settled   what need not run, of all stages at once
process   its process: a session of its own, on a leash
leash     what leads that session, and ends all when the task dies
command   a command of the project beside its stages, on a leash too
child     what a stage's process does: check out and reproduce one stage
recorder  the shell that DVC starts commands with: exit code, last lines, memory
venvs     environments of stages that have requirements of their own
"""
